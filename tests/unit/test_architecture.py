"""What is written about modules is so: the drawing of who imports whom, and lists of what a package holds."""

from __future__ import annotations

import ast
import re
import textwrap
import tomllib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
WIDTH = 110
MOST_ARROWS = 71


def drawn() -> str:
    """Draw the contracts: a line for each layer, those above may import those below."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layered = [contract for contract in contracts if contract["type"] == "layers"]
    top = layered[0]["layers"]  # the packages; then what is inside each
    lines = [f"service.py > {' > '.join(top)}"]
    for contract in layered[1:]:
        lines.append(f"\n{contract['containers'][0].replace('.', '/')}")
        for layer in contract["layers"]:
            lines += textwrap.wrap(layer, WIDTH, initial_indent="    ", subsequent_indent="      ")
    return "\n".join(lines)


def test_the_documents_draw_the_order_of_imports_that_is_kept() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    assert f"```text\n{drawn()}\n```" in text, f"put this into docs/architecture.md:\n{drawn()}"


@pytest.mark.parametrize(
    "package", ["engines", "engines/devices", "engines/loader", "routing", "routing/scheduling"]
)
def test_a_package_lists_all_that_it_holds(package: str) -> None:
    text = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text())) or ""
    listed = re.findall(r"^(\w+(?:\.py|/))  ", text, re.MULTILINE)
    modules = {path.name for path in (ROOT / package).glob("*.py")} - {"__init__.py"}
    packages = {f"{path.parent.name}/" for path in (ROOT / package).glob("*/__init__.py")}
    assert sorted(listed) == sorted(modules | packages)


def test_the_rooms_of_the_gateway_know_few_others() -> None:
    graph = grimp.build_graph("routing", cache_dir=None)

    def room(module: str) -> str:
        return ".".join(module.split(".")[:2])

    arrows = {
        (room(module), room(imported))
        for module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
        if room(module) != room(imported) and "routing" not in (room(module), room(imported))
    }
    assert len(arrows) <= MOST_ARROWS, sorted(arrows)

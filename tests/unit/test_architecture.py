"""The order of imports that docs/architecture.md draws is the one that import-linter keeps."""

from __future__ import annotations

import textwrap
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
WIDTH = 110


def drawn() -> str:
    """Draw the contracts: a line for each layer, those above may import those below."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layered = [contract for contract in contracts if contract["type"] == "layers"]
    top = layered[0]["layers"]  # the packages; then what is inside each
    inside = {
        contract["containers"][0]: contract["layers"] for contract in layered if "containers" in contract
    }
    lines = [f"service.py > {' > '.join(top)}"]
    for container in (name for name in " | ".join(top).split(" | ") if name in inside):
        lines.append(f"\n{container}")
        for layer in inside[container]:
            lines += textwrap.wrap(layer, WIDTH, initial_indent="    ", subsequent_indent="      ")
    return "\n".join(lines)


def test_the_documents_draw_the_order_of_imports_that_is_kept() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    assert f"```text\n{drawn()}\n```" in text, f"put this into docs/architecture.md:\n{drawn()}"

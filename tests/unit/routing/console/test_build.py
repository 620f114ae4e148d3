"""The built page is that of these sources, small, and of nobody else's server."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from routing.console import STATIC
from routing.site import TYPES

SOURCES = Path(__file__).parents[4] / "console"
BESIDE = ("index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts")
MAX_BYTES = 200_000


def digest() -> str:
    """sha256 over path and content of every source, as `console/vite.config.ts` computes it."""
    files = [SOURCES / name for name in BESIDE]
    files += [path for path in (SOURCES / "src").rglob("*") if path.is_file()]
    total = hashlib.sha256()
    for name, path in sorted((path.relative_to(SOURCES).as_posix(), path) for path in files):
        total.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


def test_the_page_was_built_from_the_sources_as_they_are() -> None:
    built = (STATIC / "sources.sha256").read_text().strip()
    assert built == digest(), "the console's sources have changed: `make console`, and commit what it builds"


def test_the_page_is_small() -> None:
    assert sum(path.stat().st_size for path in STATIC.iterdir()) < MAX_BYTES


def test_the_folder_holds_the_page_and_nothing_else() -> None:
    names = {path.name for path in STATIC.iterdir()} - {"sources.sha256", "index.html"}
    page = (STATIC / "index.html").read_text()
    assert all(re.fullmatch(r"console-[\w-]{8}\.\w+", name) for name in names), names
    assert {Path(name).suffix for name in names} == set(TYPES) - {".html", ".json"}
    assert all(f"/console/{name}" in page for name in names)


def test_the_page_loads_nothing_from_elsewhere() -> None:
    page = (STATIC / "index.html").read_text()
    assert set(re.findall(r'(?:src|href)="([^"]+)"', page)) == {
        f"/console/{path.name}" for path in STATIC.iterdir() if path.name.startswith("console-")
    }
    for path in (*STATIC.glob("*.css"), *STATIC.glob("*.js")):
        addresses = set(re.findall(r"https?://[\w./-]+", path.read_text()))
        assert addresses <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xhtml",
            "http://www.w3.org/1998/Math/MathML",
        }, "names of XML, which nobody fetches"


def test_what_it_is_built_with_is_pinned_by_its_content_wherever_it_comes_from() -> None:
    lock = json.loads((SOURCES / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert len(packages) > 10
    for name, package in packages.items():
        assert "resolved" not in package, name
        assert package["integrity"].startswith("sha512-"), name
    wanted = json.loads((SOURCES / "package.json").read_text())
    versions = {**wanted["dependencies"], **wanted["devDependencies"]}
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in versions.values()), versions

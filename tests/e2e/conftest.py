"""One real service for all tests of a module; engines take long to load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.e2e.serving import ROOT, Service, serving


def demo_fleet(folder: Path, changes: Mapping[str, str]) -> Path:
    """Write the demo fleet into a folder, with texts in it changed; each must be there."""
    text = (ROOT / "fleet.yaml").read_text().replace(".cache/", f"{ROOT}/.cache/")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "fleet.yaml"
    path.write_text(text)
    return path


def two_slots(folder: Path) -> Path:
    """The demo fleet with fewer slots than adapters, so that adapters must take turns."""
    return demo_fleet(folder, {"max_loras: 4": "max_loras: 2"})


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The demo fleet, two slots on each replica, behind real `bentoml serve`."""
    folder = tmp_path_factory.mktemp("serve")
    with serving("service:Gateway", folder, "--arg", f"fleet={two_slots(folder)}") as service:
        yield service

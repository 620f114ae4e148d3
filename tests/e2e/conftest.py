"""One real service for all tests of a module; engines take long to load."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.serving import ROOT, Service, serving


def two_slots(folder: Path) -> Path:
    """The demo fleet with fewer slots than adapters, so that adapters must take turns."""
    text = (ROOT / "fleet.yaml").read_text()
    assert "max_loras: 4" in text
    path = folder / "fleet.yaml"
    path.write_text(text.replace("max_loras: 4", "max_loras: 2").replace(".cache/", f"{ROOT}/.cache/"))
    return path


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The demo fleet, two slots on each replica, behind real `bentoml serve`."""
    folder = tmp_path_factory.mktemp("serve")
    with serving("service:Gateway", folder, "--arg", f"fleet={two_slots(folder)}") as service:
        yield service

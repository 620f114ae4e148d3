"""What tests of the admin API start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.routing.admin import fakes


@pytest.fixture
def desk(tmp_path: Path) -> fakes.Desk:
    """An admin API with nothing behind it yet."""
    return fakes.desk(tmp_path)

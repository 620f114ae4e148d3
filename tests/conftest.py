"""What tests of every kind may ask for."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests of a module."""
    from tests.browser import chromium  # few tests need it

    with chromium() as browser:
        yield browser


class FromAFullMinute:
    """The wall clock, put back to the last full minute."""

    def __init__(self) -> None:
        self._past_s = time.time() % 60

    def time(self) -> float:
        """Seconds since 1970, a minute ago at most."""
        return time.time() - self._past_s


@pytest.fixture(autouse=True)
def minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test begin with a minute of the clock, by which rates are counted, and end within it."""
    clock = FromAFullMinute()
    for name in ("limits.storage.memory", "routing.scheduling.rates"):
        if name in sys.modules:  # few tests need them
            monkeypatch.setattr(f"{name}.time", clock)

"""The collector leaves what is there alone, and walks a few objects at a time."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from routing import gc_tuning


class Node:
    """May be part of a cycle."""

    def __init__(self) -> None:
        self.other: Node | None = None


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def test_what_is_there_is_collected_once_and_not_walked_again() -> None:
    cycle, kept = Node(), Node()
    cycle.other = cycle
    gone = weakref.ref(cycle)
    del cycle
    gc_tuning.rest()
    assert gone() is None
    assert not any(seen is kept for seen in gc.get_objects())


def test_young_objects_are_walked_rarely_and_survivors_before_they_are_many() -> None:
    gc_tuning.rest()
    young, middle, _ = gc.get_threshold()
    assert young == gc_tuning.YOUNG
    assert young * (middle + 1) <= 30_000

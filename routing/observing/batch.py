"""When is something done for each of many small things? For several at once, soon.

What is done for one request after another, between all else, finds the CPU's caches cold each time. In
batches, observing requests costs little more than half (docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Batch(Generic[T]):
    """Collects items, and hands them over in their order: when it is full, or when somebody asks."""

    def __init__(self, size: int, handle: Callable[[Sequence[T]], None]) -> None:
        self._size = size
        self._handle = handle
        self._items: list[T] = []

    def add(self, item: T) -> None:
        """Take an item; hands all over where that fills the batch."""
        self._items.append(item)
        if len(self._items) >= self._size:
            self.flush()

    def flush(self) -> None:
        """Hand over what has come."""
        if self._items:
            items, self._items = self._items, []
            self._handle(items)

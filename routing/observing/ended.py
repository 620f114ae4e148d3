"""Passes ended requests to observers: to some at once, to the others several together, soon after.

Work for single requests, between all other work, finds the CPU's caches cold each time. In
batches, observing requests costs little more than half (docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from routing.types import Record

AT_ONCE = 64  # requests; more would block the event loop too long


class EndedRequests:
    """Tells every observer of each request that has ended, in the order in which they ended."""

    def __init__(
        self,
        at_once: Sequence[Callable[[Record], None]],
        batched: Sequence[Callable[[Sequence[Record]], None]],
        *,
        size: int = AT_ONCE,
    ) -> None:
        """Those in `batched` are called when `size` requests have ended, or by `flush`."""
        self._at_once = tuple(at_once)
        self._batched = tuple(batched)
        self._size = size
        self._records: list[Record] = []

    def add(self, record: Record) -> None:
        """Add a request that has just ended."""
        for observe in self._at_once:
            observe(record)
        self._records.append(record)
        if len(self._records) >= self._size:
            self.flush()

    def flush(self) -> None:
        """Pass all collected requests on."""
        if self._records:
            records, self._records = self._records, []
            for observe in self._batched:
                observe(records)

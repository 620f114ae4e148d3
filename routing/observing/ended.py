"""Who is told of requests that have ended? Some observers at once, the others of several together, soon.

What is done for one request after another, between all else, finds the CPU's caches cold each time. In
batches, observing requests costs little more than half (docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from routing.record import Record

AT_ONCE = 64  # requests; more keep the event loop for longer than a request should wait


class EndedRequests:
    """Tells every observer of each request that has ended, in the order in which they ended."""

    def __init__(
        self,
        at_once: Sequence[Callable[[Record], None]],
        batched: Sequence[Callable[[Sequence[Record]], None]],
        *,
        size: int = AT_ONCE,
    ) -> None:
        """Those in `batched` are told when `size` requests have ended, or when somebody calls `flush`."""
        self._at_once = tuple(at_once)
        self._batched = tuple(batched)
        self._size = size
        self._records: list[Record] = []

    def add(self, record: Record) -> None:
        """Tell of a request that has just ended."""
        for observe in self._at_once:
            observe(record)
        self._records.append(record)
        if len(self._records) >= self._size:
            self.flush()

    def flush(self) -> None:
        """Tell all observers of all that has ended."""
        if self._records:
            records, self._records = self._records, []
            for observe in self._batched:
                observe(records)

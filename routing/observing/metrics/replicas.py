"""Which replicas have series? Those that take part, and for a while those that have left.

As with models, the last value of a replica that has left stays on the page for `LINGER_S`, so that every
scraper has seen it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from routing.observing.metrics.models import LINGER_S
from routing.observing.metrics.series import ReplicaSeries
from routing.scheduling.state import Replica

ReplicaKey = tuple[str, str]  # pool, replica


class Replicas:
    """The series of replicas. `now_s` is monotonic."""

    def __init__(self, taking_part: Mapping[str, Replica]) -> None:
        """`taking_part` are the replicas of this moment, by name."""
        self._taking_part = taking_part
        self._series: dict[ReplicaKey, ReplicaSeries] = {}
        self._left_s: dict[ReplicaKey, float] = {}  # when it was first seen to have left

    def of(self, pool: str, replica: str, now_s: float) -> ReplicaSeries:
        """Return the series of a replica, to count in."""
        series = self._series.get((pool, replica))
        if series is None:
            self.review(now_s)  # so that their number is bounded where nobody reads the page
            series = self._series[pool, replica] = ReplicaSeries(pool, replica)
        return series

    def series(self) -> Sequence[ReplicaSeries]:
        """Return everything that is on the page."""
        return list(self._series.values())

    def review(self, now_s: float) -> None:
        """Remove the series of replicas that left a while ago."""
        here = {(replica.pool, name) for name, replica in self._taking_part.items()}
        left = self._series.keys() - here
        self._left_s = {key: self._left_s.get(key, now_s) for key in left}
        for key, left_s in list(self._left_s.items()):
            if now_s - left_s >= LINGER_S:
                del self._series[key], self._left_s[key]

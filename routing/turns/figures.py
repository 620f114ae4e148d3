"""What has been seen of a pool's requests of late: arrivals, answers, drains, tokens. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from routing.turns.worth import SERVICE_S

RATE_S = 120.0  # time over which arrivals are averaged
NEWEST = 0.05  # weight of the newest answer in the mean
LONGEST_FALLS = 0.98  # part that is left of the longest drain at the next one
FIRST_ANSWER_S, FIRST_DRAIN_S = 3.0, 10.0  # until some were seen


class Decaying:
    """A sum whose parts lose their weight with time."""

    def __init__(self, over_s: float) -> None:
        self._over_s = over_s
        self._sums: dict[str, tuple[float, float]] = {}  # sum, and when it was right

    def add(self, key: str, amount: float, now_s: float) -> None:
        """Add to a sum."""
        self._sums[key] = self.of(key, now_s) + amount, now_s

    def of(self, key: str, now_s: float) -> float:
        """Return a sum now."""
        amount, at_s = self._sums.get(key, (0.0, now_s))
        return amount * math.exp((at_s - now_s) / self._over_s)

    def keep(self, keys: Iterable[str]) -> None:
        """Forget all others."""
        self._sums = {key: self._sums[key] for key in keys if key in self._sums}


class PoolFigures:
    """The figures of one pool."""

    def __init__(self) -> None:
        self.answer_s = FIRST_ANSWER_S
        self.longest_drain_s = FIRST_DRAIN_S
        self._arrivals = Decaying(RATE_S)  # by model
        self._tokens = Decaying(SERVICE_S)  # by tenant

    def ended(self, model: str, tenant: str, tokens: int, answer_s: float | None, now_s: float) -> None:
        """Take over a request that has ended; `answer_s` is what it took on an engine, if completed."""
        self._arrivals.add(model, 1.0, now_s)
        self._tokens.add(tenant, float(tokens), now_s)
        if answer_s is not None:
            self.answer_s += NEWEST * (answer_s - self.answer_s)

    def drained(self, took_s: float) -> None:
        """Take over how long a model needed to run empty."""
        self.longest_drain_s = max(LONGEST_FALLS * self.longest_drain_s, took_s)

    def rate(self, model: str, now_s: float) -> float:
        """Arrivals of a model a second."""
        return self._arrivals.of(model, now_s) / RATE_S

    def served(self, tenant: str, now_s: float) -> float:
        """Tokens of a tenant of late."""
        return self._tokens.of(tenant, now_s)

    def keep_tenants(self, tenants: Iterable[str]) -> None:
        """Forget the tenants that are gone."""
        self._tokens.keep(tenants)

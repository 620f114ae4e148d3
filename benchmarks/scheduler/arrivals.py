"""Who asks for what, and when? Seeded lists of arrivals, the same for every scheduler, and their prompts.

Popularity of adapters follows Zipf's law, arrivals are Poisson processes. Pure: chance comes in.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.scheduler.fleet import Shape

WORDS = (
    *("gateway", "tenant", "adapter", "engine", "queue", "stream", "token", "model", "share", "wait"),
    *("order", "parcel", "refund", "price", "night", "lamp", "river", "paper", "seven", "moon"),
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of the list."""

    at_s: float  # from the start of the phase
    tenant: int
    adapter: int
    flood: bool = False  # on top of what the tenant asks otherwise


@dataclass(frozen=True, slots=True)
class Demand:
    """Who asks how much: the popularity of adapters decides the shares."""

    shape: Shape

    def popularity(self) -> list[float]:
        """Each adapter's share of all requests."""
        raw = [1.0 / (rank + 1) for rank in range(self.shape.adapters)]
        return [weight / sum(raw) for weight in raw]

    def share(self, tenant: int) -> float:
        """A tenant's share of all requests."""
        return sum(weight for _, weight in self._own(tenant))

    def _own(self, tenant: int) -> list[tuple[int, float]]:
        return [(a, weight) for a, weight in enumerate(self.popularity()) if self.shape.owner(a) == tenant]

    def draw(self, chance: random.Random, tenant: int) -> int:
        """One of the tenant's adapters."""
        names, weights = zip(*self._own(tenant), strict=True)
        return int(chance.choices(names, weights)[0])

    def steady(self, chance: random.Random, rate_per_s: float, seconds: float) -> list[Arrival]:
        """What all tenants ask at `rate_per_s` together, by time."""
        lists = [
            self._of(chance, tenant, rate_per_s * self.share(tenant), seconds, flood=False)
            for tenant in range(self.shape.tenants)
        ]
        return list(heapq.merge(*lists, key=lambda arrival: arrival.at_s))

    def flood(self, chance: random.Random, tenant: int, rate_per_s: float, seconds: float) -> list[Arrival]:
        """What one tenant asks on top, by time."""
        return self._of(chance, tenant, rate_per_s, seconds, flood=True)

    def _of(
        self, chance: random.Random, tenant: int, rate_per_s: float, seconds: float, *, flood: bool
    ) -> list[Arrival]:
        found = []
        at_s = chance.random() * _gap(chance, rate_per_s)  # the list begins somewhere inside a gap
        while at_s < seconds:
            found.append(Arrival(at_s, tenant, self.draw(chance, tenant), flood))
            at_s += _gap(chance, rate_per_s)
        return found

    def endless(self, chance: random.Random, tenant: int) -> Iterator[Arrival]:
        """What a tenant asks that always has the next request ready."""
        while True:
            yield Arrival(0.0, tenant, self.draw(chance, tenant))


def _gap(chance: random.Random, rate_per_s: float) -> float:
    return chance.gammavariate(1.0, 1.0 / rate_per_s)  # exponential


def merged(*lists: Sequence[Arrival]) -> list[Arrival]:
    """All of them by time."""
    return list(heapq.merge(*lists, key=lambda arrival: arrival.at_s))


class Prompts:
    """Prompts of the same length in tokens, no two alike, so that no prefix is ever cached for anybody.

    Every prompt has the same words in another order; the order depends on all that `key` says.
    """

    def __init__(self, key: str) -> None:
        self._chance = random.Random(key)

    def next(self) -> str:
        """One more prompt."""
        return " ".join(self._chance.sample(WORDS, len(WORDS)))

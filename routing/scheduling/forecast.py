"""How long would a request wait? From rates that were measured. Pure.

A group's capacity is only visible while requests wait: then it does all that it can. So work is counted over
intervals in which the queue was never empty, and the last figure stands while it is.

The wait of a tenant follows the fair queue: what waits in higher bands goes first; of its own band at most
what is there, and at most its own queue over its fair share of the service. So a flood is refused by the
length of its own queue and not of others', and of two bands the lower one is refused first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

SMOOTHING = 0.1  # weight of the newest request, or of a second's work, in a running mean
MIN_RETRY_S, MAX_RETRY_S = 0.5, 60.0


class Capacity:
    """How much work a group does per second while requests wait."""

    def __init__(self) -> None:
        self._done = 0.0
        self._since_s: float | None = None  # begin of an interval in which something always waited
        self.per_s: float | None = None  # None: never seen under load

    def add(self, amount: float) -> None:
        """Note work that was done."""
        self._done += amount

    def observe(self, now_s: float, *, backlogged: bool) -> None:
        """End an interval that is long enough. Called several times a second, to see an empty queue."""
        if not backlogged:
            self._since_s, self._done = None, 0.0
            return
        if self._since_s is None:
            self._since_s, self._done = now_s, 0.0
            return
        elapsed_s = now_s - self._since_s
        if elapsed_s < 1.0:
            return
        rate = self._done / elapsed_s
        self.per_s = rate if self.per_s is None else self.per_s + SMOOTHING * elapsed_s * (rate - self.per_s)
        self._since_s, self._done = now_s, 0.0

    def wait_s(self, ahead: float) -> float | None:
        """Seconds until the work ahead is done; None while nothing is known."""
        return ahead / self.per_s if self.per_s else None


@dataclass(frozen=True, slots=True)
class Ahead:
    """What would be served before a request, in one kind of work."""

    higher: float  # waits in higher bands
    band: float  # waits in its own band, all tenants
    own: float  # of that, its own tenant's
    fair_share: float  # its tenant's part of the band's service, 0..1
    itself: float = 0.0  # its own work

    @property
    def total(self) -> float:
        """Work before it and its own, as the fair queue orders it."""
        return self.higher + min(self.band, self.own / self.fair_share) + self.itself


class QueuedWork:
    """Price of all that waits in a group, by tenant and band."""

    def __init__(self, weights: Mapping[str, float], ranks: Mapping[str, int], bands: int) -> None:
        self._weights = weights
        self._ranks = ranks
        self._by_tenant: dict[str, float] = {}
        self._by_band = [0.0] * bands
        self._waiting_weight = [0.0] * bands  # of tenants that have something waiting

    def add(self, tenant: str, price: float) -> None:
        """Count a request that begins to wait."""
        rank = self._ranks[tenant]
        if tenant not in self._by_tenant:
            self._waiting_weight[rank] += self._weights[tenant]
        self._by_tenant[tenant] = self._by_tenant.get(tenant, 0.0) + price
        self._by_band[rank] += price

    def remove(self, tenant: str, price: float, *, left_of_tenant: int, left_of_band: int) -> None:
        """Count a request that waits no longer; where none is left, what rounding has left goes too."""
        rank = self._ranks[tenant]
        self._by_tenant[tenant] -= price
        self._by_band[rank] -= price
        if not left_of_tenant:
            del self._by_tenant[tenant]
            self._waiting_weight[rank] -= self._weights[tenant]
        if not left_of_band:
            self._by_band[rank] = self._waiting_weight[rank] = 0.0

    def ahead(self, tenant: str, price: float) -> Ahead:
        """Return what would be served before another request of a tenant."""
        rank, weight = self._ranks[tenant], self._weights[tenant]
        claimed = self._waiting_weight[rank] + (0.0 if tenant in self._by_tenant else weight)
        return Ahead(
            higher=sum(self._by_band[:rank]),
            band=self._by_band[rank],
            own=self._by_tenant.get(tenant, 0.0),
            fair_share=weight / claimed,
            itself=price,
        )


class TurnForecast(Protocol):
    """Says of a model that takes turns with others when its turn would come."""

    def until_awake_s(self) -> float | None:
        """Seconds until it is awake; None where it can come nowhere."""
        ...

    def least_s(self) -> float:
        """Seconds that it would take if it were its turn now."""
        ...


def smoothed(mean: float, newest: float) -> float:
    """Return a running mean after the newest request."""
    return mean + SMOOTHING * (newest - mean)


def retry_after_s(predicted_s: float, objective_s: float) -> float:
    """Say when the wait will have come down to the objective, if nothing else comes; 0.5..60 s."""
    return min(MAX_RETRY_S, max(MIN_RETRY_S, predicted_s - objective_s))

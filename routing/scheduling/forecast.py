"""How long would a request wait, and is that worth its while? From rates that were measured. Pure.

A group's capacity is only visible while somebody waits: then everything it can do is being done. So work is
counted over intervals in which the queue was never empty, and the last figure stands while it is.

The wait of a tenant follows the fair queue: what waits in higher bands goes first; of its own band at most
what is there, and at most its own queue over its share of the service. So a flood is refused by its own
length and not by other people's, and of two bands the lower one is refused first.
"""

from __future__ import annotations

from dataclasses import dataclass

SMOOTHING = 0.1  # weight of a second's work in the running mean
MIN_RETRY_S, MAX_RETRY_S = 0.5, 60.0


class Capacity:
    """How much work a group gets done per second while somebody waits."""

    def __init__(self) -> None:
        self._done = 0.0
        self._since_s: float | None = None  # an interval in which somebody always waited began then
        self.per_s: float | None = None  # None: never seen under load

    def add(self, amount: float) -> None:
        """Note work that was done."""
        self._done += amount

    def observe(self, now_s: float, *, backlogged: bool) -> None:
        """End an interval where it is long enough; the queue is looked at by whoever calls."""
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
        """Seconds until so much work is done; None while nothing is known."""
        return ahead / self.per_s if self.per_s else None


@dataclass(frozen=True, slots=True)
class Ahead:
    """What would be served before a request, in one kind of work."""

    higher: float  # waits in higher bands
    band: float  # waits in its own band, all tenants
    own: float  # of that, its own tenant's
    share: float  # its tenant's part of the band's service, 0..1
    itself: float = 0.0  # its own work

    @property
    def total(self) -> float:
        """Work before it and its own, as the fair queue orders it."""
        return self.higher + min(self.band, self.own / self.share) + self.itself


def retry_after_s(predicted_s: float, objective_s: float) -> float:
    """Say when the wait will have come down to the objective, if nobody else comes; 0.5..60 s."""
    return min(MAX_RETRY_S, max(MIN_RETRY_S, predicted_s - objective_s))

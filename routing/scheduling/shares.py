"""May a tenant take another slot while slots are scarce? Keeps one for those who hold fewer. Pure.

A slot that was given away comes back only when its requests have ended, which takes as long as an answer.
So a flood that spreads over every free slot makes all others wait that long, however fair the queue is.
While somebody has had to wait for a slot lately, a tenant that holds its share of them may not take the
last free one of a replica. Shares are by weight among the tenants seen lately, and at least one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

REMEMBERED_S = 10.0  # for how long a wait for a slot, and a tenant's last request, count


class Shares:
    """What each tenant of one pool holds and runs, and how many slots it may while they are scarce."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.held: Counter[str] = Counter()  # tenant -> slots
        self.running: Counter[str] = Counter()  # tenant -> sequences
        self._weights = weights
        self._seen_s: dict[str, float] = {}  # tenant -> when it last sent a request
        self._scarce_until_s = 0.0
        self._slots_by_weight = 0.0  # 0: slots are not scarce

    def began(self, tenant: str, sequences: int, *, slot: bool) -> None:
        """A tenant's request runs; it may have taken a slot for it."""
        _add(self.running, tenant, sequences)
        _add(self.held, tenant, int(slot))

    def ended(self, tenant: str, sequences: int) -> None:
        """A tenant's request runs no more."""
        _add(self.running, tenant, -sequences)

    def gave(self, tenant: str) -> None:
        """A tenant's adapter has given its slot back; it is the tenant that took it, whoever was last."""
        _add(self.held, tenant, -1)

    def saw(self, tenant: str, now_s: float) -> None:
        """A tenant has sent a request."""
        self._seen_s[tenant] = now_s

    def lacked(self, now_s: float) -> None:
        """Somebody has to wait for a slot."""
        self._scarce_until_s = now_s + REMEMBERED_S

    def refresh(self, now_s: float, slots: int) -> None:
        """Work shares out anew, of so many slots in all; several times a second is enough."""
        if now_s >= self._scarce_until_s:
            self._slots_by_weight = 0.0
            return
        self._seen_s = {t: at for t, at in self._seen_s.items() if now_s - at < REMEMBERED_S}
        claimed = sum(self._weights[tenant] for tenant in self._seen_s.keys() | self.running.keys())
        self._slots_by_weight = slots / claimed if claimed else 0.0

    def reserve_against(self, tenant: str) -> int:
        """Free slots of a replica that a tenant must leave alone."""
        if not self._slots_by_weight:
            return 0
        return 1 if self.held[tenant] >= max(1.0, self._slots_by_weight * self._weights[tenant]) else 0


def _add(counts: Counter[str], tenant: str, number: int) -> None:
    counts[tenant] += number
    if not counts[tenant]:
        del counts[tenant]

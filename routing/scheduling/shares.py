"""Who floods, and what may such a tenant take? It leaves to others what would make them wait. Pure.

A slot or a place in a batch that was given away comes back only when its request has ended, which takes as
long as an answer, and every sequence more makes each step longer. So a tenant that fills whatever is free
makes all others wait, however fair the queue is. A tenant floods that has had something waiting for
`FLOODS_AFTER_S` on end and asks for `FLOOD_FACTOR` times what the others ask on average, by weight. Its fair
share of slots and of sequences is its own; beyond it it fills a replica's slots and its batch up to
`burst_share` only. Where all ask alike nobody floods. Lower bands are no others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

REMEMBERED_S = 10.0  # for how long a tenant counts after its last request
FLOODS_AFTER_S = 2.0  # bursts that are over sooner disturb nobody for long
FLOOD_FACTOR = 3.0  # ordinary tenants differ by as much


@dataclass(frozen=True, slots=True)
class Room:
    """What the replicas of a pool have, or a tenant's part of it."""

    slots: float
    sequences: float


@dataclass(frozen=True, slots=True)
class _Asked:
    """What somebody asks for: sequences, running or waiting, and the weight behind them."""

    sequences: int
    weight: float

    def stands_out(self, whole: _Asked) -> bool:
        """Whether it is far more than what the rest of the whole asks, by weight; false without a rest."""
        others = whole.weight - self.weight
        return (
            others > 0
            and self.sequences / self.weight > FLOOD_FACTOR * (whole.sequences - self.sequences) / others
        )


class Shares:
    """What each tenant of one pool holds and runs, and who of them floods."""

    def __init__(
        self, weights: Mapping[str, float], ranks: Mapping[str, int], burst_share: float = 0.5
    ) -> None:
        """`ranks` are those of the tenants' bands, `burst_share` is 0..1 of a replica's capacity."""
        self.burst_share = burst_share
        self.held: Counter[str] = Counter()  # tenant -> slots
        self.running: Counter[str] = Counter()  # tenant -> sequences
        self.flooding: frozenset[str] = frozenset()
        self._weights = weights
        self._ranks = ranks
        self._seen_s: dict[str, float] = {}  # tenant -> when it last sent a request
        self._waits_since_s: dict[str, float] = {}
        self._fair: dict[int, Room] = {}  # rank -> fair share of a tenant of weight 1

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

    def refresh(self, now_s: float, waiting: Mapping[str, int], room: Room) -> None:
        """Find out who floods, given what waits of each tenant; several times a second is enough."""
        self._seen_s = {t: at for t, at in self._seen_s.items() if now_s - at < REMEMBERED_S}
        self._waits_since_s = {t: self._waits_since_s.get(t, now_s) for t in waiting}
        active = self._seen_s.keys() | self.running.keys() | waiting.keys()
        long = [t for t, since_s in self._waits_since_s.items() if now_s - since_s >= FLOODS_AFTER_S]
        self._fair, flooding = {}, set[str]()
        for rank in {self._ranks[tenant] for tenant in long}:
            asked = {
                tenant: _Asked(self.running[tenant] + waiting.get(tenant, 0), self._weights[tenant])
                for tenant in active
                if self._ranks[tenant] <= rank
            }
            whole = _Asked(sum(a.sequences for a in asked.values()), sum(a.weight for a in asked.values()))
            self._fair[rank] = Room(room.slots / whole.weight, room.sequences / whole.weight)
            flooding.update(t for t in long if self._ranks[t] == rank and asked[t].stands_out(whole))
        self.flooding = frozenset(flooding)

    def keeps_slot_from(self, tenant: str) -> bool:
        """Whether a replica's slots are not all for a tenant: it floods and holds its share."""
        if tenant not in self.flooding:
            return False
        return self.held[tenant] >= max(1.0, self._share(tenant).slots)

    def keeps_room_from(self, tenant: str) -> bool:
        """Whether a replica is not to be filled up by a tenant: it floods and runs its share."""
        if tenant not in self.flooding:
            return False
        return self.running[tenant] >= self._share(tenant).sequences

    def _share(self, tenant: str) -> Room:
        fair, weight = self._fair[self._ranks[tenant]], self._weights[tenant]
        return Room(fair.slots * weight, fair.sequences * weight)


def _add(counts: Counter[str], tenant: str, number: int) -> None:
    counts[tenant] += number
    if not counts[tenant]:
        del counts[tenant]

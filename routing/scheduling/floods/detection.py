"""Who floods, and what may such a tenant take? It leaves to others what would make them wait. Pure.

A slot or a place in a batch that was given away comes back only when its request has ended, which takes as
long as an answer, and every sequence more makes each step longer. So a tenant that fills whatever is free
makes all others wait, however fair the queue is. A tenant may flood that asks for `FLOOD_FACTOR` times what
the others ask on average, by weight, where whoever was seen lately asks for one sequence at least. It need
not wait itself: what it runs is what others wait for. Where all ask alike nobody floods. Lower bands are no
others. Averages and fair shares are those of `MOST_TENANTS` at most: of a thousand tenants the largest asks
for far more than the mean, and floods only where it asks for more than all others together.

What a tenant asks for grows while it is made to wait, too. So a flood begins when somebody sends that many
times what the others send, and then goes on until it asks for less than `FLOOD_ENDS` times what they do:
clients that wait for answers send no faster than they are served, and whom a flood makes wait asks for more.

The others are crowded while they have anything here, and more than `CROWDED` of it waits, smoothed.
Then it floods at once: it gets no more than its fair share of slots, and runs as much as those others do on
average that ask for anything, by turns, unless a replica is nearly empty. What they leave of their shares
makes their own waits short then, and does not go to the flood.

While they are not, it floods after it has waited for `FLOODS_AFTER_S` on end, so that what can be served is:
its fair share of slots and of sequences is its own, and beyond it it fills a replica's slots and its batch up
to `burst_share` only. The same holds, however crowded the others are, for who no longer sends that much and
still comes to ask for `HELD_DOWN` times the most that it did when it sent that much: the bound makes its
queue.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from routing.scheduling.floods.arrivals import Arrivals
from routing.scheduling.floods.turns import AT_ONCE, Turn

FLOODS_AFTER_S = 2.0  # bursts that are over sooner disturb nobody for long
FLOOD_FACTOR = 8.0  # by Zipf's law the largest of eight tenants asks for three times the mean, in bursts more
FLOOD_ENDS = 4.0  # half of what it begins with; the largest of eight is still below
MOST_TENANTS = 8.0  # of a thousand it asks for 130 times the mean, but for no more than a seventh of it all
HELD_DOWN = 1.5  # clients that wait for answers ask for no more than they did; what else it sends is added
CROWDED = 0.04  # of the others' requests; where slots suffice hardly one in a hundred waits
CALM_S = 5.0  # over which it is smoothed whether they are crowded, and what they run: seconds


@dataclass(frozen=True, slots=True)
class Room:
    """What the replicas of a group have, or a tenant's part of it."""

    slots: float
    sequences: float


@dataclass(frozen=True, slots=True)
class _Demand:
    """What tenants have running and waiting, in sequences and requests, and the weight behind it."""

    running: float
    waiting: float
    sent: float  # lately
    weight: float
    tenants: float = 1.0

    @staticmethod
    def of_all(demands: Collection[_Demand]) -> _Demand:
        """Add up."""
        return _Demand(
            sum(demand.running for demand in demands),
            sum(demand.waiting for demand in demands),
            sum(demand.sent for demand in demands),
            sum(demand.weight for demand in demands),
            sum(demand.tenants for demand in demands),
        )

    def without(self, part: _Demand) -> _Demand:
        """Return the rest."""
        return _Demand(
            self.running - part.running,
            self.waiting - part.waiting,
            self.sent - part.sent,
            self.weight - part.weight,
            self.tenants - part.tenants,
        )

    @property
    def asked(self) -> float:
        """All of it."""
        return self.running + self.waiting

    @property
    def is_crowded(self) -> bool:
        """Whether too much of it waits."""
        return self.waiting > CROWDED * self.asked

    def each(self, total: float) -> float:
        """Return the part of a total for a weight of one, where the tenants are eight at most."""
        return total / self.weight * max(1.0, self.tenants / MOST_TENANTS)

    def stands_out(self, whole: _Demand, factor: float) -> bool:
        """Whether it is so many times what the rest of the whole asks, by weight; false without a rest."""
        rest = whole.without(self)
        if rest.weight <= 0:
            return False
        return self.asked / self.weight >= factor * max(1.0, rest.each(rest.asked))

    def bursts(self, whole: _Demand) -> bool:
        """Whether far more was sent lately than by the rest of the whole, by weight."""
        rest = whole.without(self)
        return self.sent / self.weight >= FLOOD_FACTOR * max(1.0, rest.each(rest.sent))

    def smoothed(self, newest: _Demand, part: float) -> _Demand:
        """Come nearer to the newest one by so much of the way."""
        return _Demand(
            self.running + part * (newest.running - self.running),
            self.waiting + part * (newest.waiting - self.waiting),
            self.sent + part * (newest.sent - self.sent),
            self.weight + part * (newest.weight - self.weight),
            self.tenants + part * (newest.tenants - self.tenants),
        )


class Shares:
    """What each tenant holds and runs, and who of them floods."""

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
        self._arrivals = Arrivals()
        self._bursts: dict[str, float] = {}  # tenant that floods, or will -> the most it asked for in a burst
        self._held_down: set[str] = set()  # of them: those whose queue has grown by what bounds them
        self._waits_since_s: dict[str, float] = {}
        self._fair: dict[int, Room] = {}  # rank -> fair share of a tenant of weight 1
        self._others: dict[int, _Demand] = {}  # rank -> of those that do not flood, smoothed
        self._turns: dict[str, Turn] = {}  # of those that flood while others are crowded
        self._refreshed_s = 0.0

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
        self._arrivals.saw(tenant, now_s)

    def refresh(self, now_s: float, waiting: Mapping[str, int], room: Room) -> None:
        """Find out who floods, given what waits of each tenant; several times a second is enough."""
        elapsed_s, self._refreshed_s = now_s - self._refreshed_s, now_s
        part = -math.expm1(-elapsed_s / CALM_S)
        self._waits_since_s = {t: self._waits_since_s.get(t, now_s) for t in waiting}
        active = self._arrivals.tenants(now_s) | self.running.keys() | waiting.keys()
        large = [t for t in active if self._asked(t, waiting) >= FLOOD_ENDS * self._weights[t]]
        self._fair, flooding, before, self._others = {}, set[str](), self._others, {}
        bursts, held_down, giving_way = dict[str, float](), set[str](), set[str]()
        for rank in sorted({self._ranks[tenant] for tenant in large}):
            asked = {
                tenant: self._demand(tenant, waiting, now_s)
                for tenant in active
                if self._ranks[tenant] <= rank
            }
            whole = _Demand.of_all(asked.values())
            self._fair[rank] = Room(whole.each(room.slots), whole.each(room.sequences))
            apart = {
                tenant: burst
                for tenant in large
                if self._ranks[tenant] == rank
                and (burst := self._burst(tenant, asked[tenant], whole)) is not None
            }
            bursts |= apart
            held_down |= {t for t in apart if self._is_held_down(t, asked[t], whole)}
            others = _Demand.of_all([d for t, d in asked.items() if d.asked and t not in bursts])
            self._others[rank] = before.get(rank, others).smoothed(others, part)
            crowded = others.asked > 0 and self._others[rank].is_crowded
            giving_way |= apart.keys() if crowded else set()
            flooding |= {t for t in apart if crowded or self._waits_for(t, now_s) >= FLOODS_AFTER_S}
        self._bursts, self._held_down, self.flooding = bursts, held_down, frozenset(flooding)
        self._turns = {t: self._turns.get(t) or Turn() for t in giving_way if self._is_bound(t)}
        for tenant, turn in self._turns.items():
            turn.pass_time(elapsed_s, self._left_to(tenant), self.running[tenant])

    def _burst(self, tenant: str, demand: _Demand, whole: _Demand) -> float | None:
        """Return the most that a tenant has asked for in a burst; None where it does not flood."""
        most = self._bursts.get(tenant)
        if not demand.stands_out(whole, FLOOD_FACTOR if most is None else FLOOD_ENDS):
            return None
        return max(most or 0.0, demand.asked) if demand.bursts(whole) else most

    def _is_held_down(self, tenant: str, demand: _Demand, whole: _Demand) -> bool:
        """Whether its queue is the bound's; once it is, until it bursts again."""
        if tenant not in self._bursts or demand.bursts(whole):
            return False
        return tenant in self._held_down or demand.asked > HELD_DOWN * self._bursts[tenant]

    def _asked(self, tenant: str, waiting: Mapping[str, int]) -> int:
        return self.running[tenant] + waiting.get(tenant, 0)

    def _waits_for(self, tenant: str, now_s: float) -> float:
        """Seconds on end for which something of a tenant has waited."""
        return now_s - self._waits_since_s.get(tenant, now_s)

    def _demand(self, tenant: str, waiting: Mapping[str, int], now_s: float) -> _Demand:
        return _Demand(
            self.running[tenant],
            waiting.get(tenant, 0),
            self._arrivals.lately(tenant, now_s),
            self._weights[tenant],
        )

    def may_fill(self, tenant: str) -> float:
        """Up to which part, 0..1, a tenant may fill a replica, its slots and its batch, beyond its share."""
        if tenant not in self.flooding:
            return 1.0
        return 0.0 if tenant in self._turns else self.burst_share

    def keeps_slot_from(self, tenant: str) -> bool:
        """Whether a replica's slots are not all for a tenant: it floods and holds its share."""
        if tenant not in self.flooding:
            return False
        fair = self._fair[self._ranks[tenant]].slots * self._weights[tenant]
        return self.held[tenant] >= max(1.0, fair)

    def keeps_room_from(self, tenant: str) -> bool:
        """Whether a replica is not to be filled up by a tenant: it floods and runs its share."""
        if tenant not in self.flooding:
            return False
        share, turn = self._fair_sequences(tenant), self._turns.get(tenant)
        if turn is not None:
            share = min(share, AT_ONCE * self._left_to(tenant)) if turn.begun else 0.0
        return self.running[tenant] >= share

    def _fair_sequences(self, tenant: str) -> float:
        return max(1.0, self._fair[self._ranks[tenant]].sequences * self._weights[tenant])

    def _left_to(self, tenant: str) -> float:
        """Sequences that are left on average to a tenant that floods while others are crowded."""
        others = self._others[self._ranks[tenant]]
        left = others.each(others.running) * self._weights[tenant]
        return min(self._fair_sequences(tenant), max(1.0, left))

    def _is_bound(self, tenant: str) -> bool:
        return self.burst_share < 1.0 and tenant not in self._held_down


def _add(counts: Counter[str], tenant: str, number: int) -> None:
    counts[tenant] += number
    if not counts[tenant]:
        del counts[tenant]

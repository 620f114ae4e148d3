"""Which tenant floods, and how much may it take? It leaves to others what would make them wait. Pure.

A slot, or a place in a batch, comes back only when its request has ended, which takes as long as an answer;
and every sequence more makes each step longer. So a tenant that fills all that is free makes all others wait,
however fair the queue is.

Several times a second each tenant is judged against the others: the tenants of its band and of higher ones,
by weight. Averages and fair shares are those of `MOST_TENANTS` at most: of a thousand tenants the largest
asks for far more than the mean, and floods only where it asks for more than all others together.

1. It asks, running and waiting, for less than `FLOOD_FACTOR` times as much as the others do on average (a
   tenant seen lately counts with one sequence at least): it does not flood.
2. It has not sent `FLOOD_FACTOR` times as much as the others, now or at any time since it stands out: it does
   not flood. What it asks for has grown because it waits.
3. The others are crowded: something of them is here, and more than `CROWDED` of it waits, smoothed. It floods
   at once, whether it waits itself or not, since what it runs is what others wait for.
4. It has waited for `FLOODS_AFTER_S` on end: it floods. A burst that is over sooner is served.

A tenant that floods may take:

5. Its fair share of slots (`keeps_slot_from`).
6. While the others are crowded (3), as many sequences as they run on average, by turns (`turns.py`). The part
   of their shares that they leave makes their own waits short then, and does not go to the flood. Two cases
   are bound by 7 alone: it is held down (`_is_held_down`): it no longer sends that much, yet asks for
   `HELD_DOWN` times its peak, so this bound has made its queue; or `burst_share` is 1.
7. Otherwise its fair share of sequences, and beyond both fair shares it fills a replica's slots and batch up
   to `burst_share` (`may_fill`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field

from routing.scheduling.floods.arrivals import Arrivals
from routing.scheduling.floods.turns import AT_ONCE, Turn

FLOODS_AFTER_S = 2.0  # a shorter burst disturbs others for a moment only
FLOOD_FACTOR = 8.0  # by Zipf's law the largest of eight tenants asks for three times the mean, in bursts more
MOST_TENANTS = 8.0  # of a thousand it asks for 130 times the mean, but for no more than a seventh of it all
HELD_DOWN = 1.5  # clients that wait for answers ask for no more than at their peak; more is a queue
CROWDED = 0.04  # of the others' requests; where slots suffice hardly one in a hundred waits
CALM_S = 5.0  # time constant of the smoothing of what the others run and have waiting


@dataclass(frozen=True, slots=True)
class Room:
    """Capacity of a group's replicas, or a tenant's part of it."""

    slots: float
    sequences: float


@dataclass(frozen=True, slots=True)
class _Demand:
    """What one or more tenants ask for, and their weight."""

    running: float  # sequences
    waiting: float  # requests
    sent: float  # requests, lately
    weight: float
    tenants: float = 1.0

    @staticmethod
    def of_all(demands: Collection[_Demand]) -> _Demand:
        """Add them up."""
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
        """Return the part of a total for a weight of one, as if the tenants were `MOST_TENANTS` at most."""
        return total / self.weight * max(1.0, self.tenants / MOST_TENANTS)

    def stands_out(self, whole: _Demand) -> bool:
        """Whether it asks for far more than the rest of the whole, by weight. No rest: false."""
        rest = whole.without(self)
        if rest.weight <= 0:
            return False
        return self.asked / self.weight >= FLOOD_FACTOR * max(1.0, rest.each(rest.asked))

    def bursts(self, whole: _Demand) -> bool:
        """Whether it has sent far more lately than the rest of the whole, by weight."""
        rest = whole.without(self)
        return self.sent / self.weight >= FLOOD_FACTOR * max(1.0, rest.each(rest.sent))

    def approach(self, newest: _Demand, part: float) -> _Demand:
        """Return a demand that is `part`, 0..1, of the way to the newest one."""
        return _Demand(
            self.running + part * (newest.running - self.running),
            self.waiting + part * (newest.waiting - self.waiting),
            self.sent + part * (newest.sent - self.sent),
            self.weight + part * (newest.weight - self.weight),
            self.tenants + part * (newest.tenants - self.tenants),
        )


@dataclass(slots=True)
class _Found:
    """The tenants that stand out, as one look at all of them finds it."""

    peaks: dict[str, float] = field(default_factory=dict)  # the most that each asked for in a burst
    held_down: set[str] = field(default_factory=set)
    flooding: set[str] = field(default_factory=set)
    gives_way: set[str] = field(default_factory=set)  # of those: while the others are crowded


class Floods:
    """Slots and sequences of each tenant, and which of them flood."""

    def __init__(
        self, weights: Mapping[str, float], ranks: Mapping[str, int], burst_share: float = 0.5
    ) -> None:
        """`ranks` are those of the tenants' bands, `burst_share` is 0..1 of a replica's capacity."""
        self.burst_share = burst_share
        self.leased: Counter[str] = Counter()  # tenant -> slots
        self.running: Counter[str] = Counter()  # tenant -> sequences
        self.flooding: frozenset[str] = frozenset()
        self._weights = weights
        self._ranks = ranks
        self._arrivals = Arrivals()
        self._peaks: Mapping[str, float] = {}  # of tenants that stand out
        self._held_down: Set[str] = frozenset()  # of them
        self._waits_since_s: dict[str, float] = {}
        self._fair: dict[int, Room] = {}  # rank -> fair share of a tenant of weight 1
        self._others: dict[int, _Demand] = {}  # rank -> of those that do not stand out, smoothed
        self._turns: dict[str, Turn] = {}  # of those that flood while others are crowded
        self._refreshed_s = 0.0

    # -- what happens --------------------------------------------------------------------------------------

    def count_arrival(self, tenant: str, now_s: float) -> None:
        """A tenant has sent a request."""
        self._arrivals.count(tenant, now_s)

    def count_start(self, tenant: str, sequences: int, *, takes_slot: bool) -> None:
        """A tenant's request runs; it may have taken a slot for it."""
        _add(self.running, tenant, sequences)
        if takes_slot:
            _add(self.leased, tenant, 1)

    def count_end(self, tenant: str, sequences: int) -> None:
        """A tenant's request runs no more."""
        _add(self.running, tenant, -sequences)

    def count_slot_back(self, tenant: str) -> None:
        """A slot has come back from the tenant that took it, even if another used it last."""
        _add(self.leased, tenant, -1)

    def judge_anew(self, tenant: str) -> None:
        """Take a tenant for none that floods until the next look: it is compared with others from now on."""
        self.flooding -= {tenant}
        self._turns.pop(tenant, None)
        self._waits_since_s.pop(tenant, None)

    def forget(self, tenant: str) -> None:
        """Forget a tenant that has left, and runs nothing."""
        self.judge_anew(tenant)
        self._arrivals.forget(tenant)

    def refresh(self, now_s: float, waiting: Mapping[str, int], room: Room) -> None:
        """Find out which tenants flood; `waiting` is requests by tenant. Several times a second is enough."""
        elapsed_s, self._refreshed_s = now_s - self._refreshed_s, now_s
        self._waits_since_s = {t: self._waits_since_s.get(t, now_s) for t in waiting}
        active = self._arrivals.tenants(now_s) | self.running.keys() | waiting.keys()
        large = self._large(active, waiting)
        demands = {t: self._demand(t, waiting, now_s) for t in active} if large else {}
        before, found = self._others, _Found()
        self._fair, self._others = {}, {}
        for rank in sorted({self._ranks[tenant] for tenant in large}):
            asked = self._of_band_and_higher(rank, demands)
            whole = _Demand.of_all(asked.values())
            self._fair[rank] = Room(whole.each(room.slots), whole.each(room.sequences))
            apart = self._standing_out(rank, large, asked, whole)
            found.peaks |= apart
            found.held_down |= {t for t in apart if self._is_held_down(t, asked[t], whole)}
            others = _Demand.of_all([d for t, d in asked.items() if d.asked and t not in found.peaks])
            self._others[rank] = before.get(rank, others).approach(others, -math.expm1(-elapsed_s / CALM_S))
            crowded = others.asked > 0 and self._others[rank].is_crowded
            self._judge(apart, found, now_s, crowded=crowded)
        self._peaks, self._held_down, self.flooding = found.peaks, found.held_down, frozenset(found.flooding)
        self._pass_turns(found.gives_way, elapsed_s)

    def _large(self, active: Iterable[str], waiting: Mapping[str, int]) -> list[str]:
        """Return the tenants that could stand out, by a look that costs little."""
        return [t for t in active if self.running[t] + waiting.get(t, 0) >= FLOOD_FACTOR * self._weights[t]]

    def _of_band_and_higher(self, rank: int, demands: Mapping[str, _Demand]) -> dict[str, _Demand]:
        return {tenant: demand for tenant, demand in demands.items() if self._ranks[tenant] <= rank}

    # -- the judgement -------------------------------------------------------------------------------------

    def _standing_out(
        self, rank: int, large: Iterable[str], asked: Mapping[str, _Demand], whole: _Demand
    ) -> dict[str, float]:
        """Return the tenants of a band that are much larger than the others by what they send; with peaks."""
        peaks = {}
        for tenant in [t for t in large if self._ranks[t] == rank]:
            demand, peak = asked[tenant], self._peaks.get(tenant)
            if not demand.stands_out(whole):  # 1
                continue
            if demand.bursts(whole):
                peak = max(peak or 0.0, demand.asked)
            if peak is not None:  # else 2
                peaks[tenant] = peak
        return peaks

    def _is_held_down(self, tenant: str, demand: _Demand, whole: _Demand) -> bool:
        """Whether its bound has made the queue of a tenant that no longer bursts; until it bursts again."""
        if tenant not in self._peaks or demand.bursts(whole):
            return False
        return tenant in self._held_down or demand.asked > HELD_DOWN * self._peaks[tenant]

    def _judge(self, apart: Iterable[str], found: _Found, now_s: float, *, crowded: bool) -> None:
        """Decide which of the tenants that stand out in a band flood; noted in `found`."""
        for tenant in apart:
            if crowded:  # 3
                found.flooding.add(tenant)
                found.gives_way.add(tenant)
            elif now_s - self._waits_since_s.get(tenant, now_s) >= FLOODS_AFTER_S:  # 4
                found.flooding.add(tenant)

    def _pass_turns(self, gives_way: Set[str], elapsed_s: float) -> None:
        """Let time pass for those that run by turns (6)."""
        bound = [t for t in gives_way if self.burst_share < 1.0 and t not in self._held_down]
        self._turns = {tenant: self._turns.get(tenant) or Turn() for tenant in bound}
        for tenant, turn in self._turns.items():
            turn.pass_time(elapsed_s, self._left_to(tenant), self.running[tenant])

    def _demand(self, tenant: str, waiting: Mapping[str, int], now_s: float) -> _Demand:
        return _Demand(
            self.running[tenant],
            waiting.get(tenant, 0),
            self._arrivals.lately(tenant, now_s),
            self._weights[tenant],
        )

    # -- what a flood may take -----------------------------------------------------------------------------

    def may_fill(self, tenant: str) -> float:
        """Part of a replica, 0..1, of slots and of batch, that a tenant may fill beyond its fair share."""
        if tenant not in self.flooding:
            return 1.0
        return 0.0 if tenant in self._turns else self.burst_share  # 6, 7

    def keeps_slot_from(self, tenant: str) -> bool:
        """Whether some slots are kept from a tenant: it floods and holds its fair share of them."""
        if tenant not in self.flooding:
            return False
        fair = self._fair[self._ranks[tenant]].slots * self._weights[tenant]
        return self.leased[tenant] >= max(1.0, fair)  # 5

    def keeps_room_from(self, tenant: str) -> bool:
        """Whether room in batches is kept from a tenant: it floods and runs its part."""
        if tenant not in self.flooding:
            return False
        part, turn = self._fair_sequences(tenant), self._turns.get(tenant)  # 7
        if turn is not None:  # 6
            part = min(part, AT_ONCE * self._left_to(tenant)) if turn.begun else 0.0
        return self.running[tenant] >= part

    def _fair_sequences(self, tenant: str) -> float:
        return max(1.0, self._fair[self._ranks[tenant]].sequences * self._weights[tenant])

    def _left_to(self, tenant: str) -> float:
        """Sequences that the others run on average, for a tenant's weight; its fair share at most."""
        others = self._others[self._ranks[tenant]]
        left = others.each(others.running) * self._weights[tenant]
        return min(self._fair_sequences(tenant), max(1.0, left))


def _add(counts: Counter[str], tenant: str, number: int) -> None:
    counts[tenant] += number
    if not counts[tenant]:
        del counts[tenant]

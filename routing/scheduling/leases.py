"""Which slot should drain for an adapter that waits for one? Returns the decision and changes nothing. Pure.

vLLM never takes a slot from an adapter that keeps running, so the gateway has to: on one engine it sends the
evicted adapter nothing new until its requests there have ended; then the slot is free for the other adapter.
A slot that drains runs less and less, so it happens sparingly. `slot_to_drain` decides in this order:

1. Nobody can give a slot: nothing. (A cheap look, before engines are.)
2. The adapter has a slot promised already: nothing.
3. It has waited `slot_wait_s`, and an engine has a slot that was kept free for others: that slot is promised
   to it, and nobody is evicted.
4. Otherwise, of all leases on engines that have no free slot and drain none yet, the slot comes from those
   that must give theirs (below): first lines of batches, then the lowest band, then the lease with the least
   in flight. What is pinned stays.

A lease must give its slot up (`SlotHolders.must_give`) by the first of these that applies; one in which only
lines of batches run always must:

a. *Time.* The adapter has waited `slot_wait_s`: any lease must. LoRAX rotates every adapter so, after
   `adapter_cycle_time_s`; here it is done only for an adapter in need. A tenant that floods and holds its
   fair share of slots does not get slots by time: its queue is always old.
b. *Band.* The bands differ: the lower one must, the higher one need not.
c. *Patience.* Those who wait have not yet lost as much time as draining costs those who run, which is
   `PATIENCE` of `slot_wait_s` for each sequence in the slot: not yet. Whoever pays rent until it comes to the
   price never pays more than twice the least (ski rental; Karlin et al., Algorithmica 1988), and most slots
   come free before that. Another tenant that floods is shown no patience.
d. *Order.* One tenant has both adapters: it must. Each of them is as good as the other.
e. *Balance.* The tenants hold more equal numbers of slots afterwards, by weight (max-min): it must. Not for a
   tenant that floods and holds its fair share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from routing.scheduling.filters import takes_work
from routing.scheduling.state import Engine, Lease, SlotDrain
from routing.types import Request

DRAIN_S = 3.0  # about the time that a slot takes to drain
PATIENCE = 0.05  # of slot_wait_s, for each sequence that runs in the slot: about half an answer of one second


class DrainDecision(NamedTuple):
    """A slot of an engine that should drain."""

    engine: Engine
    drain: SlotDrain


@dataclass(frozen=True, slots=True)
class SlotNeed:
    """A request that waits for a slot."""

    request: Request
    waited_s: float
    queued: int = 1  # requests that wait for the same slot, this one included
    floods: bool = False  # its tenant does, and holds its fair share of slots

    @property
    def lost_s(self) -> float:
        """Time that all requests which wait for the slot have lost together: the rent they have paid."""
        return self.waited_s * self.queued

    @property
    def will_have_lost_s(self) -> float:
        """The same, by the time a slot that begins to drain now is theirs."""
        return (self.waited_s + DRAIN_S) * self.queued

    def waited_too_long(self, slot_wait_s: float) -> bool:
        """Whether any lease must give its slot up for it."""
        return self.waited_s >= slot_wait_s and not self.floods


@dataclass(frozen=True, slots=True)
class SlotHolders:
    """Which tenant has how many slots of a group, and by what right."""

    leased: Mapping[str, int]  # tenant -> slots; one that drains counts for the tenant it is promised to
    weights: Mapping[str, float]
    ranks: Mapping[str, int]  # of each tenant's band
    flooding: frozenset[str] = frozenset()
    any_spare: bool = False  # whether a lease has only lines of batches in it

    def must_give(self, need: SlotNeed, slot_wait_s: float) -> Callable[[Lease], bool]:
        """Return the rule by which a lease must give its slot up for a need; letters as above."""
        if need.waited_too_long(slot_wait_s):  # a
            return lambda lease: True
        tenant, ranks, flooding = need.request.target.tenant, self.ranks, self.flooding
        rank, after = ranks[tenant], (self.leased.get(tenant, 0) + 1) / self.weights[tenant]
        lost_s, price_s = need.lost_s, PATIENCE * slot_wait_s  # the price is that of one sequence

        def gives(lease: Lease) -> bool:  # asked of every lease of a group
            holder = lease.tenant
            if lease.is_spare:
                return True
            if ranks[holder] != rank:  # b
                return ranks[holder] > rank
            if lost_s < price_s * lease.sequences and (holder == tenant or holder not in flooding):  # c
                return False
            if holder == tenant:  # d
                return True
            return not need.floods and after <= self._without_one(holder)  # e

        return gives

    def can_give(self, need: SlotNeed, slot_wait_s: float) -> bool:
        """Whether any lease could have to: not for a request that has just come, among equals."""
        if self.any_spare or need.lost_s >= PATIENCE * slot_wait_s or need.waited_too_long(slot_wait_s):
            return True
        rank = self.ranks[need.request.target.tenant]
        return any(tenant in self.flooding or self.ranks[tenant] > rank for tenant in self.leased)

    def order_of_eviction(self, lease: Lease) -> tuple[bool, int, int]:
        """Least first: lines of batches, then the lowest band, then the least in flight."""
        return not lease.is_spare, -self.ranks[lease.tenant], lease.sequences

    def _without_one(self, holder: str) -> float:
        """Slots of a tenant, by weight, after it has given one up."""
        return (self.leased.get(holder, 0) - 1) / self.weights[holder]


def slot_to_drain(
    engines: Iterable[Engine],
    need: SlotNeed,
    holders: SlotHolders,
    *,
    slot_wait_s: float,
    where_in_memory: bool = False,
) -> DrainDecision | None:
    """Choose the slot that should drain for a request; None where none must, can or need.

    `where_in_memory`: only on engines that need not read its adapter, if there are any.
    """
    request = need.request
    adapter, tenant = request.target.adapter_id, request.target.tenant
    if adapter is None or not holders.can_give(need, slot_wait_s):  # 1
        return None
    able = [engine for engine in engines if _could_give_slot(engine, request, adapter)]
    if _is_promised(able, adapter):  # 2
        return None
    if where_in_memory:
        able = _in_memory(able, adapter) or able
    if need.waited_too_long(slot_wait_s) and (kept := _slot_kept_for_others(able)) is not None:  # 3
        return DrainDecision(kept, SlotDrain(adapter, tenant, evicted=None))
    gives = holders.must_give(need, slot_wait_s)
    choices = [
        (holders.order_of_eviction(lease), evicted, engine.name, engine)
        for engine, evicted, lease in _leases(able)
        if gives(lease)
    ]
    if not choices:
        return None
    _, evicted, _, engine = min(choices)  # 4; no two have the same names
    return DrainDecision(engine, SlotDrain(adapter, tenant, evicted))


def _could_give_slot(engine: Engine, request: Request, adapter: str) -> bool:
    """Whether the engine takes such work, and a slot would help the adapter there."""
    return (
        takes_work(engine, request)
        and engine.slots > 0
        and adapter in engine.adapters
        and not engine.holds(adapter)
    )


def _is_promised(engines: Iterable[Engine], adapter: str) -> bool:
    return any(engine.slot_drain is not None and engine.slot_drain.adapter == adapter for engine in engines)


def _in_memory(engines: Iterable[Engine], adapter: str) -> list[Engine]:
    return [engine for engine in engines if adapter in engine.resident]


def _slot_kept_for_others(engines: Iterable[Engine]) -> Engine | None:
    """Return the first engine with a free slot that is promised to nobody: it was kept for others."""
    free = (engine for engine in engines if engine.slot_drain is None and engine.free_slots > 0)
    return next(free, None)


def _leases(engines: Iterable[Engine]) -> Iterator[tuple[Engine, str, Lease]]:
    """Give every lease, with its adapter, that could be ended on engines without a free slot."""
    for engine in engines:
        if engine.slot_drain is None and engine.free_slots <= 0:
            for adapter, lease in engine.leases.items():
                if adapter not in engine.pinned:
                    yield engine, adapter, lease

"""Whose slot should be given to somebody who waits for one? Pure.

vLLM never takes a slot from an adapter that keeps running, so the gateway has to: it sends the victim nothing
new on one engine until its requests there have ended, then the slot is the other's. Four rules, gentle on
purpose, since a slot that is being cleared runs less and less:

1. *Band.* Whoever waits gets a slot from a lower band.
2. *Balance.* A tenant gives a slot up where both hold more equal numbers afterwards, by weight (max-min).
3. *Order.* Of one tenant's own adapters, each is as good as another.
4. *Time.* Whoever has waited `slot_wait_s` gets a slot from whom that disturbs least, and a second one where
   its adapter's others do not suffice. This is what LoRAX does after `adapter_cycle_time_s`, rotating every
   adapter, here only for somebody in need.

Rules 2 and 3 have patience: they wait until those who wait have lost as much time as the clearing will cost
those who run, `PATIENCE` of `slot_wait_s` for each sequence of the victim. Who pays rent until it comes to
the price never pays more than twice the least (ski rental; Karlin et al., Algorithmica 1988): many who wait
soon get the slot of few who run, and most slots come free before that. Floods are not waited for.

One slot of an engine is cleared at a time: first for those whose adapter is in that engine's memory, since
reading one from disk stalls everybody on it. Of those who have had nearly as little service as the least
served, it is cleared for the most who have lost the most: a slot in which few run leaves the batch half
empty. Rules 2 and 4 are not for a flood that holds its share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from routing.scheduling.state import Engine, Lease, SlotClearing
from routing.types import Request

CLEARING_S = 3.0  # a slot that is cleared takes about so long to come free
PATIENCE = 0.05  # of slot_wait_s, for each sequence that runs in the slot: about half an answer of one second


@dataclass(frozen=True, slots=True)
class SlotNeed:
    """A request that waits for a slot."""

    request: Request
    waited_s: float
    queued: int = 1  # requests that wait for the same slot, this one included
    floods: bool = False  # its tenant does, and holds its share of slots; its queue is always old

    @property
    def lost_s(self) -> float:
        """What all that wait for the slot have lost together: the rent they have paid."""
        return self.waited_s * self.queued

    @property
    def will_have_lost_s(self) -> float:
        """The same, by the time a slot that is cleared for them now is theirs."""
        return (self.waited_s + CLEARING_S) * self.queued

    def waited_too_long(self, slot_wait_s: float) -> bool:
        """Whether it is to have a slot of whomever that disturbs least."""
        return self.waited_s >= slot_wait_s and not self.floods


@dataclass(frozen=True, slots=True)
class SlotHolders:
    """Who holds how many slots of a group, and by what right."""

    held: Mapping[str, int]  # tenant -> slots; one that is being cleared is whose it will be
    weights: Mapping[str, float]
    ranks: Mapping[str, int]  # of each tenant's band
    flooding: frozenset[str] = frozenset()

    def giving(self, need: SlotNeed, slot_wait_s: float) -> Callable[[Lease], bool]:
        """Return what says whether a slot that is leased should be cleared for a need, by the four rules."""
        if need.waited_too_long(slot_wait_s):
            return lambda lease: True
        tenant, ranks, flooding = need.request.target.tenant, self.ranks, self.flooding
        rank, after = ranks[tenant], (self.held.get(tenant, 0) + 1) / self.weights[tenant]
        lost_s, price_s = need.lost_s, PATIENCE * slot_wait_s  # the price is that of one sequence

        def gives(lease: Lease) -> bool:  # asked of every slot of a group
            holder = lease.tenant
            if ranks[holder] != rank:
                return ranks[holder] > rank
            if lost_s < price_s * lease.sequences and (holder == tenant or holder not in flooding):
                return False
            return holder == tenant or (not need.floods and after <= self._without_one(holder))

        return gives

    def might_give(self, need: SlotNeed, slot_wait_s: float) -> bool:
        """Whether anybody can give one at all: not for a request that has just come, among equals."""
        if need.lost_s >= PATIENCE * slot_wait_s or need.waited_too_long(slot_wait_s):
            return True
        rank = self.ranks[need.request.target.tenant]
        return any(tenant in self.flooding or self.ranks[tenant] > rank for tenant in self.held)

    def disturbance(self, lease: Lease) -> tuple[int, float, int]:
        """Order victims: the lowest band, the tenant with most slots by weight, the least in flight."""
        holder = lease.tenant
        return -self.ranks[holder], -self.held.get(holder, 0) / self.weights[holder], lease.sequences

    def _without_one(self, holder: str) -> float:
        """Slots a tenant holds, by weight, after it has given one up."""
        return (self.held.get(holder, 0) - 1) / self.weights[holder]


def clear_slot(
    engines: Iterable[Engine],
    need: SlotNeed,
    holders: SlotHolders,
    *,
    slot_wait_s: float,
    where_in_memory: bool = False,
) -> Engine | None:
    """Start clearing a slot for a request that waits for one; None where it must not, cannot or need not.

    `where_in_memory`: only on engines that need not read its adapter, if there are any.
    """
    request = need.request
    adapter, tenant = request.target.adapter_id, request.target.tenant
    if adapter is None or not holders.might_give(need, slot_wait_s):
        return None
    able = [r for r in engines if _could_run(r, request, adapter)]
    if any(r.clearing is not None and r.clearing.waiting == adapter for r in able):
        return None
    if where_in_memory:
        able = [r for r in able if adapter in r.resident] or able
    in_need = need.waited_too_long(slot_wait_s)
    kept = next((r for r in able if r.clearing is None and r.free_slots > 0), None) if in_need else None
    if kept is not None:  # it was kept for others, for too long
        kept.clearing = SlotClearing(adapter, tenant, victim=None)
        return kept
    gives = holders.giving(need, slot_wait_s)
    choices = [
        (holders.disturbance(lease), victim, engine.name, engine)
        for engine in able
        if engine.clearing is None and engine.free_slots <= 0
        for victim, lease in engine.leases.items()
        if gives(lease) and victim not in engine.pinned
    ]
    if not choices:
        return None
    _, victim, _, engine = min(choices)  # no two have the same names
    engine.clearing = SlotClearing(adapter, tenant, victim)
    return engine


def _could_run(engine: Engine, request: Request, adapter: str) -> bool:
    return (
        engine.accepts
        and engine.name not in request.failed_on
        and engine.slots > 0
        and adapter in engine.adapters
        and not engine.holds(adapter)
    )

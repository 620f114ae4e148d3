"""Which slots of a group drain now, and for which adapters? Asks `leases.py`, and acts on it.

One slot of an engine drains at a time. Requests are asked about in this order:

1. Those whose adapter holds no slot anywhere: by band, then by the key of the fair queue. Among tenants of a
   band with almost the least service (`locality_bonus_tokens`), the slot goes to the adapter whose waiting
   requests have lost the most time together: a full batch costs less.
2. Those whose adapter runs elsewhere, which does not suffice: they have waited `slot_wait_s`.

That is done twice, since reading an adapter from disk stalls everybody on the engine: first each request is
asked about only on engines that have its adapter in memory (if there are any), then everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from fleet.types import SchedulerSettings
from routing.scheduling.backlog import BANDS, Backlog
from routing.scheduling.floods.detection import Floods
from routing.scheduling.leases import DrainDecision, SlotHolders, SlotNeed, slot_to_drain
from routing.scheduling.selection import LOOKED_AT, WITH_SLOT, WITHOUT_SLOT
from routing.scheduling.state import Engine
from routing.scheduling.tickets import Ticket


class Drains:
    """Begins and ends the draining of slots in one group."""

    def __init__(
        self,
        engines: Sequence[Engine],
        backlog: Backlog[Ticket],
        floods: Floods,
        *,
        weights: Mapping[str, float],
        ranks: Mapping[str, int],
        settings: SchedulerSettings,
    ) -> None:
        """All of it belongs to the group, which goes on changing it."""
        self._engines = engines
        self._backlog = backlog
        self._floods = floods
        self._weights = weights
        self._ranks = ranks
        self.settings = settings

    def begin(self, now_s: float) -> list[tuple[Ticket, Engine]]:
        """Begin to drain slots for those that should have one; return for which and where."""
        begun: list[tuple[Ticket, Engine]] = []
        holders, in_need = self.slot_holders(), self._in_need(now_s)
        for where_in_memory in (True, False):
            for ticket, need in in_need:
                engine = _begin(self._choose(need, holders, where_in_memory=where_in_memory))
                if engine is not None:
                    begun.append((ticket, engine))
                    holders = self.slot_holders()
        return begun

    def end_if_stale(self, engine: Engine) -> bool:
        """End a drain whose adapter waits no longer, or may not use the slot; whether there was one."""
        drain = engine.slot_drain
        if drain is None:
            return False
        if self._backlog.has_model(drain.adapter) and not self._floods.keeps_room_from(drain.tenant):
            return False
        engine.slot_drain = None
        return True

    def slot_holders(self) -> SlotHolders:
        """Say which tenant has how many slots; one that drains counts for the tenant it is promised to."""
        leased = dict(self._floods.leased)
        for engine in self._engines:
            drain = engine.slot_drain
            if drain is not None:
                evicted = engine.leases.get(drain.evicted or "")
                leased[drain.tenant] = leased.get(drain.tenant, 0) + 1
                if evicted is not None and not evicted.taken_to_spare:
                    leased[evicted.tenant] = leased.get(evicted.tenant, 0) - 1
        spare = any(lease.is_spare for e in self._engines if e.spare for lease in e.leases.values())
        return SlotHolders(leased, self._weights, self._ranks, self._floods.flooding, spare)

    def _choose(self, need: SlotNeed, holders: SlotHolders, *, where_in_memory: bool) -> DrainDecision | None:
        if self._floods.keeps_room_from(need.request.target.tenant):
            return None  # a slot that it could not use would be kept from everybody
        return slot_to_drain(
            self._engines,
            need,
            holders,
            slot_wait_s=self.settings.slot_wait_s,
            where_in_memory=where_in_memory,
        )

    def _need(self, ticket: Ticket, now_s: float) -> SlotNeed:
        request = ticket.request
        return SlotNeed(
            request,
            now_s - request.arrived_s,
            queued=self._backlog.count_of_model(request.target.engine_model),
            floods=self._floods.keeps_slot_from(request.target.tenant),
        )

    def _in_need(self, now_s: float) -> list[tuple[Ticket, SlotNeed]]:
        """Give the requests to ask about, in order; numbers as above."""
        needing = self._most_lost_first(
            [
                (rank, key, ticket, self._need(ticket, now_s))
                for rank, key, ticket in self._heads(WITHOUT_SLOT)
            ]
        )  # 1
        holding = [(ticket, self._need(ticket, now_s)) for _, _, ticket in self._heads(WITH_SLOT)]
        hot = [(ticket, need) for ticket, need in holding if need.waited_s >= self.settings.slot_wait_s]
        return [*needing, *hot]  # 2

    def _most_lost_first(
        self, heads: Sequence[tuple[int, float, Ticket, SlotNeed]]
    ) -> list[tuple[Ticket, SlotNeed]]:
        """Order (band, key, ticket, need): of those close to the best of a band, the most lost time first."""
        close = self.settings.locality_bonus_tokens
        best: dict[int, float] = {}
        ordered = []
        for rank, key, ticket, need in heads:
            is_close = key <= best.setdefault(rank, key) + close
            ordered.append((rank, not is_close, -need.will_have_lost_s if is_close else 0.0, ticket, need))
        ordered.sort(key=lambda head: head[:3])  # those that are not close stay as they were
        return [head[3:] for head in ordered]

    def _heads(self, queue: str) -> Iterator[tuple[int, float, Ticket]]:
        """Give (band, key, ticket) of the first in a queue, best first: as many as slots are drained for."""
        bands = ((rank, self._backlog.in_order(queue, rank)) for rank in range(BANDS))
        heads = (
            (rank, key, ticket) for rank, tenants in bands for key, _, flows in tenants for ticket in flows
        )
        return islice(heads, max(LOOKED_AT, 2 * len(self._engines)))


def _begin(decision: DrainDecision | None) -> Engine | None:
    """Act on a decision; return the engine whose slot drains now."""
    if decision is None:
        return None
    decision.engine.slot_drain = decision.drain
    return decision.engine

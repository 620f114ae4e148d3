"""Which waiting request runs next on an engine? Pure: it reads the backlog and changes nothing.

1. The engine takes nothing now (not ready, drained, not trusted, full): nothing runs.
2. Bands are asked in the order of `bands.py`: the highest first, unless a lower one has earned a grant. The
   first band that answers with 3 or 4 decides.
3. Of a band, the request with the least service runs. Its key is its tenant's service less its age
   (`backlog.py`), less `locality_bonus_tokens` where the engine has its model in memory. It is one of
   a. the adapter that the last free slot is promised to, before all others;
   b. adapters that hold a slot here;
   c. requests that need no slot;
   d. if a slot is free and not promised: adapters without a slot anywhere;
   e. if a slot is free and not promised: adapters that hold a slot on another engine, behind by as much.
   Passed over are:
   f. a tenant that floods, where its bounds leave it nothing here;
   g. a request that does not pass the filters;
   h. a request that is better left to an engine which has its adapter in memory (`locality.py`).
   Once one is found, no more than `LOOKED_AT` others of a row are looked at: they could only be better by
   what is in memory.
4. A request of several sequences lacks nothing but room, would be the best and has waited `slot_wait_s`:
   nothing runs, so that the engine becomes empty for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from fleet.types import SchedulerSettings
from routing.scheduling.backlog import Backlog
from routing.scheduling.bands import BandGuard
from routing.scheduling.filters import has_place, has_room, may_pass_bounds, promised_to
from routing.scheduling.locality import spares_read
from routing.scheduling.profile import Profile
from routing.scheduling.state import Engine
from routing.scheduling.tickets import Ticket
from routing.scheduling.view import View
from routing.types import Request

LOOKED_AT = 16
SECOND_SLOT = -1.0  # the lead of e, in `locality_bonus_tokens`: a second slot has to be worth it
# Queues of the backlog.
NO_SLOT_NEEDED = "no_slot_needed"  # requests for the base model
WITHOUT_SLOT = "without_slot"  # adapters that hold no slot on any engine
WITH_SLOT = "with_slot"  # adapters that hold a slot on some engine

Best = tuple[Ticket | None, float]  # and its key: the least so far
NOBODY: Best = None, math.inf
LEFT_EMPTY: Best = None, -math.inf  # no key is less
# Requests that could run on an engine for the same reason: their lead in tokens where the engine must read
# the adapter, and where it need not; whether they take a slot that is not promised; and by tenant, best
# first: key, tenant, first of each flow. A plain tuple, since several are made for each choice.
Row = tuple[float, float, bool, Iterable[tuple[float, str, Iterable[Ticket]]]]


class Selection:
    """Chooses for the engines of one group."""

    def __init__(
        self, backlog: Backlog[Ticket], guard: BandGuard, profile: Profile, settings: SchedulerSettings
    ) -> None:
        self._backlog = backlog
        self._guard = guard
        self._profile = profile
        self.take(settings)

    def take(self, settings: SchedulerSettings) -> None:
        """Choose by these settings from now on."""
        self._settings = settings
        self._in_memory = settings.locality_bonus_tokens

    def next_for(self, engine: Engine, view: View, now_s: float) -> Ticket | None:
        """Choose what should run next on an engine; None where nothing that waits can, or should."""
        if not has_place(engine):  # 1
            return None
        for rank in self._guard.order():  # 2
            if not self._backlog.in_band(rank):
                continue
            best = NOBODY
            for row in self._rows(engine, rank, view):  # 3
                best = self._best_of_row(row, best, engine, view, now_s)
                if best is LEFT_EMPTY:  # 4
                    return None
            if best[0] is not None:
                return best[0]
        return None

    def _rows(self, engine: Engine, rank: int, view: View) -> Iterator[Row]:
        """Give what could run on an engine, of one band; letters as above."""
        backlog, lead = self._backlog, self._in_memory
        promised = promised_to(engine, view) if engine.free_slots == 1 else None
        if promised is not None:
            yield math.inf, math.inf, False, backlog.of_models((promised,), rank)  # a
        yield lead, lead, False, backlog.of_models(engine.in_slots, rank)  # b
        if backlog.has_queue(NO_SLOT_NEEDED):
            yield lead, lead, False, backlog.in_order(NO_SLOT_NEEDED, rank)  # c
        if engine.free_slots > 0 and promised is None:
            yield 0.0, lead, True, backlog.in_order(WITHOUT_SLOT, rank)  # d
            yield SECOND_SLOT * lead, SECOND_SLOT * lead, True, backlog.in_order(WITH_SLOT, rank)  # e

    def _best_of_row(self, row: Row, best: Best, engine: Engine, view: View, now_s: float) -> Best:
        """Return a request of a row that is better than the best so far, or that one."""
        (lead, lead_in_memory, takes_slot, tenants), (ticket, least) = row, best
        flooding, resident, looked_at = view.floods.flooding, engine.resident, 0
        for key, tenant, heads in tenants:
            at_best = key - lead_in_memory
            if at_best >= least or looked_at >= LOOKED_AT:
                break
            if tenant in flooding and not may_pass_bounds(engine, tenant, view, takes_slot=takes_slot):  # f
                continue
            for head in heads:
                at = at_best if head.request.target.adapter_id in resident else key - lead
                if at >= least:
                    pass
                elif self._fits(engine, head.request, view, now_s):  # g, h
                    ticket, least = head, at
                elif self._must_run_empty(engine, head.request, view, now_s):  # 4
                    return LEFT_EMPTY
                looked_at += ticket is not None
                if at_best >= least or looked_at >= LOOKED_AT:
                    break
        return ticket, least

    def _fits(self, engine: Engine, request: Request, view: View, now_s: float) -> bool:
        if not self._profile.fits(engine, request, view):
            return False
        return not spares_read(engine, request, view, now_s=now_s)

    def _must_run_empty(self, engine: Engine, request: Request, view: View, now_s: float) -> bool:
        """Whether an engine must be left to run empty for a wide request that has waited long enough."""
        if request.sequences == 1 or now_s - request.arrived_s < self._settings.slot_wait_s:
            return False
        others = (passes for passes, _ in self._profile.filters if passes is not has_room)
        return not has_room(engine, request, view) and all(passes(engine, request, view) for passes in others)

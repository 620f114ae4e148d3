"""How does a ticket get its engine, or leave the queue without one? Grants, waits, refusals, deadlines.

Works for the dispatcher, which says when: it neither admits nor settles.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

from fleet.current import CurrentFleet
from fleet.types import Fleet
from routing.errors import RequestError
from routing.scheduling import refusals
from routing.scheduling.accounts import Accounts
from routing.scheduling.affinity import affinity_here
from routing.scheduling.decisions import Action, Decisions
from routing.scheduling.filters import WaitReason
from routing.scheduling.group import Group
from routing.scheduling.groups import Groups
from routing.scheduling.profile import Pick
from routing.scheduling.state import Engine
from routing.scheduling.tickets import Ticket
from routing.scheduling.view import View
from routing.types import Request

HELD_CHECK_S = 1.0
USERS_TURN = "its user's turn"  # it ran before older ones of its tenant and adapter


class Grants:
    """Gives engines of any group to tickets."""

    def __init__(
        self,
        fleet: CurrentFleet,
        accounts: Accounts,
        decisions: Decisions,
        clock: Callable[[], float],
    ) -> None:
        self._fleet = fleet
        self._accounts = accounts
        self._decisions = decisions
        self._clock = clock
        self._deadlines: list[tuple[float, int, Group, Ticket]] = []  # heap; of tickets that waited once
        self._numbers = count()

    # -- another fleet -------------------------------------------------------------------------------------

    def take_fleet(self, groups: Groups, fleet: Fleet) -> None:
        """Let another fleet count. What runs goes on; what waits where its tenant has left is refused."""
        gone = [(group, group.take_fleet(fleet)) for group in groups.present.values()]
        gone += [(group, list(group.backlog)) for group in groups.leaving.values()]
        for group, tickets in gone:
            for ticket in tickets:
                self.refuse(group, ticket, self.why_gone(ticket.request))
        self._accounts.take_fleet(fleet)
        for group in groups:
            self.end_stale_drains(group)
            self.fill_all(group)

    def why_gone(self, request: Request) -> RequestError:
        """Return why a tenant may not use the pool for which its request was made."""
        tenant = self._fleet.now.tenants.get(request.target.tenant)
        if tenant is None or tenant.generation != request.target.generation:
            return refusals.tenant_removed()
        if tenant.suspended:
            return refusals.suspended()
        places = (p for p in self._fleet.now.pools.values() if request.target.base_model in p.base_models)
        return refusals.moved() if any(tenant.name in p.tenants for p in places) else refusals.no_pool()

    # -- an engine for a ticket ----------------------------------------------------------------------------

    def grant(self, group: Group, ticket: Ticket, pick: Pick, *, waited: bool, why: str = "") -> None:
        """Give a ticket the engine that was picked for it; `why` is more than that pick's reason."""
        now, request = self._clock(), ticket.request
        group.grant(ticket, pick, now, waited=waited)
        waited_s = now - request.arrived_s
        self._decisions.add(now, request, Action.GRANTED, why or pick.reason, pick.engine.name, waited_s)
        ticket.announce()

    def enqueue(self, group: Group, ticket: Ticket, reason: WaitReason) -> None:
        """Let a ticket wait, until its tenant's `queue_timeout_s` is over; while it is held, longer."""
        now, request = self._clock(), ticket.request
        group.enqueue(ticket, reason)
        self._accounts.count_queued(request, +1)
        due_s = request.arrived_s + self._fleet.now.tenants[request.target.tenant].caps.queue_timeout_s
        heapq.heappush(self._deadlines, (due_s, next(self._numbers), group, ticket))
        self._decisions.add(now, request, Action.QUEUED, reason)

    def fill(self, group: Group, engine: Engine) -> None:
        """Grant waiting tickets, best first, until nothing that waits can run on this engine."""
        if not group.backlog:
            engine.slot_drain = None
            return
        group.drains.end_if_stale(engine)
        now, granted, view = self._clock(), False, View(group.engines, group.floods)
        while (ticket := group.selection.next_for(engine, view, now)) is not None:
            pick = Pick(engine, affinity_here(engine, ticket.request))
            why = f"{pick.reason}, {USERS_TURN}" if group.backlog.overtakes(ticket) else ""
            self.dequeue(group, ticket)
            self.grant(group, ticket, pick, waited=True, why=why)
            granted = True
        if granted:
            self.end_stale_drains(group)

    def fill_all(self, group: Group) -> None:
        """Fill every engine of a group."""
        for engine in group.engines:
            self.fill(group, engine)

    def end_stale_drains(self, group: Group) -> None:
        """Serve requests that made way for an adapter which waits no longer, or runs elsewhere."""
        drains = group.drains
        for engine in group.engines:
            if engine.slot_drain is not None and drains.end_if_stale(engine):  # asked after every request
                self.fill(group, engine)

    # -- out of the queue -----------------------------------------------------------------------------------

    def dequeue(self, group: Group, ticket: Ticket) -> None:
        """Take a ticket out of the queue, if it waits."""
        if group.dequeue(ticket):
            self._accounts.count_queued(ticket.request, -1)

    def refuse(self, group: Group, ticket: Ticket, error: RequestError) -> None:
        """Take a ticket out of the queue and wake its owner, who settles it."""
        self.dequeue(group, ticket)
        if not ticket.is_decided:
            ticket.refusal = error
            now = self._clock()
            waited_s = now - ticket.request.arrived_s
            self._decisions.add(now, ticket.request, Action.EXPIRED, error.code, waited_s=waited_s)
            ticket.announce()

    def refuse_unservable(self, group: Group) -> None:
        """Refuse what waits and no replica of a group could ever serve."""
        for ticket in list(group.backlog):
            if not group.could_serve(ticket.request):
                self.refuse(group, ticket, refusals.no_replica(ticket.request))

    def expire(self, now: float) -> None:
        """Refuse what has waited past its deadline."""
        while self._deadlines and self._deadlines[0][0] <= now:
            due_s, _, group, ticket = heapq.heappop(self._deadlines)
            if ticket.settled is not None or ticket.is_decided:
                continue
            held_until_s = group.scale.held_until_s(ticket)
            if held_until_s > now:  # asked again soon: the first replica may fail
                due_s = min(held_until_s, now + HELD_CHECK_S)
                heapq.heappush(self._deadlines, (due_s, next(self._numbers), group, ticket))
            else:
                self.refuse(group, ticket, refusals.expired(ticket.request, due_s, group.engines))

    def note_drain(self, ticket: Ticket, engine: Engine | None) -> None:
        """Remember that a slot of an engine drains for a ticket; without an engine none does."""
        if engine is not None and engine.slot_drain is not None:
            evicted = engine.slot_drain.evicted
            reason = f"takes the slot of {evicted}" if evicted else "takes a slot that was kept for others"
            self._decisions.add(self._clock(), ticket.request, Action.DRAINING, reason, engine.name)

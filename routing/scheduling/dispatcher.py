"""When and where does each request run? The one stateful orchestrator.

It decides without `await`, so it needs no lock. Every ticket of `submit` must be settled, exactly once.

1. `submit`: it could be served by some replica (`refusals`), and no cap stops it (`accounts`); it is granted
   an engine, or waits in its group (`group`), unless it may run on spare room only (`spare`).
2. `Grants.fill`: a place on an engine has come free; what waits is granted it, best first (`selection`).
3. `requeue`: its engine broke before it answered; it waits again, with its age.
4. `settle`: it ended; it is charged, its capacity comes back, and what waits is granted it (2).
5. `sweep`: what has waited too long expires, slots begin to drain (`drains`), limits move, engines fill (2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from fleet.current import CurrentFleet
from fleet.types import Fleet
from routing.errors import RequestError
from routing.scheduling import refusals
from routing.scheduling.accounts import Accounts
from routing.scheduling.admission import Rejection
from routing.scheduling.decisions import Action, Decisions
from routing.scheduling.filters import WaitReason, may_take
from routing.scheduling.grants import Grants
from routing.scheduling.group import Group
from routing.scheduling.group_report import group_report
from routing.scheduling.groups import Groups, Place
from routing.scheduling.profile import SLOT_LEASE, Pick, Profile
from routing.scheduling.report import SchedulerReport
from routing.scheduling.spare import SpareRoom
from routing.scheduling.state import Engine, Replica
from routing.scheduling.tickets import Ticket
from routing.types import Outcome, Request, Target


class Dispatcher:
    """Admits, queues, grants and settles the requests of one gateway."""

    def __init__(
        self,
        fleet: CurrentFleet,
        replicas: Iterable[Replica] = (),
        *,
        clock: Callable[[], float],
        profile: Profile = SLOT_LEASE,
    ) -> None:
        self._clock = clock
        self.replicas: dict[str, Replica] = {}
        self._leaving: list[Engine] = []  # those that have left and still run something
        self._groups = Groups(profile)
        self._groups.take_fleet(fleet.now, late=False)
        self.decisions = Decisions()
        self._accounts = Accounts(fleet)
        self.rates = self._accounts.rates
        self.spare = SpareRoom(self._groups, self._accounts)
        self._grants = Grants(fleet, self._accounts, self.decisions, clock)
        self.turn_due: Callable[[str], None] = lambda pool: None  # told where models take turns
        self._draining = False
        for replica in replicas:
            self.join(replica)
        fleet.follow(lambda now: self._take_fleet(now, late=fleet.is_known))

    def __repr__(self) -> str:
        running = [*(replica.engine for replica in self.replicas.values()), *self._leaving]
        in_flight = sum(engine.sequences for engine in running)
        leases = sum(len(engine.leases) for engine in running)
        admitted, queued = self._accounts.sequences, self._accounts.queued
        return f"<Dispatcher admitted={admitted} queued={queued} in_flight={in_flight} leases={leases}>"

    # -- a request's way -----------------------------------------------------------------------------------

    def submit(self, request: Request) -> Ticket | Rejection:
        """Admit a request and grant it an engine or queue it; or return the cap that stops it.

        While no engine for it is ready it waits. Raises `RequestError` where no replica could ever serve it,
        its pool was removed, or the gateway is shutting down.
        """
        group = self._groups.find(request.target)
        if group is None:
            raise self._reject(request, self._grants.why_gone(request))
        self._refuse_if_unavailable(request, group)
        pick = (self.spare if request.spare else group).pick(request)
        now, must_wait = self._clock(), isinstance(pick, WaitReason)
        rejection = self._accounts.rejection(request, group, now, must_wait=must_wait)
        if rejection is not None:
            self.decisions.add(now, request, Action.REJECTED, rejection.cap)
            return rejection
        ticket = Ticket(request)
        self._accounts.count(request, +1)
        group.enter(ticket)
        if isinstance(pick, Pick):
            self._grants.grant(group, ticket, pick, waited=False)
        else:
            self._grants.enqueue(group, ticket, pick)
            self.turn_due(group.pool)
        return ticket

    def requeue(self, ticket: Ticket, *, certain: bool = False, begun: bool = True) -> None:
        """Queue a ticket again whose engine broke before it answered; it keeps its age.

        `certain`: the engine itself shows that it is ill, and not this request alone; for `begun` see
        `avoid`. Raises `Unavailable` where no engine is left that could serve the request; the ticket must
        still be settled.
        """
        group, now = self.group_of(ticket.request.target), self._clock()
        broken = self._release(group, ticket, now)
        group.note_fault(ticket, "it broke off before it answered", now, certain=certain)
        self.avoid(ticket, broken, begun=begun)
        try:
            self._refuse_if_unavailable(ticket.request, group)
            pick = (self.spare if ticket.request.spare else group).pick(ticket.request)
            if isinstance(pick, Pick):
                self._grants.grant(group, ticket, pick, waited=True)
            else:
                self._grants.enqueue(group, ticket, pick)
        finally:
            self._grants.fill_all(group)  # not only the place that it left: where none is trusted, all are

    def hedge(self, ticket: Ticket) -> Ticket | None:
        """Grant a request that runs a second engine too, if one can take it now; else None.

        The hedge holds capacity there, counts for no cap and is charged to nobody. It must be
        settled, whichever of the two answers first; where the hedge does, `swap` first.
        """
        group = self.group_of(ticket.request.target)
        left = ticket.request.target.tenant not in group.members.present
        if ticket.engine is None or group.backlog or left or ticket.request.spare:
            return None  # while others wait, a request gets no second engine
        avoided = ticket.request.failed_on | {ticket.engine.name}
        pick = group.pick(replace(ticket.request, failed_on=avoided))
        if isinstance(pick, WaitReason):
            return None
        hedge = Ticket(ticket.request, is_hedge=True)
        self._grants.grant(group, hedge, pick, waited=False)
        return hedge

    def swap(self, ticket: Ticket, hedge: Ticket) -> None:
        """Let a ticket go on where its hedge runs, and the hedge where the ticket ran."""
        ticket.grant, hedge.grant = hedge.grant, ticket.grant

    def avoid(self, ticket: Ticket, broken: Engine, *, begun: bool) -> None:
        """Note that an engine broke under a ticket's request, so that it is not asked again for it.

        One that had not begun with the request may be asked once it is ready again.
        """
        ticket.failed_on |= {broken.name}
        if begun:
            ticket.request = replace(ticket.request, failed_on=ticket.request.failed_on | {broken.name})

    def settle(
        self,
        ticket: Ticket,
        outcome: Outcome,
        *,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        fault: bool = False,
        certain: bool = False,
    ) -> None:
        """End a ticket: charge what it used, give its capacity back, serve what waits. Idempotent.

        `fault` says that the engine was to blame, and not the request, its adapter or its client; `certain`
        that it is ill by its own sign.
        """
        if ticket.settled is not None:
            return
        ticket.settled = outcome
        group, now = self.group_of(ticket.request.target), self._clock()
        engine = self._release(group, ticket, now) if ticket.is_running else None
        if engine is None:
            self._grants.dequeue(group, ticket)
        if not ticket.is_hedge:
            metered = engine is None or prompt_tokens > 0 or completion_tokens > 0
            self._accounts.charge(group, ticket, (prompt_tokens, completion_tokens), now, metered=metered)
        if engine is None:
            self._grants.end_stale_drains(group)
        elif fault:
            group.note_fault(ticket, "it failed while it answered", now, certain=certain)
            self._grants.fill_all(group)
        else:
            group.note_end(ticket, now)
            self._grants.fill(group, engine)

    # -- what replicas do ----------------------------------------------------------------------------------
    # News of a replica that has left changes nothing.

    def join(self, replica: Replica) -> None:
        """Let a replica take part, its engine ready or not.

        Raises `ValueError` where one of its name takes part already, or its pool has no such base model.
        """
        engine = replica.engine
        group = self.groups.get((replica.pool, engine.base_model))
        if group is None:
            raise ValueError(f"pool {replica.pool!r} has no base model {engine.base_model!r}")
        if replica.name in self.replicas:
            raise ValueError(f"there is a replica {replica.name!r} already")
        self.replicas[replica.name] = replica
        group.join(engine)
        self._grants.fill(group, engine)

    def leave(self, name: str) -> None:
        """Give a replica nothing more. What it runs goes on, and is settled as ever.

        Waiting requests that no other replica could serve are refused.
        """
        replica = self.replicas.pop(name)
        replica.left, engine = True, replica.engine
        group = self._groups.of(engine)
        group.leave(engine)
        if engine.sequences:
            self._leaving.append(engine)
        group.refresh_trust(self._clock())
        self._grants.refuse_unservable(group)
        self._grants.fill_all(group)  # where none is trusted now, all are

    def set_ready(self, name: str, ready: bool) -> None:
        """Record whether a replica's engine is ready. While it is not, what waits for it goes on waiting."""
        engine = self._engine_in(name)
        if engine is None or engine.ready == ready:
            return
        engine.ready = ready
        if ready:
            self._groups.of(engine).is_new = False
        else:
            pinned = engine.pinned
            engine.forget_residency()
            self._groups.of(engine).pins_changed(pinned, engine)
        self._grants.fill(self._groups.of(engine), engine)

    def set_draining(self, name: str, draining: bool) -> None:
        """Give a replica no new work, so that its leases run out; or give it work again."""
        replica = self.replicas[name]
        if replica.draining != draining:
            replica.draining = draining
            group = self._groups.of(replica.engine)
            self._grants.refuse_unservable(group)
            self._grants.fill(group, replica.engine)

    def set_asleep(self, name: str, asleep: bool, *, barred: bool = False) -> None:
        """End a model's turn, or begin it: asleep it gets nothing new. `barred`: it cannot come any more."""
        replica = self.replicas.get(name)
        if replica is not None and (replica.asleep, replica.barred) != (asleep, barred):
            replica.asleep, replica.barred, replica.awake_since_s = asleep, barred, self._clock()
            group = self._groups.of(replica.engine)
            self._grants.refuse_unservable(group)
            self._grants.fill(group, replica.engine)

    def take_residency(
        self,
        name: str,
        *,
        adapters: Iterable[str],
        pinned: Iterable[str],
        host: Iterable[str],
        kv_tokens: int = 0,
        incarnation: str = "",
    ) -> None:
        """Record what a replica's engine says of itself; see `Engine.take_residency`.

        `kv_tokens` is what its KV cache holds. Another `incarnation` is another engine, with cold caches.
        """
        engine = self._engine_in(name)
        if engine is None:
            return
        group = self._groups.of(engine)
        known, pinned_before = engine.adapters, engine.pinned
        engine.take_residency(adapters, pinned, host)
        engine.kv_tokens = kv_tokens
        if incarnation != engine.incarnation:
            engine.incarnation = incarnation
            others = any(other.accepts for other in group.engines if other is not engine)
            engine.health.restarted(self._clock(), slow_start=others)
            group.refresh_trust(self._clock())
        group.pins_changed(pinned_before, engine)
        if (engine.adapters, engine.pinned) != (known, pinned_before):
            self._grants.fill(group, engine)

    def note_gap(self, name: str, gap_s: float, tokens: int = 1) -> None:
        """Note that a stream of a replica brought `tokens` after `gap_s`."""
        engine = self._engine_in(name)
        if engine is not None and engine.limit is not None:
            engine.limit.note_gap(gap_s, tokens)

    def first_token(self, ticket: Ticket) -> None:
        """Note that the answer to a ticket has begun."""
        grant = ticket.grant
        if grant is not None and ticket.is_running:
            now = self._clock()
            grant.engine.health.answered(now, grant.period, now - grant.granted_s)

    def sweep(self) -> None:
        """Do what is due, several times a second: deadlines, slots to drain, limits that move."""
        now = self._clock()
        self._grants.expire(now)
        self._accounts.forget_left()
        self._groups.forget_left(self._leaving)
        for group in self.groups.values():
            group.refresh_load(now)
            group.mark_outliers(now)
            group.refresh_trust(now)
            for ticket, where in group.drains.begin(now):
                self._grants.note_drain(ticket, where)
            for engine in group.engines:
                if engine.limit is not None:
                    engine.limit.decide(now, engine.sequences)
                self._grants.fill(group, engine)

    def drain(self) -> None:
        """Refuse all that is queued and all that comes; what runs goes on."""
        self._draining = True
        for group in self.groups.values():
            for ticket in list(group.backlog):
                self._grants.refuse(group, ticket, refusals.shutting_down())

    # -- questions -----------------------------------------------------------------------------------------

    def has_alternative(self, ticket: Ticket) -> bool:
        """Whether another engine than the one it is on may take a ticket's request, now or soon."""
        request, own, engines = ticket.request, ticket.engine, self.group_of(ticket.request.target).engines
        return any(engine is not own and may_take(engine, request) for engine in engines)

    def takes_work(self, target: Target) -> bool:
        """Whether an engine serves the target that takes work, or once its turn comes; else one is wanted."""
        group = self._groups.find(target)
        return group is not None and group.scale.takes_work()

    def group_of(self, target: Target) -> Group:
        """Return the engines that may serve a target, and what is known of them together.

        Raises `LookupError` where its pool was removed, and nothing of it is here any more.
        """
        return self._groups.of_target(target)

    @property
    def groups(self) -> Mapping[Place, Group]:
        """The groups of the fleet as it is now."""
        return self._groups.present

    def all_groups(self) -> Groups:
        """Return those of removed pools too, which still run something."""
        return self._groups

    def is_in_use(self, adapter_id: str) -> bool:
        """Whether a request for this version waits or runs."""
        return self._accounts.is_in_use(adapter_id)

    def waiting(self) -> Iterator[Ticket]:
        """Return every ticket that waits."""
        return (ticket for group in self.groups.values() for ticket in group.backlog)

    def queued(self) -> dict[tuple[str, str], int]:
        """Count waiting requests by (tenant, model)."""
        return dict(Counter((t.request.target.tenant, t.request.target.model) for t in self.waiting()))

    def admitted(self) -> dict[tuple[str, str], int]:
        """Count sequences in the gateway, waiting or running, by (tenant, model)."""
        return self._accounts.by_model()

    def report(self, decisions: int = 100) -> SchedulerReport:
        """Copy its state, with this number of the last decisions."""
        now = self._clock()
        pools = tuple(group_report(group, now) for group in self.groups.values())
        return SchedulerReport(now, pools, tuple(self.decisions.last(decisions)))

    # -- refusals ------------------------------------------------------------------------------------------

    def _refuse_if_unavailable(self, request: Request, group: Group) -> None:
        if self._draining:
            raise self._reject(request, refusals.shutting_down())
        if request.target.tenant not in group.members.present:
            raise self._reject(request, self._grants.why_gone(request))
        if not group.could_serve(request):
            raise self._reject(request, refusals.no_replica(request))

    def _reject(self, request: Request, error: RequestError) -> RequestError:
        self.decisions.add(self._clock(), request, Action.REJECTED, error.code)
        return error

    def _take_fleet(self, fleet: Fleet, *, late: bool) -> None:
        """Let another fleet count: pools come and go, and what waits in one that has gone is refused."""
        self._groups.take_fleet(fleet, late=late)
        self._grants.take_fleet(self._groups, fleet)
        self._groups.forget_left(self._leaving)

    def _release(self, group: Group, ticket: Ticket, now_s: float) -> Engine:
        """Take back what a ticket holds."""
        engine = group.release(ticket, now_s)
        if engine.replica.asleep and not engine.sequences:
            self.turn_due(group.pool)  # it has run empty
        if self._leaving and not engine.sequences:
            self._leaving = [other for other in self._leaving if other is not engine]
        return engine

    def _engine_in(self, name: str) -> Engine | None:
        replica = self.replicas.get(name)
        return None if replica is None else replica.engine

"""When and where does each request run? The one stateful orchestrator.

It decides synchronously and acts after: no `await` stands between reading the state and changing it, so it
needs no lock. Policies are asked, never written here. Every ticket that `submit` returns must be settled
exactly once, whatever ends it; settling is the only way capacity comes back. Binding is late: a request gets
an engine only when it can run there at once.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count

from fleet.types import Fleet, Pool
from routing.errors import QueueTimeout, RequestError, Unavailable
from routing.scheduling.admission import Cap, Demand, Rejection, Usage, admit
from routing.scheduling.decisions import Action, Decision, Decisions
from routing.scheduling.fairness import cost
from routing.scheduling.filters import Hold, could_serve, is_ready
from routing.scheduling.forecast import retry_after_s
from routing.scheduling.overflow import has_place
from routing.scheduling.pool import Group
from routing.scheduling.profile import SLOT_LEASE, Pick, Profile
from routing.scheduling.rates import RateLimits
from routing.scheduling.report import SchedulerReport
from routing.scheduling.scorers import here
from routing.scheduling.state import Engine, Replica
from routing.scheduling.tickets import Ticket
from routing.types import Outcome, Request, Target

RETRY_AFTER_NO_REPLICA_S = 5.0  # an engine restarts in tens of seconds; asking every 5 s costs little
RETRY_AFTER_NO_ENGINE_S = 30.0  # one that fails to start is tried again within a minute
RETRY_AFTER_FULL_S = 2.0  # a queue of thousands of requests does not empty in less
# What clients are told of engines; the engine's own words are for operators.
_NOT_READY = "the engine that serves this model is not ready"
_DOES_NOT_START = (
    "the engine that serves this model does not start; its operators can see why, and it is tried again"
)
# What of a ticket belongs to the place that it has on an engine.
_PLACE = ("engine", "granted_s", "reserved_tokens", "period", "picked", "engine_mark_s", "slot_mark_s")
SMOOTHING = 0.1  # weight of the newest request in a tenant's running mean


@dataclass(slots=True)
class _Account:
    """What the dispatcher keeps per tenant."""

    usage: Usage = field(default_factory=Usage)
    queued_bytes: int = 0


class Dispatcher:
    """Admits, queues, grants and settles the requests of one gateway."""

    def __init__(
        self,
        fleet: Fleet,
        replicas: Iterable[Replica],
        *,
        clock: Callable[[], float],
        profile: Profile = SLOT_LEASE,
    ) -> None:
        self._tenants = fleet.tenants
        self._settings = fleet.gateway.scheduler
        self._clock = clock
        self.replicas: dict[str, Replica] = {}
        self._leaving: list[Engine] = []  # those that have left and still run something
        self.groups = {
            (pool.name, base_model): Group(
                pool,
                base_model,
                fleet.tenants,
                self._settings,
                profile,
                callers=_callers(fleet, pool, base_model),
            )
            for pool in fleet.pools.values()
            for base_model in pool.base_models
        }
        self.decisions = Decisions()
        self._rates = RateLimits({name: tenant.caps for name, tenant in fleet.tenants.items()})
        self._accounts = {name: _Account() for name in fleet.tenants}
        self._queued = self._queued_bytes = 0
        self._versions_in_use: Counter[str] = Counter()  # adapter id -> tickets, waiting or running
        self._adapter_sequences: Counter[str] = (
            Counter()
        )  # adapter that has a cap -> sequences in the gateway
        self._deadlines: list[tuple[float, int, Ticket]] = []  # heap; of tickets that waited once
        self._numbers = count()
        self._draining = False
        for replica in replicas:
            self.join(replica)

    def __repr__(self) -> str:
        running = [*(replica.engine for replica in self.replicas.values()), *self._leaving]
        in_flight = sum(engine.sequences for engine in running)
        leases = sum(len(engine.leases) for engine in running)
        admitted = sum(account.usage.sequences for account in self._accounts.values())
        return f"<Dispatcher admitted={admitted} queued={self._queued} in_flight={in_flight} leases={leases}>"

    # -- a request's way -----------------------------------------------------------------------------------

    def submit(self, request: Request) -> Ticket | Rejection:
        """Admit the request, then grant it an engine or queue it; or say which cap stops it.

        While no engine for it is ready it waits. Raises `Unavailable` where no replica could ever serve it,
        or the gateway is shutting down.
        """
        group = self.group_of(request.target)
        self._refuse_if_unavailable(request)
        pick = group.pick(request)
        rejection = self._admit(request, group, must_wait=isinstance(pick, Hold))
        if rejection is not None:
            self._note(request, Action.REJECTED, rejection.cap)
            return rejection
        ticket = Ticket(request)
        self._count(request, +1)
        group.enter(ticket)
        if isinstance(pick, Pick):
            self._grant(group, ticket, pick, waited=False)
        else:
            self._enqueue(group, ticket, pick)
        return ticket

    def give_back(self, ticket: Ticket, *, certain: bool = False, begun: bool = True) -> None:
        """Queue a ticket again whose engine broke before it answered; it keeps its age.

        `certain` says that the engine itself is ill, by its own sign, whatever it was asked; for `begun` see
        `avoid`. Raises `Unavailable` where no engine is left that could serve the request; the ticket must
        still be settled.
        """
        group, now = self.group_of(ticket.request.target), self._clock()
        broken = self._release(group, ticket)
        broken.health.failed(now, ticket.period, "it broke off before it answered", _accuser(ticket, certain))
        group.judge(now)
        self.avoid(ticket, broken, begun=begun)
        ticket.granted_s = None
        try:
            self._refuse_if_unavailable(ticket.request)
            pick = group.pick(ticket.request)
            if isinstance(pick, Pick):
                self._grant(group, ticket, pick, waited=True)
            else:
                self._enqueue(group, ticket, pick)
        finally:
            self._fill_all(group)  # the place it has left, and others: where none is trusted, all are

    def hedge(self, ticket: Ticket) -> Ticket | None:
        """Have a request that runs tried on a second engine too, if one can take it now; else None.

        The hedge holds capacity there, counts for no cap and is charged to nobody. Whichever answers first,
        the hedge must be settled; where it is the hedge, `swap` first.
        """
        group = self.group_of(ticket.request.target)
        if ticket.engine is None or group.backlog:
            return None  # where others wait, no second place is taken
        avoided = ticket.request.failed_on | {ticket.engine.name}
        pick = group.pick(replace(ticket.request, failed_on=avoided))
        if isinstance(pick, Hold):
            return None
        hedge = Ticket(ticket.request, is_hedge=True)
        self._grant(group, hedge, pick, waited=False)
        return hedge

    def swap(self, ticket: Ticket, hedge: Ticket) -> None:
        """Let a ticket go on where its hedge is, and the hedge end where the ticket was."""
        for name in _PLACE:
            mine, other = getattr(ticket, name), getattr(hedge, name)
            setattr(ticket, name, other)
            setattr(hedge, name, mine)

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
        """End a ticket: charge what it used, give its capacity back, serve who waits. Idempotent.

        `fault` says that the engine was to blame, and not the request, its adapter or its client; `certain`
        that it is ill by its own sign.
        """
        if ticket.settled is not None:
            return
        ticket.settled = outcome
        group = self.group_of(ticket.request.target)
        self._dequeue(group, ticket)
        engine = self._release(group, ticket) if ticket.engine is not None else None
        if not ticket.is_hedge:
            self._account(group, ticket, outcome, prompt_tokens, completion_tokens)
        if engine is not None:
            self._report(group, engine, ticket, fault=fault, certain=certain)
            if fault:
                self._fill_all(group)
            else:
                self._fill(group, engine)
        else:
            self._end_stale_clearings(group)

    def _account(
        self, group: Group, ticket: Ticket, outcome: Outcome, prompt_tokens: int, completion_tokens: int
    ) -> None:
        """Charge a ticket that ended for what it used, and learn from one that was completed."""
        request, tenant = ticket.request, ticket.request.target.tenant
        self._count(request, -1)
        completed = outcome is Outcome.COMPLETED
        tokens = cost(prompt_tokens, completion_tokens)
        group.end(ticket, tokens, completion_tokens if completed else None)
        used = prompt_tokens + completion_tokens
        if used or ticket.granted_s is None:  # what ran and was not metered keeps its estimate
            self._rates.correct(tenant, used - request.prompt_tokens)
        if completed:
            usage, taken_s = self._accounts[tenant].usage, self._clock() - request.arrived_s
            usage.mean_request_s += SMOOTHING * (taken_s - usage.mean_request_s)

    # -- what replicas do ----------------------------------------------------------------------------------
    #
    # What is told of a replica that has left changes nothing.

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
        self._fill(group, engine)

    def leave(self, name: str) -> None:
        """Let a replica take part no more. What it runs goes on, and is settled as ever; nothing new comes.

        What waits and no other replica could serve is refused.
        """
        engine = self.replicas.pop(name).engine
        group = self._group_with(engine)
        group.leave(engine)
        if engine.sequences:
            self._leaving.append(engine)
        group.judge(self._clock())
        self._refuse_unservable(group)
        self._fill_all(group)  # where none is trusted now, all are

    def set_ready(self, name: str, ready: bool) -> None:
        """Record whether a replica's engine is ready. While it is not, what waits for it goes on waiting."""
        engine = self._engine_in(name)
        if engine is None or engine.ready == ready:
            return
        engine.ready = ready
        if not ready:
            pinned = engine.pinned
            engine.forget_residency()
            self._group_with(engine).pins_changed(pinned, engine)
        self._fill(self._group_with(engine), engine)

    def set_draining(self, name: str, draining: bool) -> None:
        """Give a replica no new work, so that its leases run out; or give it work again."""
        replica = self.replicas[name]
        if replica.draining != draining:
            replica.draining = draining
            group = self._group_with(replica.engine)
            self._refuse_unservable(group)
            self._fill(group, replica.engine)

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
        group = self._group_with(engine)
        known, pinned_before = engine.adapters, engine.pinned
        engine.take_residency(adapters, pinned, host)
        engine.kv_tokens = kv_tokens
        if incarnation != engine.incarnation:
            engine.incarnation = incarnation
            others = any(other.accepts for other in group.engines if other is not engine)
            engine.health.restarted(self._clock(), slow_start=others)
            group.judge(self._clock())
        group.pins_changed(pinned_before, engine)
        if (engine.adapters, engine.pinned) != (known, pinned_before):
            self._fill(group, engine)

    def note_gap(self, name: str, gap_s: float, tokens: int = 1) -> None:
        """Note that a stream of a replica brought so many tokens after so long."""
        engine = self._engine_in(name)
        if engine is not None and engine.limit is not None:
            engine.limit.note_gap(gap_s, tokens)

    def first_token(self, ticket: Ticket) -> None:
        """Note that the answer to a ticket has begun."""
        if ticket.engine is not None and ticket.granted_s is not None:
            now = self._clock()
            ticket.engine.health.answered(now, ticket.period, now - ticket.granted_s)

    def sweep(self) -> None:
        """Do what time asks for, several times a second: deadlines, slots to clear, limits that move."""
        now = self._clock()
        self._expire(now)
        for group in self.groups.values():
            group.observe(now)
            group.compare(now)
            group.judge(now)
            for ticket, where in group.clear_slots(now):
                self._note_clearing(ticket, where)
            for engine in group.engines:
                if engine.limit is not None:
                    engine.limit.decide(now, engine.sequences)
                self._fill(group, engine)

    def drain(self) -> None:
        """Refuse whatever is queued and whatever comes; what runs goes on."""
        self._draining = True
        for group in self.groups.values():
            for ticket in list(group.backlog):
                self._refuse(group, ticket, _shutting_down())

    # -- questions -----------------------------------------------------------------------------------------

    def has_alternative(self, ticket: Ticket) -> bool:
        """Whether another engine than the one it is on may take a ticket's request, now or soon."""
        request, here = ticket.request, ticket.engine
        return any(
            r is not here and r.trusted and is_ready(r, request)
            for r in self.group_of(request.target).engines
        )

    def takes_work(self, target: Target) -> bool:
        """Whether an engine is ready that serves the target, and its replica takes work."""
        return any(engine.accepts for engine in self.group_of(target).engines)

    def group_of(self, target: Target) -> Group:
        """Return the engines that may serve a target, and what is known of them together."""
        return self.groups[target.pool, target.base_model]

    def is_in_use(self, adapter_id: str) -> bool:
        """Whether a request for this version waits or runs."""
        return adapter_id in self._versions_in_use

    def waiting(self) -> Iterator[Ticket]:
        """Return every ticket that waits."""
        return (ticket for group in self.groups.values() for ticket in group.backlog)

    def queued(self) -> dict[tuple[str, str], int]:
        """Count waiting requests by (tenant, model)."""
        return dict(Counter((t.request.target.tenant, t.request.target.model) for t in self.waiting()))

    def admitted(self) -> dict[tuple[str, str], int]:
        """Count sequences in the gateway, waiting or running, by (tenant, model)."""
        return {
            (tenant, model): sequences
            for tenant, account in self._accounts.items()
            for model, sequences in account.usage.sequences_by_model.items()
        }

    def _report(self, group: Group, engine: Engine, ticket: Ticket, *, fault: bool, certain: bool) -> None:
        """Let an engine's health know how a request of it ended."""
        now, health = self._clock(), engine.health
        if fault:
            health.failed(now, ticket.period, "it failed while it answered", _accuser(ticket, certain))
            group.judge(now)
        elif ticket.settled is Outcome.COMPLETED:
            health.succeeded(now, ticket.period, ticket.request.target.tenant)
        else:
            health.abandoned(ticket.period)

    def report(self, decisions: int = 100) -> SchedulerReport:
        """Copy everything it holds, with so many of the last decisions."""
        now = self._clock()
        pools = tuple(group.report(now) for group in self.groups.values())
        return SchedulerReport(now, pools, tuple(self.decisions.last(decisions)))

    # -- admission -----------------------------------------------------------------------------------------

    def _admit(self, request: Request, group: Group, *, must_wait: bool) -> Rejection | None:
        """Ask every cap in turn; rates come last, since they are used up by being asked."""
        target = request.target
        caps, account = self._tenants[target.tenant].caps, self._accounts[target.tenant]
        demand = Demand(
            target.model,
            request.sequences,
            request.prompt_tokens,
            must_wait,
            target.adapter_limit,
            self._adapter_sequences[target.adapter or ""],
        )
        now = self._clock()
        account.usage.forget_past(now)
        rejection = admit(caps, account.usage, demand)
        if rejection is not None:
            account.usage.expect(rejection, now)
        elif must_wait:
            rejection = self._overload(request, group, account)
        return rejection or self._rates.take(target.tenant, request.prompt_tokens)

    def _overload(self, request: Request, group: Group, account: _Account) -> Rejection | None:
        """Say whether a request that must wait would find no place, or miss its objective."""
        rank, limit = self._tenants[request.target.tenant].band.rank, self._settings
        placed = has_place(
            rank, own=account.usage.queued, adds=1, used=self._queued, limit=limit.max_queued
        ) and has_place(
            rank,
            own=account.queued_bytes,
            adds=request.size_bytes,
            used=self._queued_bytes,
            limit=limit.max_queued_bytes,
        )
        if not placed:
            return Rejection(Cap.OVERLOADED, limit.max_queued, RETRY_AFTER_FULL_S)
        predicted_s = group.sheds(request)
        if predicted_s is None or group.slo.ttft_s is None:
            return None
        return Rejection(Cap.OVERLOADED, self._queued, retry_after_s(predicted_s, group.slo.ttft_s))

    def _refuse_if_unavailable(self, request: Request) -> None:
        if self._draining:
            error = _shutting_down()
        elif not self._could_be_served(request):
            error = _no_replica()
        else:
            return
        self._note(request, Action.REJECTED, error.code)
        raise error

    def refuse_if_failed(self, pool: str, base_model: str) -> None:
        """Raise `Unavailable` where every engine of a pool for that base model fails to start.

        For a model of which no version is ready: it cannot wait here, and what it waits for is an engine.
        """
        engines = self.groups[pool, base_model].engines
        if engines and all(engine.failed for engine in engines):
            raise Unavailable(
                f"The model is not ready yet: {_DOES_NOT_START}.",
                code="adapter_unavailable",
                retry_after_s=RETRY_AFTER_NO_ENGINE_S,
            )

    def _could_be_served(self, request: Request) -> bool:
        return any(could_serve(r, request) for r in self.group_of(request.target).engines)

    # -- decisions -----------------------------------------------------------------------------------------

    def _fill(self, group: Group, engine: Engine) -> None:
        """Grant waiting tickets, best first, until nothing that waits can run on this engine."""
        if not group.backlog:
            engine.clearing = None
            return
        group.end_stale_clearing(engine)
        now, granted = self._clock(), False
        while (ticket := group.next_for(engine, now)) is not None:
            self._dequeue(group, ticket)
            self._grant(group, ticket, Pick(engine, here(engine, ticket.request)), waited=True)
            granted = True
        if granted:
            self._end_stale_clearings(group)

    def _release(self, group: Group, ticket: Ticket) -> Engine:
        """Take back what a ticket holds."""
        engine = group.release(ticket, self._clock())
        if self._leaving and not engine.sequences:
            self._leaving = [other for other in self._leaving if other is not engine]
        return engine

    def _group_with(self, engine: Engine) -> Group:
        return self.groups[engine.replica.pool, engine.base_model]

    def _engine_in(self, name: str) -> Engine | None:
        replica = self.replicas.get(name)
        return None if replica is None else replica.engine

    def _fill_all(self, group: Group) -> None:
        for engine in group.engines:
            self._fill(group, engine)

    def _end_stale_clearings(self, group: Group) -> None:
        """Serve those that were held back for somebody who has left, or runs elsewhere."""
        for engine in group.engines:
            if group.end_stale_clearing(engine):
                self._fill(group, engine)

    def _refuse_unservable(self, group: Group) -> None:
        """Tell those that no replica of a group could ever serve."""
        for ticket in list(group.backlog):
            if not self._could_be_served(ticket.request):
                self._refuse(group, ticket, _no_replica())

    def _grant(self, group: Group, ticket: Ticket, pick: Pick, *, waited: bool) -> None:
        group.grant(ticket, pick, self._clock(), waited=waited)
        self._note(ticket.request, Action.GRANTED, pick.reason, pick.engine, ticket.queued_s or 0.0)
        ticket.decide()

    def _enqueue(self, group: Group, ticket: Ticket, why: Hold) -> None:
        request = ticket.request
        group.enqueue(ticket, why)
        self._count_queued(request, +1)
        due_s = request.arrived_s + self._tenants[request.target.tenant].caps.queue_timeout_s
        heapq.heappush(self._deadlines, (due_s, next(self._numbers), ticket))
        self._note(request, Action.QUEUED, why)
        if why in (Hold.NO_SLOT, Hold.SLOT_CLEARING, Hold.SPARES_READ):
            self._note_clearing(ticket, group.clear_slot_for(ticket, self._clock()))

    def _dequeue(self, group: Group, ticket: Ticket) -> None:
        if group.dequeue(ticket):
            self._count_queued(ticket.request, -1)

    def _refuse(self, group: Group, ticket: Ticket, error: RequestError) -> None:
        """Take a ticket out of the queue and tell whoever waits on it; its owner settles it."""
        self._dequeue(group, ticket)
        if not ticket.is_decided:
            ticket.refusal = error
            waited_s = self._clock() - ticket.request.arrived_s
            self._note(ticket.request, Action.EXPIRED, error.code, waited_s=waited_s)
            ticket.decide()

    def _expire(self, now: float) -> None:
        """Refuse what has waited past its deadline."""
        while self._deadlines and self._deadlines[0][0] <= now:
            due_s, _, ticket = heapq.heappop(self._deadlines)
            if ticket.settled is None and not ticket.is_decided:
                group = self.group_of(ticket.request.target)
                self._refuse(group, ticket, _expired(ticket, due_s, group.engines))

    # -- counts --------------------------------------------------------------------------------------------

    def _count_queued(self, request: Request, sign: int) -> None:
        account = self._accounts[request.target.tenant]
        account.usage.queued += sign
        account.usage.queued_tokens += sign * request.prompt_tokens
        account.queued_bytes += sign * request.size_bytes
        self._queued += sign
        self._queued_bytes += sign * request.size_bytes

    def _count(self, request: Request, sign: int) -> None:
        target, sequences = request.target, sign * request.sequences
        usage = self._accounts[target.tenant].usage
        usage.sequences += sequences
        _add(usage.sequences_by_model, target.model, sequences)
        if target.adapter_id is not None:
            _add(self._versions_in_use, target.adapter_id, sign)
        if target.adapter is not None and target.adapter_limit is not None:
            _add(self._adapter_sequences, target.adapter, sequences)

    def _note_clearing(self, ticket: Ticket, engine: Engine | None) -> None:
        if engine is not None and engine.clearing is not None:
            victim = engine.clearing.victim
            reason = f"takes the slot of {victim}" if victim else "takes a slot that was kept for others"
            self._note(ticket.request, Action.CLEARING, reason, engine)

    def _note(
        self,
        request: Request,
        action: Action,
        reason: str,
        engine: Engine | None = None,
        waited_s: float = 0.0,
    ) -> None:
        target = request.target
        self.decisions.note(
            Decision(
                self._clock(),
                action,
                reason,
                request.id,
                target.tenant,
                target.model,
                target.pool,
                engine.name if engine else None,
                waited_s,
            )
        )


def _callers(fleet: Fleet, pool: Pool, base_model: str) -> int:
    """Count the tenants of a pool that may ask for a base model; where it has adapters, any may."""
    if fleet.base_models[base_model].serves_adapters:
        return len(pool.tenants)
    return sum(base_model in fleet.tenants[tenant].models.values() for tenant in pool.tenants)


def _add(counts: dict[str, int], key: str, number: int) -> None:
    """Add to a count; one that comes back to zero leaves nothing behind."""
    left = counts.get(key, 0) + number
    if left:
        counts[key] = left
    else:
        counts.pop(key, None)


def _accuser(ticket: Ticket, certain: bool) -> str | None:
    """Whose word it is that an engine failed; None where it says so itself."""
    return None if certain else ticket.request.target.tenant


def _no_replica() -> Unavailable:
    return Unavailable(
        "No replica that serves this model takes this request now. Try again shortly.",
        code="no_replica_ready",
        retry_after_s=RETRY_AFTER_NO_REPLICA_S,
    )


def _expired(ticket: Ticket, due_s: float, engines: Iterable[Engine]) -> QueueTimeout:
    """Say what a request waited for in vain: for a place, or for an engine, and how that one stands."""
    waited_s = due_s - ticket.request.arrived_s
    waited = f"The request waited {waited_s:g} s"
    able = [engine for engine in engines if could_serve(engine, ticket.request)]
    if any(engine.ready for engine in able):
        return QueueTimeout(
            f"{waited} for a free replica, the longest this tenant allows.", retry_after_s=1.0
        )
    failed = bool(able) and all(engine.failed for engine in able)
    return QueueTimeout(
        f"{waited}, the longest this tenant allows: {_DOES_NOT_START if failed else _NOT_READY}.",
        retry_after_s=RETRY_AFTER_NO_ENGINE_S if failed else RETRY_AFTER_NO_REPLICA_S,
    )


def _shutting_down() -> Unavailable:
    return Unavailable(
        "The gateway is shutting down.", code="shutting_down", retry_after_s=RETRY_AFTER_NO_REPLICA_S
    )

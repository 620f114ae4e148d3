"""What is the state of one base model of a pool: its engines, its queues, the service of its tenants?

Engines of one pool with one base model are peers: they alone can take one another's requests. So they are
compared with one another only, and requests compete only for them, whatever other models the pool has.

The dispatcher tells a group what happens. It keeps three things in step: the backlog's queues with the slots
that adapters hold, the fair counters with what was granted, and the forecast with what was done.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from fleet.types import Band, Fleet, Pool, SchedulerSettings, Slo
from routing.scheduling.backlog import BANDS, Backlog
from routing.scheduling.bands import BandGuard
from routing.scheduling.drains import Drains
from routing.scheduling.fairness import VirtualCounters, cost
from routing.scheduling.filters import WaitReason, could_serve
from routing.scheduling.floods.detection import Floods, Room
from routing.scheduling.forecast import Capacity, QueuedWork, TurnForecast, smoothed
from routing.scheduling.health.health import WITNESSES, outliers
from routing.scheduling.locality import spares_read
from routing.scheduling.members import Members, callers
from routing.scheduling.profile import Pick, Profile
from routing.scheduling.scale import Scale
from routing.scheduling.selection import NO_SLOT_NEEDED, WITH_SLOT, WITHOUT_SLOT, Selection
from routing.scheduling.state import Engine, limit_for
from routing.scheduling.tickets import Grant, Ticket
from routing.scheduling.view import View, home_key
from routing.types import Outcome, Request

FIRST_COMPLETION_TOKENS = 64.0  # taken for a tenant's mean until a request of it was completed


class Group:
    """The engines of one pool with one base model, their queues, and their tenants' service."""

    def __init__(
        self, fleet: Fleet, pool: Pool, base_model: str, profile: Profile, *, is_new: bool = False
    ) -> None:
        settings = fleet.gateway.scheduler
        self.pool = pool.name
        self.base_model = base_model
        self.slo: Slo = pool.slo
        self.engines: list[Engine] = []
        self.members = Members([t for n in pool.tenants if not (t := fleet.tenants[n]).suspended])
        self.ranks, self.weights = self.members.ranks, self.members.weights
        self.counters = VirtualCounters(self.weights, self.ranks)
        self.backlog = Backlog[Ticket](
            lambda ticket: ticket.request,
            band_rank=self.ranks,
            service=self.counters.__getitem__,
            aging_tokens_per_s=settings.aging_tokens_per_s,
        )
        self.floods = Floods(self.weights, self.ranks, settings.burst_share)
        self.drains = Drains(
            self.engines,
            self.backlog,
            self.floods,
            weights=self.weights,
            ranks=self.ranks,
            settings=settings,
        )
        self.scale = Scale(pool, self.engines, self.backlog)
        self._witnesses = max(1, min(WITNESSES, callers(fleet, pool, base_model)))
        self.is_new = is_new  # made while the gateway serves, and no engine of it was ready yet
        self.tickets: Counter[str] = Counter()  # tenant -> tickets, waiting or running
        self.mean_completion_tokens: defaultdict[str, float] = defaultdict(lambda: FIRST_COMPLETION_TOKENS)
        self.settings = settings
        self.profile = profile
        self._guard = BandGuard(BANDS, settings.lower_band_share)
        self.selection = Selection(self.backlog, self._guard, profile, settings)
        self.work = Capacity()  # in prices
        self.slots_given = Capacity()  # to adapters that waited
        self._queued_work = QueuedWork(self.weights, self.ranks, BANDS)
        self.turns: TurnForecast | None = None  # where its model takes turns with others

    # -- its tenants and settings --------------------------------------------------------------------------

    def take_fleet(self, fleet: Fleet) -> list[Ticket]:
        """Let another fleet count; return what waits of tenants that may not use this group any more.

        What waits of a tenant whose band has changed is sorted in anew, with its age; what runs goes on.
        """
        pool, settings, members = fleet.pools[self.pool], fleet.gateway.scheduler, self.members
        tenants = {n: fleet.tenants[n] for n in pool.tenants if not fleet.tenants[n].suspended}
        differing = members.differing(tenants.values())
        waiting = [
            ticket
            for ticket in self.backlog
            if settings != self.settings or ticket.request.target.tenant in differing
        ]
        for ticket in waiting:
            self.dequeue(ticket)
        members.take(tenants)
        self._take_settings(settings)
        for tenant in tenants:
            self.counters.add(tenant)
        for tenant, rank in differing.items():
            self.counters.change_band(tenant, rank, self.ranks[tenant])
            self.floods.judge_anew(tenant)
        for ticket in waiting:
            self.enqueue(ticket, ticket.waits_for or WaitReason.BEHIND)
        self._take_pool(fleet, pool)
        self.forget_left()
        return [t for t in self.backlog if t.request.target.tenant not in members.present]

    def forget_left(self) -> None:
        """Forget the tenants that have left and of which nothing is here any more; `sweep` asks for it."""
        promised = {engine.slot_drain.tenant for engine in self.engines if engine.slot_drain is not None}
        for tenant in self.members.leaving - promised:
            if not (self.tickets[tenant] or self.floods.running[tenant] or self.floods.leased[tenant]):
                self.counters.forget(tenant)
                self.floods.forget(tenant)
                self.backlog.forget_tenant(tenant)
                self.mean_completion_tokens.pop(tenant, None)
                self.members.forget(tenant)

    def _take_settings(self, settings: SchedulerSettings) -> None:
        """Let other settings count; nothing may wait to which they are new."""
        self.settings = self.drains.settings = settings
        self.selection.take(settings)
        self.backlog.aging_tokens_per_s = settings.aging_tokens_per_s
        self.floods.burst_share = settings.burst_share
        self._guard.share = settings.lower_band_share

    def _take_pool(self, fleet: Fleet, pool: Pool) -> None:
        """Let the objectives of the pool as it is now count, and the number of its tenants."""
        model, before, self.slo = fleet.base_models[self.base_model], self.slo, pool.slo
        self._witnesses = max(1, min(WITNESSES, callers(fleet, pool, self.base_model)))
        self.scale.take(pool)
        for engine in self.engines:
            engine.declared = model
            engine.health.witnesses = self._witnesses
            if before.itl_s != pool.slo.itl_s:
                engine.limit = limit_for(pool.slo, engine.slots, engine.max_sequences)

    # -- engines -------------------------------------------------------------------------------------------

    def join(self, engine: Engine) -> None:
        """Take an engine in."""
        engine.health.witnesses = self._witnesses
        self.engines.append(engine)
        for adapter in engine.in_slots:
            self._move_to_queue(adapter)

    def leave(self, engine: Engine) -> None:
        """Let an engine go. What it runs counts until it ends; nothing else of it does."""
        in_slots = tuple(engine.in_slots)
        engine.ready = False
        engine.forget_residency()
        self.engines.remove(engine)
        for adapter in in_slots:
            self._move_to_queue(adapter)

    # -- a ticket's way ------------------------------------------------------------------------------------

    def enter(self, ticket: Ticket) -> None:
        """Count a ticket that was admitted. A tenant of which nothing waits has saved up no service."""
        tenant = ticket.request.target.tenant
        if not ticket.request.spare:  # what runs on spare room counts for nobody
            self.floods.count_arrival(tenant, ticket.request.arrived_s)
        if not (ticket.request.spare or self.backlog.count(tenant)):
            self.counters.lift(tenant)
            self.backlog.resort(tenant)
        self.tickets[tenant] += 1
        ticket.estimate_tokens = cost(ticket.request.prompt_tokens, self.expected_completion(ticket.request))

    def end(self, ticket: Ticket, tokens: float, completion_tokens: int | None) -> None:
        """Take out a ticket that ended, charge `tokens`, and learn from one that was completed."""
        tenant = ticket.request.target.tenant
        self.tickets[tenant] -= 1
        if not self.tickets[tenant]:
            del self.tickets[tenant]
        self.work.add(tokens)
        if not ticket.request.spare:
            self.counters.correct(tenant, tokens - ticket.charged_tokens)
            self.backlog.resort(tenant)
        if ticket.user is not None:
            self.backlog.correct_user(ticket.user, tokens - ticket.charged_tokens)
        if completion_tokens is not None:
            mean, by_sequence = self.mean_completion_tokens, completion_tokens / ticket.request.sequences
            mean[tenant] = smoothed(mean[tenant], by_sequence)

    def enqueue(self, ticket: Ticket, reason: WaitReason) -> None:
        """Let a ticket wait."""
        target = ticket.request.target
        ticket.waits_for = reason
        self.backlog.push(ticket, lambda: self._queue_of(target.adapter_id))
        self._queued_work.add(target.tenant, ticket.estimate_tokens)

    def dequeue(self, ticket: Ticket) -> bool:
        """Take a ticket out of the queue; whether it was there."""
        if not self.backlog.remove(ticket):
            return False
        tenant = ticket.request.target.tenant
        self._queued_work.remove(
            tenant,
            ticket.estimate_tokens,
            left_of_tenant=self.backlog.count(tenant),
            left_of_band=self.backlog.in_band(self.ranks[tenant]),
        )
        return True

    def grant(self, ticket: Ticket, pick: Pick, now_s: float, *, waited: bool) -> None:
        """Give a ticket its engine, and charge it once."""
        request, engine = ticket.request, pick.engine
        tenant, adapter = request.target.tenant, request.target.adapter_id
        reserved_tokens = request.prompt_tokens + int(self.expected_completion(request))
        new_lease = engine.acquire(request, reserved_tokens, now_s)
        ticket.begin(
            Grant(
                engine,
                now_s,
                reserved_tokens,
                engine.health.began(now_s),
                pick.reason,
                engine.clock.share_s,
                0.0 if adapter is None else engine.leases[adapter].clock.share_s,
            )
        )
        engine.trusted = engine.trusted and engine.health.allows(now_s)
        if ticket.is_hedge or request.spare:
            pass  # the operator's choice, not the tenant's; or room that nobody else wants
        elif not ticket.charged_tokens:
            ticket.charged_tokens = ticket.estimate_tokens
            self.counters.serve(tenant, ticket.charged_tokens)
            ticket.user = self.backlog.serve_user(request, ticket.charged_tokens, now_s)
        if waited:
            waiting = [self.backlog.in_band(rank) for rank in range(BANDS)]
            self._guard.granted(self.ranks[tenant], waiting)
            self.slots_given.add(float(new_lease))
        self.backlog.resort(tenant)
        if not request.spare:
            self.floods.count_start(tenant, request.sequences, takes_slot=new_lease)
        if new_lease:
            self._move_to_queue(adapter)
            engine.forget_oldest()

    def release(self, ticket: Ticket, now_s: float) -> Engine:
        """Take back what a ticket holds. Raises `RuntimeError` where it holds nothing."""
        grant, target = ticket.end(), ticket.request.target
        engine = grant.engine
        if not ticket.request.spare:
            self.floods.count_end(target.tenant, ticket.request.sequences)
        lease = engine.leases.get(target.adapter_id or "")
        ended = engine.release(ticket.request, grant.reserved_tokens, now_s)
        ticket.add_time(grant, lease)
        if ended and lease is not None:
            if not lease.taken_to_spare:
                self.floods.count_slot_back(lease.tenant)
            self._move_to_queue(target.adapter_id)
        return engine

    # -- health --------------------------------------------------------------------------------------------

    def refresh_trust(self, now_s: float) -> None:
        """Let every engine's health decide how much it may be given.

        Where no breaker lets anything through, all are trusted (Envoy's panic mode): an engine that fails may
        answer the next request, one that is not asked never does.
        """
        taking = [engine for engine in self.engines if engine.accepts]
        panic = not any(engine.health.allows(now_s) for engine in taking)
        for engine in self.engines:
            engine.trusted = panic or engine.health.allows(now_s)
            engine.ramp = 1.0 if panic else engine.health.ramp(now_s)

    def note_fault(self, ticket: Ticket, reason: str, now_s: float, *, certain: bool) -> None:
        """Note that an engine failed a ticket; `certain`: the engine says so, not the ticket alone."""
        if ticket.grant is None:
            return
        engine, period = ticket.grant.engine, ticket.grant.period
        if engine.replica.restarting:  # it was told to end
            engine.health.abandoned(period)
        else:
            tenant = None if certain else ticket.request.target.tenant
            engine.health.failed(now_s, period, reason, tenant)
            self.refresh_trust(now_s)

    def note_end(self, ticket: Ticket, now_s: float) -> None:
        """Note that a ticket ended without a fault of the engine that ran it."""
        if ticket.grant is None:
            return
        engine, period = ticket.grant.engine, ticket.grant.period
        if ticket.settled is Outcome.COMPLETED:
            engine.health.succeeded(now_s, period, ticket.request.target.tenant)
        else:
            engine.health.abandoned(period)

    def mark_outliers(self, now_s: float) -> None:
        """Find the engines that are much slower than their peers."""
        slow = outliers((engine.health for engine in self.engines if engine.accepts), now_s)
        for engine in self.engines:
            engine.health.outlying = engine.name in slow

    def pins_changed(self, before: frozenset[str], engine: Engine) -> None:
        """Move what waits for adapters that an engine has pinned, or no longer pins; `before`: it had."""
        for adapter in before ^ engine.pinned:
            self._move_to_queue(adapter)

    # -- decisions -----------------------------------------------------------------------------------------

    def could_serve(self, request: Request) -> bool:
        """Whether any engine could ever serve a request."""
        return any(could_serve(engine, request) for engine in self.engines)

    def is_used(self, adapter_id: str) -> bool:
        """Whether a request for an adapter's version waits or runs."""
        return self.backlog.has_model(adapter_id) or any(adapter_id in e.leases for e in self.engines)

    def pick(self, request: Request) -> Pick | WaitReason:
        """Choose the engine for a request that has just come, or say why it must wait.

        What waits cannot run now, or it would: a request may overtake all of it but its own flow.
        """
        if self.scale.comes_from_zero:
            return WaitReason.FROM_ZERO
        if self.backlog.has_flow(request):
            return WaitReason.BEHIND
        view = View(self.engines, self.floods, home_key(request))
        found = self.profile.pick(request, view)
        if isinstance(found, Pick):
            spares = spares_read(found.engine, request, view, now_s=request.arrived_s)
            return WaitReason.SPARES_READ if spares else found
        is_asleep = self.engines and all(engine.replica.asleep for engine in self.engines)
        return WaitReason.ASLEEP if found is WaitReason.NOT_READY and is_asleep else found

    # -- how long it takes ---------------------------------------------------------------------------------

    def refresh_load(self, now_s: float) -> None:
        """See what waits, for the forecast and to find floods; to be called several times a second.

        What is done while no engine is ready says nothing of how fast they are.
        """
        if self.members.leaving:
            self.forget_left()
        taking = [engine for engine in self.engines if engine.accepts]
        self.work.observe(now_s, backlogged=bool(self.backlog and taking))
        room = Room(sum(engine.slots for engine in taking), sum(engine.capacity for engine in taking))
        self.floods.refresh(now_s, self.backlog.counts, room)
        self.slots_given.observe(now_s, backlogged=self.backlog.has_queue(WITHOUT_SLOT) and bool(taking))
        self.scale.refresh(now_s, self.work.per_s)

    def predicted_wait_s(self, request: Request) -> float | None:
        """Seconds until a request that cannot run now would begin; None while nothing is known."""
        price = cost(request.prompt_tokens, self.expected_completion(request))
        work_s = self.work.wait_s(self._queued_work.ahead(request.target.tenant, price).total)
        turn_s = None if self.turns is None else self.turns.until_awake_s()
        waits = (work_s, self._wait_for_slot_s(request), turn_s)
        return max((wait_s for wait_s in waits if wait_s is not None), default=None)

    def _wait_for_slot_s(self, request: Request) -> float | None:
        target = request.target
        if target.adapter_id is None or any(engine.holds(target.adapter_id) for engine in self.engines):
            return None
        rank = self.ranks[target.tenant]
        return self.slots_given.wait_s(self.backlog.flows_ahead(WITHOUT_SLOT, rank, target.tenant))

    def expected_completion(self, request: Request) -> float:
        """Completion tokens a request is expected to need, all sequences together."""
        expected = self.mean_completion_tokens[request.target.tenant]
        if request.max_completion_tokens is not None:
            expected = min(expected, request.max_completion_tokens)
        return expected * request.sequences

    def sheds(self, request: Request) -> float | None:
        """Predicted wait of a request that must wait, where that would miss the objective; else None.

        The high band is not shed: its queue is bounded by its caps alone. Nor is one that waits for nothing
        but its model or the first replica, or that would never come.
        """
        is_high = self.ranks[request.target.tenant] == Band.HIGH.rank
        if self.slo.ttft_s is None or is_high or self.scale.comes_from_zero:
            return None
        bound_s = max(self.slo.ttft_s, self.turns.least_s() if self.turns else 0.0)
        predicted_s = self.predicted_wait_s(request)
        if predicted_s is None or predicted_s <= bound_s:
            return None
        self.scale.refused += cost(request.prompt_tokens, self.expected_completion(request))
        return predicted_s

    # -- queues --------------------------------------------------------------------------------------------

    def _move_to_queue(self, adapter: str | None) -> None:
        """Move what waits for an adapter to the queue where it belongs now."""
        if adapter is not None:
            self.backlog.move(adapter, self._queue_of(adapter))

    def _queue_of(self, adapter: str | None) -> str:
        if adapter is None:
            return NO_SLOT_NEEDED
        for engine in self.engines:
            if engine.holds(adapter):
                return WITH_SLOT
        return WITHOUT_SLOT

"""What waits for one base model of a pool, what runs where, and who is next? Settles nothing.

Engines of one pool with one base model are peers: they alone can take one another's requests, so they alone
are compared with one another, and only who waits for them competes. An engine of another model says nothing
of them, even in the same pool, or on the same replica.

The dispatcher tells a group what happens. It keeps three things in step: the backlog's lines with the slots
that adapters hold, the fair counters with what was granted, and the forecast with what was done.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from fleet.types import Band, Pool, SchedulerSettings, Slo, Tenant
from routing.scheduling.backlog import BANDS, Backlog
from routing.scheduling.bands import BandGuard
from routing.scheduling.fairness import VirtualCounters, cost
from routing.scheduling.filters import Hold, has_room, leaves_to
from routing.scheduling.floods.detection import Room, Shares
from routing.scheduling.forecast import Ahead, Capacity
from routing.scheduling.health.health import WITNESSES, outliers
from routing.scheduling.leases import SlotHolders, SlotNeed, clear_slot
from routing.scheduling.locality import spares_read
from routing.scheduling.profile import Pick, Profile
from routing.scheduling.replica_figures import replica_report
from routing.scheduling.report import LaneReport, PoolReport, TenantReport
from routing.scheduling.state import Engine
from routing.scheduling.tickets import Ticket
from routing.types import Request

SMOOTHING = 0.1  # weight of the newest request in a tenant's running mean
LOOKED_AT = 16  # of the adapters that need a slot: for one that is in memory, and when slots are cleared
FIRST_COMPLETION_TOKENS = 64.0  # until a tenant has been seen
# Lines of the backlog.
ANYWHERE = "anywhere"  # what needs no slot
NEEDING = "needing"  # adapters that hold no slot on any engine
HOLDING = "holding"  # adapters that hold a slot on some engine
# What waits in one line or place: its lead, the further lead of what is in memory, whether it takes a slot
# that nobody was promised; then key, tenant and the first of each flow, best first.
Candidates = tuple[float, float, bool, Iterable[tuple[float, str, Iterable[Ticket]]]]


class Group:
    """Engines of one pool with one base model, what waits for them, and their tenants' service."""

    def __init__(
        self,
        pool: Pool,
        base_model: str,
        tenants: Mapping[str, Tenant],
        settings: SchedulerSettings,
        profile: Profile,
        *,
        callers: int,
    ) -> None:
        """`callers` is how many tenants may ask for the base model, or an adapter of it."""
        self.pool = pool.name
        self.base_model = base_model
        self.slo: Slo = pool.slo
        self.engines: list[Engine] = []
        self.ranks = {name: tenants[name].band.rank for name in pool.tenants}
        self.weights = {name: tenants[name].weight for name in pool.tenants}
        self.counters = VirtualCounters(self.weights, self.ranks)
        self.backlog = Backlog[Ticket](
            lambda ticket: ticket.request,
            band_rank=self.ranks,
            service=self.counters.__getitem__,
            aging_tokens_per_s=settings.aging_tokens_per_s,
        )
        self.shares = Shares(self.weights, self.ranks, settings.burst_share)
        self._witnesses = max(1, min(WITNESSES, callers))
        self.tickets: Counter[str] = Counter()  # tenant -> tickets, waiting or running
        self.mean_completion_tokens = dict.fromkeys(pool.tenants, FIRST_COMPLETION_TOKENS)
        self._settings = settings
        self._profile = profile
        self._guard = BandGuard(BANDS, settings.lower_band_share)
        self._work = Capacity()  # in prices
        self._turns = Capacity()  # in slots that were given to somebody who waited
        self._queued_work: dict[str, float] = {}  # tenant -> price of what waits
        self._queued_work_by_band = [0.0] * BANDS
        self._waiting_weight = [0.0] * BANDS  # of tenants that have something waiting

    # -- who belongs to it ---------------------------------------------------------------------------------

    def join(self, engine: Engine) -> None:
        """Take an engine in."""
        engine.shares = self.shares
        engine.health.witnesses = self._witnesses
        self.engines.append(engine)
        for adapter in engine.held:
            self._stand(adapter)

    def leave(self, engine: Engine) -> None:
        """Let an engine go: nothing of it counts any more but what it runs, until that ends."""
        held = tuple(engine.held)
        engine.ready = False
        engine.forget_residency()
        self.engines = [other for other in self.engines if other is not engine]
        self.backlog.forget(engine.name)
        for adapter in held:
            self._stand(adapter)

    def longest_prompt(self) -> tuple[int, int]:
        """Most tokens of a prompt, and most characters of a token, as the engines say; or 0."""
        for engine in self.engines:
            if engine.max_model_len:
                return engine.max_model_len, engine.chars_per_token
        return 0, 0

    # -- what happens --------------------------------------------------------------------------------------

    def enter(self, ticket: Ticket) -> None:
        """Count a ticket that was admitted. Where nothing of its tenant waits, it has saved up nothing."""
        tenant = ticket.request.target.tenant
        self.shares.saw(tenant, ticket.request.arrived_s)
        if not self.backlog.count(tenant):
            self.counters.lift(tenant)
            self.backlog.touch(tenant)
        self.tickets[tenant] += 1
        ticket.estimate_tokens = cost(ticket.request.prompt_tokens, self.expected_completion(ticket.request))

    def end(self, ticket: Ticket, tokens: float, completion_tokens: int | None) -> None:
        """Take out a ticket that ended after using so much, and learn from one that was completed."""
        tenant = ticket.request.target.tenant
        self.tickets[tenant] -= 1
        if not self.tickets[tenant]:
            del self.tickets[tenant]
        self._work.add(tokens)
        self.counters.correct(tenant, tokens - ticket.charged_tokens)
        self.backlog.touch(tenant)
        if completion_tokens is not None:
            mean = self.mean_completion_tokens[tenant]
            by_sequence = completion_tokens / ticket.request.sequences
            self.mean_completion_tokens[tenant] = mean + SMOOTHING * (by_sequence - mean)

    def enqueue(self, ticket: Ticket, why: Hold) -> None:
        """Let a ticket wait."""
        target = ticket.request.target
        ticket.held = why
        self.backlog.push(ticket, lambda: self._line(target.adapter_id))
        tenant, rank = target.tenant, self.ranks[target.tenant]
        if tenant not in self._queued_work:
            self._waiting_weight[rank] += self.weights[tenant]
        self._queued_work[tenant] = self._queued_work.get(tenant, 0.0) + ticket.estimate_tokens
        self._queued_work_by_band[rank] += ticket.estimate_tokens

    def dequeue(self, ticket: Ticket) -> bool:
        """Take a ticket out of the queue; whether it was there."""
        if not self.backlog.remove(ticket):
            return False
        tenant = ticket.request.target.tenant
        rank = self.ranks[tenant]
        self._queued_work[tenant] -= ticket.estimate_tokens
        self._queued_work_by_band[rank] -= ticket.estimate_tokens
        if not self.backlog.count(tenant):  # what rounding has left goes too
            del self._queued_work[tenant]
            self._waiting_weight[rank] -= self.weights[tenant]
        if not self.backlog.in_band(rank):
            self._queued_work_by_band[rank] = self._waiting_weight[rank] = 0.0
        return True

    def grant(self, ticket: Ticket, pick: Pick, now_s: float, *, waited: bool) -> None:
        """Give a ticket its engine, and charge it once."""
        request, engine = ticket.request, pick.engine
        tenant = request.target.tenant
        line = self._line(request.target.adapter_id)
        ticket.reserved_tokens = request.prompt_tokens + int(self.expected_completion(request))
        new_lease = engine.acquire(request, ticket.reserved_tokens, now_s)
        ticket.engine, ticket.granted_s, ticket.picked = engine, now_s, pick.reason
        ticket.begin_share(engine)
        ticket.period = engine.health.began(now_s)
        engine.trusted = engine.trusted and engine.health.allows(now_s)
        if ticket.is_hedge:
            pass  # the operator's choice, not the tenant's
        elif not ticket.charged_tokens:
            ticket.charged_tokens = ticket.estimate_tokens
            self.counters.serve(tenant, ticket.charged_tokens)
        if waited:
            waiting = [self.backlog.in_band(rank) for rank in range(BANDS)]
            self._guard.granted(self.ranks[tenant], waiting)
            self._turns.add(float(new_lease))
        self.backlog.granted(tenant, (line, engine.name), now_s)
        self.backlog.touch(tenant)
        self.shares.began(tenant, request.sequences, slot=new_lease)
        if new_lease:
            self._stand(request.target.adapter_id)
            engine.forget_oldest()

    def release(self, ticket: Ticket, now_s: float) -> Engine:
        """Take back what a ticket holds. Raises `RuntimeError` where it holds nothing."""
        engine, ticket.engine = ticket.engine, None
        if engine is None:
            raise RuntimeError("a ticket without an engine holds no capacity")
        self.shares.ended(ticket.request.target.tenant, ticket.request.sequences)
        lease = engine.leases.get(ticket.request.target.adapter_id or "")
        ended = engine.release(ticket.request, ticket.reserved_tokens, now_s)
        ticket.end_share(engine, lease)
        if ended and lease is not None:
            self.shares.gave(lease.tenant)
            self._stand(ticket.request.target.adapter_id)
        return engine

    def judge(self, now_s: float) -> None:
        """Let every engine's health decide what it may be given.

        Where no breaker lets anything through, all are trusted (Envoy's panic mode): an engine that fails may
        answer the next request, one that is not asked never does.
        """
        taking = [engine for engine in self.engines if engine.accepts]
        panic = not any(engine.health.allows(now_s) for engine in taking)
        for engine in self.engines:
            engine.trusted = panic or engine.health.allows(now_s)
            engine.share = 1.0 if panic else engine.health.share(now_s)

    def compare(self, now_s: float) -> None:
        """Find the engines that are much slower than their peers."""
        slow = outliers((engine.health for engine in self.engines if engine.accepts), now_s)
        for engine in self.engines:
            engine.health.outlying = engine.name in slow

    def pins_changed(self, before: frozenset[str], engine: Engine) -> None:
        """Stand lanes anew whose adapters an engine has pinned, or no more; `before`: it had."""
        for adapter in before ^ engine.pinned:
            self._stand(adapter)

    # -- who is next ---------------------------------------------------------------------------------------

    def pick(self, request: Request) -> Pick | Hold:
        """Choose the engine for a request that has just come, or say why it must wait.

        Whatever waits cannot run now, or it would: only its own flow may a request not overtake.
        """
        if self.backlog.has_flow(request):
            return Hold.BEHIND
        found = self._profile.pick(self.engines, request, self._settings.load_slack)
        if isinstance(found, Pick) and self._spares_read(found.engine, request, request.arrived_s):
            return Hold.SPARES_READ
        return found

    def _spares_read(self, engine: Engine, request: Request, now_s: float) -> bool:
        return spares_read(engine, self.engines, request, now_s, self._settings.read_wait_s)

    def next_for(self, engine: Engine, now_s: float) -> Ticket | None:
        """Choose what should run next on an engine that has room; None where nothing that waits can."""
        if not engine.accepts or not engine.trusted or engine.sequences >= engine.capacity:
            return None
        for rank in self._guard.order():
            if not self.backlog.in_band(rank):
                continue
            ticket, may_go_on = self._best(engine, rank, now_s)
            if ticket is not None or not may_go_on:
                return ticket
        return None

    def _best(self, engine: Engine, rank: int, now_s: float) -> tuple[Ticket | None, bool]:
        """The best ticket of a band, and whether lower bands may be asked where there is none."""
        best, best_key, flooding = None, math.inf, self.shares.flooding
        for lead, in_memory, takes_slot, tenants in self._candidates(engine, rank):
            looked_at = 0
            for key, tenant, heads in tenants:
                least = key - lead - in_memory
                if least >= best_key or looked_at >= LOOKED_AT:
                    break
                if tenant in flooding and not leaves_to(engine, tenant, takes_slot=takes_slot):
                    continue
                for ticket in heads:
                    at = least if ticket.request.target.adapter_id in engine.resident else key - lead
                    if at < best_key and self._fits(engine, ticket.request, now_s):
                        best, best_key = ticket, at
                    elif at < best_key and self._holds_back(engine, ticket, now_s):
                        return None, False
                    looked_at += best is not None
                    if least >= best_key or looked_at >= LOOKED_AT:
                        break
        return best, True

    def _candidates(self, engine: Engine, rank: int) -> Iterator[Candidates]:
        """Give what could run on an engine."""
        backlog, bonus = self.backlog, self._settings.locality_bonus_tokens
        promised = engine.promised if engine.free_slots == 1 else None
        if promised is not None:
            yield math.inf, 0.0, False, backlog.in_lanes((promised,), engine.name, rank)
        yield bonus, 0.0, False, backlog.in_lanes(engine.held, engine.name, rank)
        yield bonus, 0.0, False, backlog.in_order(ANYWHERE, rank)
        if engine.free_slots > 0 and promised is None:
            # What is in memory leads like what has a slot: a move costs little, and a read from disk stalls
            # all that the engine runs. A second slot for an adapter that runs elsewhere has to be worth it.
            yield 0.0, bonus, True, backlog.in_order(NEEDING, rank)
            yield -bonus, 0.0, True, backlog.in_order(HOLDING, rank)

    def _fits(self, engine: Engine, request: Request, now_s: float) -> bool:
        return self._profile.fits(engine, request) and not self._spares_read(engine, request, now_s)

    def _holds_back(self, engine: Engine, ticket: Ticket, now_s: float) -> bool:
        """Whether an engine must be left to run empty for a wide request that has waited long enough."""
        request = ticket.request
        if request.sequences == 1 or now_s - request.arrived_s < self._settings.slot_wait_s:
            return False
        others = (filter_ for filter_, _ in self._profile.filters if filter_ is not has_room)
        return not has_room(engine, request) and all(passes(engine, request) for passes in others)

    def clear_slots(self, now_s: float) -> list[tuple[Ticket, Engine]]:
        """Begin to clear slots for those that should have one; says for whom and where.

        An engine for which nobody waits whose adapter it has in memory clears one for somebody else.
        """
        begun: list[tuple[Ticket, Engine]] = []
        holders, in_need = self.slot_holders(), self._in_need(now_s)
        for where_in_memory in (True, False):
            for ticket, need in in_need:
                engine = self._clear_slot(need, holders, where_in_memory=where_in_memory)
                if engine is not None:
                    begun.append((ticket, engine))
                    holders = self.slot_holders()
        return begun

    def clear_slot_for(self, ticket: Ticket, now_s: float) -> Engine | None:
        """Begin to clear a slot for a ticket; None where it must wait, or has one promised already.

        While an engine that has its adapter in memory clears another slot, it waits: it may be next there.
        """
        if all(engine.clearing is not None for engine in self.engines):
            return None
        adapter, holders = ticket.request.target.adapter_id, self.slot_holders()
        need = self._need(ticket, now_s)
        engine = self._clear_slot(need, holders, where_in_memory=True)
        in_memory = [engine for engine in self.engines if adapter in engine.resident]
        if engine is None and in_memory and not any(engine.clearing for engine in in_memory):
            engine = self._clear_slot(need, holders, where_in_memory=False)
        return engine

    def slot_holders(self) -> SlotHolders:
        """Say who holds how many slots; one that is being cleared is whose it will be."""
        held = dict(self.shares.held)
        for engine in self.engines:
            if engine.clearing is not None:
                tenant, victim = engine.clearing.tenant, engine.leases.get(engine.clearing.victim or "")
                held[tenant] = held.get(tenant, 0) + 1
                if victim is not None:
                    held[victim.tenant] = held.get(victim.tenant, 0) - 1
        return SlotHolders(held, self.weights, self.ranks, self.shares.flooding)

    def _clear_slot(self, need: SlotNeed, holders: SlotHolders, *, where_in_memory: bool) -> Engine | None:
        if self.shares.keeps_room_from(need.request.target.tenant):
            return None  # a slot that it could not use would be kept from everybody
        return clear_slot(
            self.engines,
            need,
            holders,
            slot_wait_s=self._settings.slot_wait_s,
            where_in_memory=where_in_memory,
        )

    def _need(self, ticket: Ticket, now_s: float) -> SlotNeed:
        request = ticket.request
        return SlotNeed(
            request,
            now_s - request.arrived_s,
            queued=self.backlog.in_lane(request.target.engine_model),
            floods=self.shares.keeps_slot_from(request.target.tenant),
        )

    def _in_need(self, now_s: float) -> list[tuple[Ticket, SlotNeed]]:
        """Heads of what needs a slot, and of what runs elsewhere, has not enough of it and waits for long.

        Of those whose keys are close to the best of their band, first those who lose the most.
        """
        long_s, close = self._settings.slot_wait_s, self._settings.locality_bonus_tokens
        best: dict[int, float] = {}
        needing = []
        for rank, key, ticket in self._heads(NEEDING):
            need = self._need(ticket, now_s)
            is_close = key <= best.setdefault(rank, key) + close
            needing.append((rank, not is_close, -need.will_have_lost_s if is_close else 0.0, ticket, need))
        needing.sort(key=lambda head: head[:3])  # those that are not close stay as they were
        holding = [(ticket, self._need(ticket, now_s)) for _, _, ticket in self._heads(HOLDING)]
        hot = [(ticket, need) for ticket, need in holding if need.waited_s >= long_s]
        return [*(head[3:] for head in needing), *hot]

    def _heads(self, line: str) -> Iterator[tuple[int, float, Ticket]]:
        """Give (band, key, ticket) of the first in a line, best first: as many as slots are cleared for."""
        bands = ((rank, self.backlog.in_order(line, rank)) for rank in range(BANDS))
        heads = (
            (rank, key, ticket) for rank, tenants in bands for key, _, flows in tenants for ticket in flows
        )
        return islice(heads, max(LOOKED_AT, 2 * len(self.engines)))

    def end_stale_clearing(self, engine: Engine) -> bool:
        """Stop holding a victim back for somebody who no longer waits, or may not run; whether one was."""
        clearing = engine.clearing
        if clearing is None:
            return False
        if self.backlog.waits_for(clearing.waiting) and not self.shares.keeps_room_from(clearing.tenant):
            return False
        engine.clearing = None
        return True

    # -- how long it takes ---------------------------------------------------------------------------------

    def observe(self, now_s: float) -> None:
        """Let the forecast see whether somebody waits; to be called several times a second.

        What is done while no engine is ready says nothing of what they do.
        """
        taking = [engine for engine in self.engines if engine.accepts]
        self._work.observe(now_s, backlogged=bool(self.backlog) and bool(taking))
        room = Room(sum(r.slots for r in taking), sum(r.capacity for r in taking))
        self.shares.refresh(now_s, self.backlog.counts, room)
        self._turns.observe(now_s, backlogged=self.backlog.waits_in(NEEDING) and bool(taking))

    def predicted_wait_s(self, request: Request) -> float | None:
        """Seconds until a request that cannot run now would begin; None while nothing is known."""
        waits = (self._wait_for_work_s(request), self._wait_for_slot_s(request))
        return max((wait_s for wait_s in waits if wait_s is not None), default=None)

    def _wait_for_slot_s(self, request: Request) -> float | None:
        """Slots go to waiting tenants in turn, one lane after the other."""
        target = request.target
        if target.adapter_id is None or any(engine.holds(target.adapter_id) for engine in self.engines):
            return None
        line, rank, backlog = NEEDING, self.ranks[target.tenant], self.backlog
        own = backlog.flows_in(line, rank, target.tenant)
        higher = sum(backlog.flows_in(line, other) for other in range(rank))
        ahead = min(backlog.flows_in(line, rank), backlog.tenants_in(line, rank) * (own + 1))
        return self._turns.wait_s(higher + ahead)

    def _wait_for_work_s(self, request: Request) -> float | None:
        tenant = request.target.tenant
        rank, weight = self.ranks[tenant], self.weights[tenant]
        claimed = self._waiting_weight[rank] + (0.0 if tenant in self._queued_work else weight)
        work = Ahead(
            higher=sum(self._queued_work_by_band[:rank]),
            band=self._queued_work_by_band[rank],
            own=self._queued_work.get(tenant, 0.0),
            share=weight / claimed,
            itself=cost(request.prompt_tokens, self.expected_completion(request)),
        )
        return self._work.wait_s(work.total)

    def expected_completion(self, request: Request) -> float:
        """Completion tokens a request is expected to need, all sequences together."""
        expected = self.mean_completion_tokens[request.target.tenant]
        if request.max_completion_tokens is not None:
            expected = min(expected, request.max_completion_tokens)
        return expected * request.sequences

    def sheds(self, request: Request) -> float | None:
        """Predicted wait of a request that must wait, where that would miss the objective; else None.

        The high band is not shed: its queue is bounded by its caps alone.
        """
        if self.slo.ttft_s is None or self.ranks[request.target.tenant] == Band.HIGH.rank:
            return None
        predicted_s = self.predicted_wait_s(request)
        return predicted_s if predicted_s is not None and predicted_s > self.slo.ttft_s else None

    # -- for operators -------------------------------------------------------------------------------------

    def report(self, now_s: float) -> PoolReport:
        """Copy everything that explains what this group does."""
        held = Counter(lease.tenant for engine in self.engines for lease in engine.leases.values())
        lanes = (self._lane_report(model, now_s) for model in self.backlog.lanes())
        return PoolReport(
            name=self.pool,
            base_model=self.base_model,
            ttft_slo_s=self.slo.ttft_s,
            itl_slo_s=self.slo.itl_s,
            queued_by_band={band.value: self.backlog.in_band(band.rank) for band in Band},
            work_per_s=self._work.per_s,
            slots_per_s=self._turns.per_s,
            replicas=tuple(replica_report(engine, now_s) for engine in self.engines),
            tenants=tuple(self._tenant_report(name, held[name]) for name in self.tickets),
            lanes=tuple(sorted(lanes, key=lambda lane: -lane.oldest_s)),
        )

    def _tenant_report(self, name: str, slots: int) -> TenantReport:
        return TenantReport(
            name=name,
            band=next(band.value for band in Band if band.rank == self.ranks[name]),
            weight=self.weights[name],
            service_tokens=self.counters[name],
            queued=self.backlog.count(name),
            tickets=self.tickets[name],
            slots=slots,
            floods=name in self.shares.flooding,
            mean_completion_tokens=self.mean_completion_tokens[name],
        )

    def _lane_report(self, engine_model: str, now_s: float) -> LaneReport:
        oldest = min(self.backlog.heads(engine_model), key=lambda ticket: ticket.request.arrived_s)
        waited_s = now_s - oldest.request.arrived_s
        return LaneReport(engine_model, self.backlog.in_lane(engine_model), waited_s, oldest.held or "")

    # -- lines ---------------------------------------------------------------------------------------------

    def _stand(self, adapter: str | None) -> None:
        """Stand what waits for an adapter where it belongs now."""
        if adapter is not None:
            self.backlog.move(adapter, self._line(adapter))

    def _line(self, adapter: str | None) -> str:
        if adapter is None:
            return ANYWHERE
        for engine in self.engines:
            if engine.holds(adapter):
                return HOLDING
        return NEEDING

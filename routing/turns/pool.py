"""One pool whose models take turns: what the rule is told of it, and what it decides, carried out.

It decides anew whenever a request begins to wait, a model has run empty or a switch has ended, and some times
a second while somebody waits. While all is quiet it looks once a second.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from itertools import islice
from typing import Any

from engines.health import EngineState
from fleet.current import CurrentFleet
from fleet.types import Pool, Strategy
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.tickets import Ticket, share_switch
from routing.turns.costs import Costs
from routing.turns.figures import PoolFigures
from routing.turns.forecast import until_awake_s
from routing.turns.report import NOTHING_KNOWN, Absence
from routing.turns.rule import Plan, Switch, Why, decide
from routing.turns.seats import HostSeats, Seat, arranged
from routing.turns.switching import DoesNotLoad, HostSilent, NotAwake, Switching
from routing.turns.timeline import Timeline
from routing.turns.view import Demand, Host, TurnSettings, Waiting, turn_settings
from routing.turns.worth import BAND_WORTH, fair_worth

LOOKED_AT = 64  # waiting requests of a model; more make it worth no more
SETTLED_S = 3.0  # in which the last probe of a model that was just stopped may still say that it failed
WAITING_TICK_S, QUIET_TICK_S = 0.25, 1.0
log = logging.getLogger("tenantry.turns")


class PoolTurns:
    """The turns of one pool."""

    def __init__(
        self,
        name: str,
        fleet: CurrentFleet,
        dispatcher: Dispatcher,
        switching: Switching,
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self.hosts: dict[str, HostSeats] = {}
        self.figures = PoolFigures()
        self.costs = Costs()
        self.held: dict[str, Why] = {}  # models that have to wait
        self.limit_s = 0.0
        self.wanted = set(fleet.now.pools[name].residency.preload)
        self.pins: dict[str, bool] = {}  # by an operator, over those of the fleet
        self.to_sleep: set[Seat] = set()  # by an operator, or to come back with other files
        self.timeline = Timeline(name)
        self.holds = self.timeline.held  # times that models had to wait, by model and reason
        self.switches: Counter[tuple[str, str, str, str]] = Counter()  # model, way, cause, how it ended
        self.switch_s: dict[tuple[str, str], float] = {}  # by model and way
        self._fleet = fleet
        self._begun = fleet.now.base_models
        self._dispatcher = dispatcher
        self._switching = switching
        self._clock = clock
        self._due = asyncio.Event()
        self._last_turn_s: dict[str, float] = {}
        # Told of each model that came, or whose engine did not start: with which files, and in which words.
        self.outcome: Callable[[str, str, str], None] = lambda model, source, words: None
        self.absence: Callable[[str], Absence] = lambda model: NOTHING_KNOWN
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def pool(self) -> Pool:
        """The pool as it is now."""
        return self._fleet.now.pools[self.name]

    def is_pinned(self, model: str) -> bool:
        """Whether a model is to be awake all the time."""
        return self.pins.get(model, model in self.pool.residency.pinned)

    def seats(self) -> Iterator[tuple[HostSeats, Seat]]:
        """Every model at every host."""
        return ((host, seat) for host in self.hosts.values() for seat in host.seats.values())

    def used(self, replica: str, now_s: float) -> None:
        """Note that a replica has run something."""
        for _, seat in self.seats():
            if seat.replica.name == replica:
                seat.used_s = now_s

    def forget(self, model: str) -> None:
        """Know nothing more of a model that has left; another one may get its name."""
        self.pins.pop(model, None)
        self.wanted.discard(model)
        self._last_turn_s.pop(model, None)
        self.costs.forget(model)

    def look(self) -> None:
        """Decide anew, soon."""
        self._due.set()

    async def run(self) -> None:
        """Decide for ever."""
        while True:
            self._due.clear()
            try:
                self.decide()
            except Exception:
                log.exception("pool %s: the turns could not be decided", self.name)
            quiet = not self.held and not self.to_sleep
            try:
                async with asyncio.timeout(QUIET_TICK_S if quiet else WAITING_TICK_S):
                    await self._due.wait()
            except TimeoutError:
                pass

    async def stop(self) -> None:
        """Leave alone what is under way; hosts end it by themselves."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- deciding ------------------------------------------------------------------------------------------

    def decide(self) -> None:
        """Look at the hosts and at who waits, and do what the rule says."""
        if self.name not in self._fleet.now.pools:
            return
        now_s = self._clock()
        self.take_hosts(now_s)
        for host, seat in self.seats():
            self._take_seat(host, seat, now_s)
        plan = decide(now_s, self.view(now_s), self.demands(now_s), self.settings())
        for switch in plan.switches:
            self._begin(switch, now_s)
        self._end_turns(plan, now_s)
        for name, model in plan.sleeps:
            self._put_to_sleep(self.hosts[name], self.hosts[name].seats[model], Why.UNUSED)
        for model, why in plan.held:
            if self.held.get(model) is not why:
                self.timeline.hold(model, why)
        self.held, self.limit_s = dict(plan.held), plan.limit_s

    def _take_seat(self, host: HostSeats, seat: Seat, now_s: float) -> None:
        """Follow what has become of a model at a host."""
        seat.take_source()
        self._take_engine(host, seat, now_s)
        self._take_failure(host, seat, now_s)
        if seat.is_outdated and seat.is_open:  # it comes again with other files, once what it runs has ended
            self.to_sleep.add(seat)
            self.wanted.add(seat.model)
        barred = seat.is_quarantined or (seat.is_absent and self.absence(seat.model).for_good)
        self._dispatcher.set_asleep(seat.replica.name, seat.replica.asleep, barred=barred)

    def take_hosts(self, now_s: float) -> None:
        """Follow the replicas that take part; the place of one that has left is free once nothing is left."""
        present = [r for r in self._dispatcher.replicas.values() if r.pool == self.name]
        before = {seat.replica: seat for _, seat in self.seats()}
        if before.keys() == set(present):
            return
        self.hosts = arranged(present, self.hosts, before, now_s, self._begun)
        for replica in before.keys() - set(present):
            self._let_go(before[replica])
        self.to_sleep = {seat for seat in self.to_sleep if not seat.replica.left}

    def _let_go(self, seat: Seat) -> None:
        host = self.hosts.get(seat.replica.host)
        if host is not None and seat.is_up:
            host.leaving.add(seat.model)
            self._task(self._see_off(host, seat))

    def _take_engine(self, host: HostSeats, seat: Seat, now_s: float) -> None:
        """Take over what an engine has done without an order of this gateway, or since the last one."""
        engine, told = seat.replica.engine, seat.told
        if engine.sequences:
            seat.used_s = now_s
        if seat.model in (host.coming, host.going) or seat.replica.restarting:
            return
        if seat.is_up:
            if told is EngineState.STOPPED and not engine.ready:  # its host has started anew
                self._gone(seat, now_s)
            elif not seat.is_open and seat.shut_s is None and not host.is_busy:  # one that goes is there yet
                self._open(seat, now_s)
        elif told is EngineState.STARTING and not host.is_busy:
            host.coming, host.began_s = seat.model, now_s
            self._task(self._bring(host, seat, None, Why.WANTED, ordered=False))

    def _take_failure(self, host: HostSeats, seat: Seat, now_s: float) -> None:
        """Free the place of an engine that has failed by itself."""
        if seat.told is not EngineState.FAILED or host.is_busy or seat.replica.restarting:
            return
        if seat.is_up or now_s - seat.since_s > SETTLED_S:
            self._gone(seat, now_s)
            reason = seat.replica.engine.reason or "its engine does not start"
            seat.failed(reason, now_s)
            host.going = seat.model
            self.timeline.add(host.name, seat.model, None, "failed", reason)
            self._task(self._stop(host, seat))

    def _end_turns(self, plan: Plan, now_s: float) -> None:
        """End and reopen turns as the rule says."""
        ends = {(end.host, end.model): end for end in plan.ends}
        for host, seat in self.seats():
            if seat.model in (host.coming, host.going):
                continue
            end, sleeps = ends.get((host.name, seat.model)), seat in self.to_sleep
            is_over = end is not None or sleeps
            if is_over and seat.is_open:
                self._close(seat, now_s)
                self.timeline.drains(host.name, seat.model, end, seat.replica.engine.sequences)
                self._task(self._switching.prepare(host, None if end is None else end.by))
            elif not is_over and seat.shut_s is not None:
                self._open(seat, now_s)
                self.timeline.add(host.name, seat.model, None, "goes_on", "nobody needs its place any more")
            if seat in self.to_sleep and not host.is_busy and not seat.replica.engine.sequences:
                self._put_to_sleep(host, seat, Why.WANTED)

    def _open(self, seat: Seat, now_s: float) -> None:
        """Let a model take requests."""
        if seat.shut_s is None:
            seat.since_s = now_s
        seat.shut_s = None
        seat.counts_from_s = seat.counts_from_s or now_s
        self.wanted.discard(seat.model)
        self._dispatcher.set_asleep(seat.replica.name, False)

    def _close(self, seat: Seat, now_s: float) -> None:
        """Let a model take nothing new."""
        if seat.is_open:
            self._last_turn_s[seat.model] = seat.shut_s = now_s
            self._dispatcher.set_asleep(seat.replica.name, True)

    def _gone(self, seat: Seat, now_s: float) -> None:
        """Note that a model has gone; what it ran has ended."""
        self._close(seat, now_s)
        if seat.shut_s is not None:
            self.figures.drained(now_s - seat.shut_s)
        if seat.counts_from_s is not None:
            seat.awake_s += now_s - seat.counts_from_s
        seat.shut_s, seat.counts_from_s, seat.since_s = None, None, now_s
        self.to_sleep.discard(seat)

    # -- acting --------------------------------------------------------------------------------------------

    def _begin(self, switch: Switch, now_s: float) -> None:
        host = self.hosts[switch.host]
        goes = None if switch.instead_of is None else host.seats[switch.instead_of]
        if goes is not None:
            self._gone(goes, now_s)
        host.coming, host.began_s = switch.model, now_s
        self.timeline.add(host.name, switch.model, switch.instead_of, "begins", switch.why)
        self._task(self._bring(host, host.seats[switch.model], goes, switch.why))

    async def _bring(
        self, host: HostSeats, seat: Seat, goes: Seat | None, why: Why, *, ordered: bool = True
    ) -> None:
        began_s, gone = self._clock(), None if goes is None else goes.model
        source = seat.source
        try:
            await self._switching.bring(seat, goes, ordered=ordered)
        except NotAwake as error:
            now_s = self._clock()
            self.to_sleep.discard(seat)
            if isinstance(error, HostSilent):
                self._switching.forget(host)
            else:
                seat.failed(str(error), now_s)
                host.failed(seat.model, str(error), now_s)
            if seat.is_quarantined:
                self.wanted.discard(seat.model)
            self._count(seat, why, now_s - began_s, failed=True)
            self.timeline.add(host.name, seat.model, gone, "failed", str(error), now_s - began_s)
            if isinstance(error, DoesNotLoad):
                self.outcome(seat.model, source, str(error))
        else:
            now_s = self._clock()
            seat.forgive()
            self.costs.learn(host.name, seat.model, now_s - began_s, went=gone, way=seat.came_by)
            self._count(seat, why, now_s - began_s)
            self.timeline.add(host.name, seat.model, gone, "awake", why, now_s - began_s, seat.came_by)
            self._open(seat, now_s)
            self.outcome(seat.model, source, "")
        finally:
            host.coming = None
            self.look()

    def _put_to_sleep(self, host: HostSeats, seat: Seat, why: Why) -> None:
        self._gone(seat, self._clock())
        host.going = seat.model
        self.timeline.add(host.name, seat.model, None, "sleeps", why)
        self._task(self._stop(host, seat))

    async def _see_off(self, host: HostSeats, seat: Seat) -> None:
        try:
            await self._switching.has_left(seat)
        finally:
            host.leaving.discard(seat.model)
            self.look()

    async def _stop(self, host: HostSeats, seat: Seat) -> None:
        try:
            await self._switching.stop(seat)
        finally:
            host.going = None
            self.look()

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- what the rule is told -----------------------------------------------------------------------------

    def settings(self) -> TurnSettings:
        """What counts for turns now."""
        return turn_settings(self.pool, self.figures.answer_s, self.figures.longest_drain_s)

    def view(self, now_s: float, retried: str = "") -> list[Host]:
        """The hosts as the rule sees them; with one model as if it had not failed."""
        pool = self.pool
        allowed = 1 if pool.strategy is Strategy.SWAP else pool.awake
        return [
            host.seen(host.most_awake(allowed, now_s), self.costs, self.figures.answer_s, now_s, retried)
            for host in self.hosts.values()
        ]

    def demands(self, now_s: float) -> list[Demand]:
        """Who waits for which model."""
        return [
            Demand(
                model,
                tuple(self._waiting(model, now_s)),
                self.figures.rate(model, now_s),
                self._last_turn_s.get(model, -math.inf),
                self.is_pinned(model),
                model in self.wanted,
            )
            for model in self.pool.base_models
        ]

    def _waiting(self, model: str, now_s: float) -> Iterator[Waiting]:
        tenants, served = self._fleet.now.tenants, self.figures.served
        for ticket in self.first_waiting(model):
            tenant = tenants.get(ticket.request.target.tenant)
            if tenant is not None:
                tokens = served(tenant.name, now_s)
                worth = fair_worth(BAND_WORTH[tenant.band], tenant.weight, tokens)
                yield Waiting(ticket.request.arrived_s, worth)

    def first_waiting(self, model: str) -> list[Ticket]:
        """The oldest of each flow that waits for a model, and some others; the oldest first."""
        backlog = self._dispatcher.groups[self.name, model].backlog
        if not backlog:
            return []
        heads = (ticket for name in backlog.models() for ticket in backlog.heads(name))
        found = dict.fromkeys([*heads, *islice(backlog, LOOKED_AT)])
        return sorted(found, key=lambda ticket: ticket.request.arrived_s)[:LOOKED_AT]

    def until_awake_s(self, model: str, *, retried: bool = False) -> float | None:
        """Seconds until a model is awake, as expected; None where it can come nowhere."""
        now_s = self._clock()
        hosts, settings = self.view(now_s, model if retried else ""), self.settings()
        return until_awake_s(now_s, model, hosts, self._longer_waiting(model), settings)

    def least_s(self, model: str) -> float:
        """Seconds that a model would take if it were its turn now."""
        hosts = self.hosts.values()
        return min((self.costs.expected(h.name, [model], h.awake)[model] for h in hosts), default=0.0)

    def _longer_waiting(self, model: str) -> Iterable[str]:
        """Models that are awake nowhere and wait longer than one."""
        groups = self._dispatcher.groups
        mine = self.first_waiting(model)
        since_s = mine[0].request.arrived_s if mine else math.inf
        for other in self.pool.base_models:
            group = groups[self.name, other]
            waits = bool(group.backlog) and not any(engine.accepts for engine in group.engines)
            if other != model and waits and self.first_waiting(other)[0].request.arrived_s < since_s:
                yield other

    # -- what is told --------------------------------------------------------------------------------------

    def awake_s(self) -> dict[tuple[str, str], float]:
        """Seconds that each model was awake, by host and model."""
        now_s = self._clock()
        return {
            (h.name, m): seat.awake_until(now_s) for h in self.hosts.values() for m, seat in h.seats.items()
        }

    def _count(self, seat: Seat, why: Why, took_s: float, *, failed: bool = False) -> None:
        group = self._dispatcher.groups.get((self.name, seat.model))
        if group is not None:  # else it was retired meanwhile
            share_switch(group.backlog, took_s)
        way = seat.came_by
        self.switches[seat.model, way, why.value, "failed" if failed else "awake"] += 1
        self.switch_s[seat.model, way] = self.switch_s.get((seat.model, way), 0.0) + took_s

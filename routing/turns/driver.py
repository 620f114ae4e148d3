"""The turns of all pools of a gateway: begun, stopped, told of ended requests; what operators see."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fleet.current import CurrentFleet
from fleet.types import Fleet
from routing.errors import Conflict, NotFound
from routing.replicas.client import ReplicaClient
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.state import Replica
from routing.turns.kept import Kept, TurnsMemory
from routing.turns.pool import PoolTurns
from routing.turns.report import Absence, ModelAtHost, TurnEvent, TurnsReport, WakeForecast
from routing.turns.seats import HostSeats, Seat
from routing.turns.switching import Switching
from routing.turns.waking import forecast
from routing.types import Outcome, Record


@dataclass(frozen=True, slots=True)
class ModelForecast:
    """Says of one model when its turn would come."""

    pool: PoolTurns
    model: str

    def until_awake_s(self) -> float | None:
        """Seconds until it is awake; None: it can come nowhere."""
        return self.pool.until_awake_s(self.model)

    def least_s(self) -> float:
        """Seconds that it would take if it were its turn now."""
        return self.pool.least_s(self.model)


class Turns:
    """The pools of a gateway whose models take turns."""

    def __init__(
        self,
        fleet: CurrentFleet,
        dispatcher: Dispatcher,
        clients: Mapping[Replica, ReplicaClient],
        look_at: Callable[[str], None],
        clock: Callable[[], float],
        memory: TurnsMemory | None = None,
    ) -> None:
        """`look_at` has a replica probed at once; `memory` keeps what was learnt.

        Pools come and go with a restart of the gateway alone.
        """
        self.switching = switching = Switching(dispatcher, clients, look_at, clock)
        self.pools = {
            pool.name: PoolTurns(pool.name, fleet, dispatcher, switching, clock)
            for pool in fleet.now.pools.values()
            if pool.strategy.shares_hosts
        }
        self._had = {name: frozenset(pool.pool.base_models) for name, pool in self.pools.items()}
        self._dispatcher = dispatcher
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._kept = Kept(memory) if memory is not None and self.pools else None
        self._tell_groups()
        dispatcher.turn_due = self._look
        fleet.follow(self._take_fleet)

    def start(self) -> None:
        """Begin to decide; needs an event loop."""
        self._tasks = [asyncio.create_task(pool.run()) for pool in self.pools.values()]
        if self._kept is not None:
            self._tasks += [asyncio.create_task(self._kept.restore(pool)) for pool in self.pools.values()]

    async def stop(self) -> None:
        """Decide no more; hosts end by themselves what was begun."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *(p.stop() for p in self.pools.values()), return_exceptions=True)
        if self._kept is not None:
            await self._kept.stop()

    def follow(self, outcome: Callable[[str, str, str], None], absence: Callable[[str], Absence]) -> None:
        """Tell `outcome` of each model that came, or whose engine did not start; ask why one is not here."""
        for pool in self.pools.values():
            pool.outcome, pool.absence = outcome, absence

    def sources(self) -> frozenset[str]:
        """Return where the files are that running engines were given."""
        told = (seat.replica.engine.told for pool in self.pools.values() for _, seat in pool.seats())
        return frozenset(each.place.source for each in told if each is not None and each.place is not None)

    def _tell_groups(self) -> None:
        """Have each group ask when its model's turn would come."""
        for place, group in self._dispatcher.groups.items():
            if place[0] in self.pools and group.turns is None:
                group.turns = ModelForecast(self.pools[place[0]], place[1])

    def _take_fleet(self, fleet: Fleet) -> None:
        self._tell_groups()
        for pool in self.pools.values():
            pool.figures.keep_tenants(fleet.tenants)
            if pool.name in fleet.pools:
                pool.take_hosts(self._clock())
                self._take_models(pool)
            pool.look()

    def _take_models(self, pool: PoolTurns) -> None:
        """Forget models that have left a pool; bring back what is known of those that have come."""
        before, self._had[pool.name] = self._had[pool.name], frozenset(pool.pool.base_models)
        for model in before - self._had[pool.name]:
            pool.forget(model)
            if self._kept is not None:
                self._kept.forget(pool.name, tuple(pool.hosts), model)
        if self._kept is not None:
            self._kept.give(pool)

    def _look(self, pool: str) -> None:
        if pool in self.pools:
            self.pools[pool].look()

    def observe(self, records: Iterable[Record]) -> None:
        """Take over requests that have ended."""
        if not self.pools:
            return
        now_s = self._clock()
        for record in records:
            pool = self.pools.get(record.target.pool)
            if pool is not None:
                completed = record.outcome is Outcome.COMPLETED and record.queue_s is not None
                answer_s = record.total_s - (record.queue_s or 0.0) if completed else None
                tokens = record.prompt_tokens + record.completion_tokens
                target = record.target
                if record.replica is not None:
                    pool.used(record.replica, now_s)
                pool.figures.ended(target.base_model, target.tenant, tokens, answer_s, now_s)

    def wake_if_idle(self, pool: str, model: str) -> None:
        """Have a model come awake where its pool has nothing to do, and no other is to come: for a batch."""
        turns, group = self.pools.get(pool), self._dispatcher.groups.get((pool, model))
        if turns is None or group is None or turns.wanted or any(e.accepts for e in group.engines):
            return
        if self._is_idle(pool) and not any(host.is_busy for host in turns.hosts.values()):
            turns.wanted.add(model)
            turns.look()

    def _is_idle(self, pool: str) -> bool:
        groups = [group for place, group in self._dispatcher.groups.items() if place[0] == pool]
        return not any(group.backlog or any(e.sequences for e in group.engines) for group in groups)

    # -- operators -----------------------------------------------------------------------------------------

    def wake(self, model: str) -> None:
        """Have a model come awake, before all that only wait. Raises `NotFound` and `Conflict`."""
        for pool in self._pools_of(model):
            self._require_resumed(pool, model)
            seats = self._seats(pool, model)
            for seat in seats:
                seat.forgive()
            self._let_stay(pool, model)
            if not any(seat.is_open for seat in seats):
                pool.wanted.add(model)
            pool.look()

    def sleep(self, model: str) -> None:
        """Have a model go to disk once what it runs has ended. Raises `NotFound` and `Conflict`.

        It comes again as soon as requests for it have their turn.
        """
        for pool in self._pools_of(model):
            if pool.is_pinned(model):
                raise Conflict(f"`{model}` is pinned in pool `{pool.name}`; unpin it first.", code="pinned")
            pool.wanted.discard(model)
            for host, seat in pool.seats():
                if seat.model == model and (seat.is_up or host.coming == model):
                    pool.to_sleep.add(seat)
            pool.look()

    def pin(self, model: str, pinned: bool) -> None:
        """Keep a model awake all the time, or let it take turns again. Raises `NotFound` and `Conflict`.

        It counts over the fleet's `residency.pinned`, also when the gateway starts anew.
        """
        for pool in self._pools_of(model):
            if pinned:
                self._require_place(pool, model)
                self._let_stay(pool, model)
            pool.pins[model] = pinned
            if self._kept is not None:
                self._kept.keep_pin(pool.name, model, pinned)
            pool.look()

    def forecast(self, model: str) -> Sequence[WakeForecast]:
        """Say what waking a model would do, pool by pool; changes nothing. Raises as `wake` does."""
        return [self._forecast_in(pool, model) for pool in self._pools_of(model)]

    def _forecast_in(self, pool: PoolTurns, model: str) -> WakeForecast:
        self._require_resumed(pool, model)

        def waiting(other: str) -> int:
            return len(self._dispatcher.groups[pool.name, other].backlog)

        return forecast(pool, model, self._seats(pool, model), self._clock(), waiting)

    def _require_resumed(self, pool: PoolTurns, model: str) -> None:
        """Raise `Conflict` where an operator has drained every replica of a model."""
        seats = self._seats(pool, model)
        if seats and all(seat.replica.draining for seat in seats):
            raise Conflict(f"Every replica of `{model}` is drained; resume one first.", code="drained")

    def _require_place(self, pool: PoolTurns, model: str) -> None:
        """Raise `Conflict` where pinned models would leave no place for the others."""
        pinned = {m for m in pool.pool.base_models if pool.is_pinned(m)} | {model}
        places = sum(host.most_awake for host in pool.view(self._clock()))
        if len(pinned) >= places and len(pinned) < len(pool.pool.base_models):
            raise Conflict(
                f"Pool `{pool.name}` has room for {places} awake at once; with `{model}` pinned the others "
                "could never come. Unpin another one first.",
                code="no_place",
            )

    def _let_stay(self, pool: PoolTurns, model: str) -> None:
        """Have a model whose turn an operator has ended go on, if it has not gone yet."""
        pool.to_sleep -= {seat for seat in self._seats(pool, model) if not seat.is_outdated}

    def _pools_of(self, model: str) -> Sequence[PoolTurns]:
        found = [pool for pool in self.pools.values() if model in pool.pool.base_models]
        if not found:
            raise NotFound(
                f"No model `{model}` takes turns; `tenantry models` lists those that do.",
                code="model_not_found",
            )
        return found

    def _seats(self, pool: PoolTurns, model: str) -> list[Seat]:
        return [host.seats[model] for host in pool.hosts.values() if model in host.seats]

    # -- what is seen --------------------------------------------------------------------------------------

    def report(self) -> TurnsReport:
        """Copy what operators see."""
        timelines = [pool.timeline for pool in self.pools.values()]
        events = (event for timeline in timelines for event in timeline.events)
        holds = (event for timeline in timelines for event in timeline.holds)
        return TurnsReport(tuple(self._models()), _newest_first(events), _newest_first(holds))

    def _models(self) -> Iterator[ModelAtHost]:
        now_s = self._clock()
        for pool in self.pools.values():
            for host, seat in pool.seats():
                yield self._model(pool, host, seat, now_s)

    def _model(self, pool: PoolTurns, host: HostSeats, seat: Seat, now_s: float) -> ModelAtHost:
        waiting = pool.first_waiting(seat.model)
        told = seat.replica.engine.told
        place = told.place if told is not None else None
        since_s = host.began_s if host.coming == seat.model else seat.shut_s or seat.since_s
        return ModelAtHost(
            pool=pool.name,
            host=host.name,
            model=seat.model,
            state=seat.state(host.coming),
            since_s=max(0.0, now_s - since_s),
            running=seat.replica.engine.sequences,
            waiting=len(self._dispatcher.groups[pool.name, seat.model].backlog),
            oldest_s=now_s - waiting[0].request.arrived_s if waiting else 0.0,
            pinned=pool.is_pinned(seat.model),
            held=str(pool.held.get(seat.model, "")),
            cost_s=pool.costs.measured_s(host.name, seat.model, host.awake),
            way=seat.came_by,
            took_s={} if place is None else dict(place.took_s),
            memory_bytes=0 if place is None else place.asleep_bytes if place.asleep else place.memory_bytes,
            awake_s=seat.awake_until(now_s),
            reason=pool.absence(seat.model).words if seat.is_absent else seat.reason,
            resting={} if place is None else dict(place.resting),
        )


def _newest_first(events: Iterable[TurnEvent]) -> tuple[TurnEvent, ...]:
    return tuple(sorted(events, key=lambda event: event.at_s, reverse=True))

"""Restarts the engines of a pool, one replica after the other, so that no request fails.

A replica gets nothing new and what it runs ends; its host restarts the engine, with the settings that its
base model has in the fleet now; once that has passed its self-test and knows its adapters, the replica gets
work again and the next one follows. Meanwhile requests go to the others; where there is none, they wait.
What comes back is treated as after a crash (slow start), but nothing is to blame: no breaker opens, no
adapter gets a strike.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from engines.health import EngineHealth, EngineState
from engines.protocol import EngineOrder
from engines.settings import digest_of
from fleet.current import CurrentFleet
from fleet.types import BaseModel, Fleet
from routing.errors import Conflict, NotFound
from routing.lifecycle.changes import ACTOR
from routing.lifecycle.engines import Engines
from routing.lifecycle.ports import PoolRestart, RestartState, RestartStep, StepState
from routing.lifecycle.registry import Registry
from routing.replicas.client import ReplicaClient, ReplicaSilent
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.state import Engine, Replica

BACK_WITHIN_S = 900.0  # a large model on a slow disk
TAKEN_WITHIN_S = 60.0  # until an engine that is ready has been told of its adapters
POLL_S = 0.1
log = logging.getLogger("tenantry.lifecycle")


class _Stuck(Exception):
    """A replica could not be restarted; says why."""


class _Left(Exception):
    """A replica takes part no more, or its turn has ended: it comes again with the fleet's settings."""


class RollingRestarts:
    """The restarts of a gateway's pools; each runs to its end whether somebody looks or not."""

    def __init__(
        self,
        fleet: CurrentFleet,
        dispatcher: Dispatcher,
        clients: Mapping[Replica, ReplicaClient],
        engines: Engines,
        registry: Registry,
    ) -> None:
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._clients = clients
        self._engines = engines
        self._registry = registry
        self._last: dict[str, PoolRestart] = {}  # by pool
        self._running: dict[str, asyncio.Task[None]] = {}

    def of(self, pool: str) -> PoolRestart:
        """Return a pool's last restart. Raises `NotFound` where there was none since the gateway started."""
        if pool not in self._last:
            raise NotFound(f"Pool `{pool}` was not restarted since the gateway started.", code="no_restart")
        return self._last[pool]

    def begin(self, pool: str, *, replica: str | None, drain_s: float | None) -> PoolRestart:
        """Begin to restart a pool's replicas, or one of them; returns at once.

        One that is on disk, or away, is left alone: its next engine is another one anyway. A replica has
        `drain_s` for what it runs, without that as long as a request may take at all. Raises `NotFound`, and
        `Conflict` while the pool is being restarted.
        """
        known = {r.name: r for r in self._dispatcher.replicas.values() if r.pool == pool}
        if pool not in self._fleet.now.pools:
            raise NotFound(f"There is no pool `{pool}`.", code="pool_not_found")
        if replica is not None and replica not in known:
            raise NotFound(f"Pool `{pool}` has no replica `{replica}`.", code="replica_not_found")
        if pool in self._running:
            raise Conflict(
                f"Pool `{pool}` is being restarted, by {self._last[pool].actor}; wait until that has ended.",
                code="restart_running",
            )
        asked = list(known.values()) if replica is None else [known[replica]]
        chosen = [each for each in asked if not (each.is_on_disk or each.engine.is_away)]
        restart = self._begun(pool, chosen)
        seconds = self._fleet.now.gateway.request_timeout_s if drain_s is None else drain_s
        self._running[pool] = asyncio.create_task(self._run(restart, chosen, seconds))
        return restart

    def concerned(self, fleet: Fleet) -> list[str]:
        """List the pools that a fleet has and of which an engine runs with other settings than it has there.

        An engine that does not say with which it runs counts where its base model's are changed.
        """
        pools = (
            replica.pool
            for replica in self._dispatcher.replicas.values()
            if (model := fleet.base_models.get(replica.engine.base_model)) is not None
            and _is_to_change(replica.engine, model)
        )
        return [pool for pool in dict.fromkeys(pools) if pool in fleet.pools]

    def why_not(self, pools: Iterable[str]) -> list[str]:
        """Say which of these pools cannot be restarted now, since they are being restarted."""
        return [
            f"pool {pool} is being restarted, by {self._last[pool].actor}; wait until that has ended"
            for pool in pools
            if pool in self._running
        ]

    def renew(self, pools: Sequence[str]) -> None:
        """Begin to give engines the settings of the fleet, pool after pool; `why_not` has found no reason.

        A replica whose engine has them already is left alone. Where one does not come back all of it ends:
        the replicas and pools after it go on with the settings that they have.
        """
        chosen = {
            pool: [r for r in self._dispatcher.replicas.values() if r.pool == pool and self._runs(r)]
            for pool in pools
        }
        restarts = [self._begun(pool, replicas) for pool, replicas in chosen.items()]
        task = asyncio.create_task(self._renew(restarts, list(chosen.values())))
        self._running |= dict.fromkeys(pools, task)

    def _runs(self, replica: Replica) -> bool:
        """Whether a replica has an engine to restart; another one has the fleet's settings when it starts."""
        return replica in self._clients and not (replica.is_on_disk or replica.engine.is_away)

    async def _renew(self, restarts: Sequence[PoolRestart], chosen: Sequence[list[Replica]]) -> None:
        drain_s, left = self._fleet.now.gateway.request_timeout_s, ""
        for restart, replicas in zip(restarts, chosen, strict=True):
            if left:
                restart.state, restart.ended_s = RestartState.CANCELLED, time.time()
                del self._running[restart.pool]
                await self._record(restart, f"not restarted: pool {left} has not come through")
            else:
                await self._run(restart, replicas, drain_s, renew=True)
                left = "" if restart.state is RestartState.DONE else restart.pool

    def _begun(self, pool: str, replicas: Sequence[Replica]) -> PoolRestart:
        steps = [RestartStep(each.name) for each in replicas]
        restart = self._last[pool] = PoolRestart(pool, ACTOR.get(), steps, time.time())
        return restart

    async def stop(self) -> None:
        """Cancel what runs: a replica whose engine was told to restart comes back by itself."""
        tasks = set(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- one after the other -------------------------------------------------------------------------------

    async def _run(
        self, restart: PoolRestart, replicas: list[Replica], drain_s: float, *, renew: bool = False
    ) -> None:
        """Restart these replicas; with `renew` only those that have not the settings of the fleet."""
        names = ", ".join(step.replica for step in restart.steps)
        try:
            await self._record(restart, f"restart of {names} begins")
            restart.state = await self._each(restart, replicas, drain_s, renew=renew)
        except asyncio.CancelledError:
            restart.state = RestartState.CANCELLED
        finally:
            restart.ended_s = time.time()
            del self._running[restart.pool]
        failed = "; ".join(f"{step.replica}: {step.reason}" for step in restart.steps if step.reason)
        await self._record(restart, f"restart of {names} {restart.state}{f': {failed}' if failed else ''}")

    async def _each(
        self, restart: PoolRestart, replicas: list[Replica], drain_s: float, *, renew: bool
    ) -> RestartState:
        for step, replica in zip(restart.steps, replicas, strict=True):
            if renew and replica.engine.settings and not replica.engine.is_outdated:
                step.state = StepState.KEPT
                continue
            try:
                await self._one(step, replica, drain_s)
                step.state = StepState.DONE
            except _Left:
                step.state = StepState.LEFT
            except (_Stuck, ReplicaSilent) as error:
                step.state, step.reason = StepState.FAILED, str(error)
                return RestartState.FAILED
            except Exception as error:
                log.exception("replica %s was not restarted", replica.name)
                step.state, step.reason = StepState.FAILED, repr(error)
                return RestartState.FAILED
            finally:
                step.in_flight = 0
        return RestartState.DONE

    async def _one(self, step: RestartStep, replica: Replica, drain_s: float) -> None:
        """Restart one replica. Raises `_Left`, `_Stuck` or `ReplicaSilent`."""
        if replica.left or replica.is_on_disk or replica.engine.is_away:
            raise _Left
        step.state = StepState.DRAINING
        replica.restarting = replica.returns = True
        self._dispatcher.set_ready(replica.name, False)
        try:
            await self._end_and_start(step, replica, drain_s)
            await _until(lambda: replica.ready, replica, TAKEN_WITHIN_S, "it was not told of its adapters")
        finally:
            replica.returns = False
        if replica.engine.is_outdated:
            raise _Stuck("its host has not taken the new settings; an older release does not")

    async def _end_and_start(self, step: RestartStep, replica: Replica, drain_s: float) -> None:
        try:
            await self._drain(step, replica, drain_s)
            step.state = StepState.RESTARTING
            await self._restart(replica)
        finally:
            replica.restarting = False
            if not replica.left:
                self._engines.look_at(replica.name)

    async def _drain(self, step: RestartStep, replica: Replica, drain_s: float) -> None:
        """Let end what a replica runs; what takes longer ends with the engine."""
        due_s = asyncio.get_running_loop().time() + drain_s
        while (
            (running := replica.engine.sequences)
            and asyncio.get_running_loop().time() < due_s
            and not replica.left
        ):
            step.in_flight = running
            await asyncio.sleep(POLL_S)
        step.in_flight = replica.engine.sequences

    async def _restart(self, replica: Replica) -> None:
        """Restart its engine, and wait until another one is ready."""
        client = self._clients.get(replica)
        if client is None:
            raise _Stuck("its address is not known")
        before = await client.order(EngineOrder.RESTART, replica.engine.declared)
        replica.engine.settings = ""  # until the next engine says with which it runs
        due_s = asyncio.get_running_loop().time() + BACK_WITHIN_S
        while True:
            if replica.left or replica.is_on_disk or replica.engine.is_away:
                raise _Left
            health = await self._health(replica)
            if health is not None and _is_another(before, health):
                return
            if health is not None and health.state is EngineState.FAILED:
                raise _Stuck(f"its engine does not start: {health.reason}")
            if asyncio.get_running_loop().time() >= due_s:
                raise _Stuck(f"its engine is not ready after {BACK_WITHIN_S:g} s")
            await asyncio.sleep(POLL_S)

    async def _health(self, replica: Replica) -> EngineHealth | None:
        """Ask it, where it is now."""
        client = self._clients.get(replica)
        return None if client is None else await client.health()

    async def _record(self, restart: PoolRestart, text: str) -> None:
        await self._registry.record(f"pool {restart.pool}", text)


def _is_to_change(engine: Engine, model: BaseModel) -> bool:
    """Whether an engine runs with other settings than a base model has; as far as it says."""
    declared = engine.declared
    runs = engine.settings or (digest_of(declared) if declared is not None else "")
    return bool(runs) and runs != digest_of(model)


def _is_another(before: EngineHealth, now: EngineHealth) -> bool:
    """Whether an engine is ready, and not the one from before."""
    return now.state is EngineState.READY and (now.worker, now.starts) != (before.worker, before.starts)


async def _until(condition: Callable[[], bool], replica: Replica, within_s: float, else_: str) -> None:
    """Wait for a condition. Raises `_Left`, and `_Stuck` where it does not come true."""
    due_s = asyncio.get_running_loop().time() + within_s
    while not condition():
        if replica.left or replica.is_on_disk:
            raise _Left
        if asyncio.get_running_loop().time() >= due_s:
            raise _Stuck(else_)
        await asyncio.sleep(POLL_S)

"""What turns have learnt survives a restart of the gateway: costs of switches, and pins of operators.

It is written in the background: nothing waits for the database, and what it misses is learnt anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from routing.errors import StateUnavailable
from routing.turns.pool import PoolTurns

Switched = tuple[str, str, str | None]  # host, model, the model that went for it
RETRY_S = 1.0  # until the database is open
log = logging.getLogger("tenantry.turns")


class TurnsMemory(Protocol):
    """Where it is kept. Every call may raise `StateUnavailable`, and blocks."""

    def costs(self) -> Mapping[Switched, float]:
        """Return the seconds of switches, by host, model, and the model that went for it."""
        ...

    def keep_cost(self, host: str, model: str, went: str | None, seconds: float, way: str) -> None:
        """Replace what is known of a switch; `way` is by which the model came last."""
        ...

    def pins(self, pool: str) -> Mapping[str, bool]:
        """Return the models of a pool that an operator has pinned, or let go."""
        ...

    def keep_pin(self, pool: str, model: str, pinned: bool) -> None:
        """Replace what an operator has said of a model."""
        ...

    def forget(self, pool: str, hosts: Collection[str], model: str) -> None:
        """Know nothing more of a model that has left a pool, whose hosts these are."""
        ...


class Kept:
    """Brings back what was learnt, and keeps what comes."""

    def __init__(self, memory: TurnsMemory) -> None:
        self._memory = memory
        self._writing = asyncio.Lock()  # one after the other: the last one counts
        self._tasks: set[asyncio.Task[None]] = set()
        # Of models that a pool may get yet: those that were added at run time come after its start.
        self._costs: dict[str, dict[Switched, float]] = {}
        self._pins: dict[str, dict[str, bool]] = {}

    async def restore(self, pool: PoolTurns) -> None:
        """Give a pool what is known of it, once the database is open; until then it begins with nothing."""
        pool.costs.learnt = self._keep_cost
        costs, pins = await self._read(pool.name)
        self._costs[pool.name], self._pins[pool.name] = dict(costs), dict(pins)
        self.give(pool)
        pool.look()

    def give(self, pool: PoolTurns) -> None:
        """Give a pool what was read of the models that it has by now, each once."""
        here = pool.pool.base_models
        costs, pins = self._costs.get(pool.name, {}), self._pins.get(pool.name, {})
        for switched in [each for each in costs if each[1] in here]:
            host, model, went = switched
            pool.costs.remember(host, model, costs.pop(switched), went=went)
        for model in [each for each in pins if each in here]:
            pool.pins.setdefault(model, pins.pop(model))

    async def _read(self, pool: str) -> tuple[Mapping[Switched, float], Mapping[str, bool]]:
        """Read what is known, once the database is open; another part says what is wrong with it."""
        while True:
            try:
                costs = await asyncio.to_thread(self._memory.costs)
                return costs, await asyncio.to_thread(self._memory.pins, pool)
            except StateUnavailable:
                await asyncio.sleep(RETRY_S)

    def keep_pin(self, pool: str, model: str, pinned: bool) -> None:
        """Keep an operator's word, soon."""
        self._keep(lambda: self._memory.keep_pin(pool, model, pinned))

    def forget(self, pool: str, hosts: Collection[str], model: str) -> None:
        """Know nothing more of a model that has left a pool, soon."""
        self._keep(lambda: self._memory.forget(pool, hosts, model))

    async def stop(self) -> None:
        """Write what is left."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _keep_cost(self, host: str, model: str, went: str | None, seconds: float, way: str) -> None:
        self._keep(lambda: self._memory.keep_cost(host, model, went, seconds, way))

    def _keep(self, write: Callable[[], None]) -> None:
        task = asyncio.create_task(self._write(write))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, write: Callable[[], None]) -> None:
        async with self._writing:
            try:
                await asyncio.to_thread(write)
            except StateUnavailable as error:
                log.warning("what turns have learnt is not kept: %s", error)

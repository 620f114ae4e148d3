"""The ways that keep the engine: one model's weights leave it, the other's come (engines/switching)."""

from __future__ import annotations

import asyncio
import contextlib

from engines import orphans, vllm_engine
from engines.built import Built
from engines.loader import EngineDied
from engines.protocol import EngineOrder
from engines.supervisor import Supervisor
from engines.switching.in_place import Means
from engines.switching.live import WaySpoiled
from engines.switching.turns import Turns
from engines.ways import SwitchFailed

# The gateway has let all requests end; a client that left may be in vLLM's hands for one more step.
STRAGGLERS_WITHIN_S = 5.0
USUAL_S = {Means.PUT: 0.1, Means.RELOAD: 1.0}  # 603 MiB on two cores; the order is that of larger ones, too


class InPlaceWay:
    """`put` or `reload`. What fails once the engine is touched ends it; the model comes by the next way."""

    def __init__(self, means: Means, turns: Turns) -> None:
        self.name = str(means)
        self.usual_s = USUAL_S[means]
        self._means = means
        self._turns = turns

    def why_not(self, going: Supervisor | None, coming: Supervisor) -> str:
        """Say why the one cannot leave its engine to the other; looks at the models' files."""
        if going is None or going.running is None or not going.is_ready():
            return "no engine runs that it could take over"
        if coming.sleeps:
            return "an engine of its own sleeps"
        return self._turns.why_not(self._means, going.running.engine, coming.model.name)

    def is_usual(self) -> bool:
        """It always takes as long."""
        return True

    async def bring(self, going: Supervisor | None, coming: Supervisor) -> None:
        """Take the engine from the one, exchange its weights, and give it to the other."""
        built = await self._taken_from(going)
        is_taken = False

        async def exchanged() -> Built:
            nonlocal is_taken
            is_taken = True
            try:
                await self._turns.exchange(self._means, built.engine, coming.model.name)
            except BaseException:  # a cancelled one leaves a half-changed engine, too
                await self._end(built)
                raise
            vllm_engine.serve_as(built.app, coming.model.name, coming.model.source)
            return built

        try:
            coming.follow(EngineOrder.START, source=exchanged)
            if not await coming.settles():
                raise SwitchFailed(coming.health().reason)
        finally:
            if not is_taken:
                await self._end(built)

    async def _taken_from(self, going: Supervisor | None) -> Built:
        """Take an engine over, nothing running on it. Raises `SwitchFailed`; nothing has changed then."""
        if going is None or going.running is None:
            raise SwitchFailed("no engine runs that it could take over")
        running = going.running
        try:
            await self._turns.remember(running.engine, running.loader, going.reconciler.desired)
            await running.in_flight.close(STRAGGLERS_WITHIN_S)
            return await self._released(going)
        except TimeoutError as error:
            raise SwitchFailed("requests still run on the engine") from error
        except (EngineDied, WaySpoiled) as error:
            raise SwitchFailed(str(error)) from error

    async def _released(self, going: Supervisor) -> Built:
        """Have the engine from the one that goes; should this be cancelled meanwhile, the engine ends."""
        releasing = asyncio.create_task(going.release())
        try:
            return await asyncio.shield(releasing)
        except asyncio.CancelledError:
            with contextlib.suppress(EngineDied):
                await self._end(await releasing)
            raise

    async def _end(self, built: Built) -> None:
        """End an engine at once, and all of its processes."""
        self._turns.ended(built.engine)
        await asyncio.to_thread(orphans.end_own, built.marked)
        await built.closing.aclose()
        await asyncio.to_thread(built.engine.shutdown, 0)

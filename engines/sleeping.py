"""The ways that keep an engine asleep: a model that goes sleeps if it can, and wakes when its turn comes."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from engines.in_flight import InFlight
from engines.in_place_ways import STRAGGLERS_WITHIN_S
from engines.loader import EngineDied
from engines.protocol import EngineOrder
from engines.supervisor import Supervisor
from engines.switching.live import WaySpoiled
from engines.switching.turns import Turns
from engines.ways import Leave, SwitchFailed, end

# Qwen3-8B with an adapter on an A100, as others have measured; nothing of it ran here.
USUAL_S = {1: 2.2, 2: 6.5}
log = logging.getLogger("tenantry.engine")


class Sleeping:
    """Lays models of one host down."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    async def leave(self, going: Supervisor) -> None:
        """Have a model go: it sleeps if it can, else its engine ends. Returns once it has."""
        level = self._level(going)
        if level:
            try:
                await self._lay_down(going, level)
                return
            except (EngineDied, WaySpoiled, TimeoutError) as error:
                why = str(error) or "requests run on it"
                log.warning("%s: it ends instead of sleeping: %s", going.replica, why)
        await end(going)

    def _level(self, going: Supervisor) -> int:
        if going.running is None or not going.is_ready():
            return 0
        return self._turns.level_of_sleep(going.running.engine, has_slots=going.model.serves_adapters)

    async def _lay_down(self, going: Supervisor, level: int) -> None:
        running = going.running
        if running is None:
            raise EngineDied("the engine does not run")
        await self._turns.remember(running.engine, running.loader, going.reconciler.desired)
        await running.in_flight.close(STRAGGLERS_WITHIN_S)
        await self._turns.sleep(running.engine, level)
        going.fell_asleep(level)


class Wake:
    """A model's own engine wakes up. What fails ends it; the model comes by the next way."""

    def __init__(self, level: int, turns: Turns, leave: Leave) -> None:
        self.name = f"wake{level}"
        self.usual_s = USUAL_S[level]
        self._level = level
        self._turns = turns
        self._leave = leave

    def why_not(self, going: Supervisor | None, coming: Supervisor) -> str:
        """Say why it does not wake so."""
        if coming.sleeps != self._level:
            return f"it does not sleep at level {self._level}"
        return "" if coming.source == coming.model.source else "its files are others by now"

    def is_usual(self) -> bool:
        """It always takes as long."""
        return True

    async def bring(self, going: Supervisor | None, coming: Supervisor) -> None:
        """Have the one go, and the other wake up and be checked."""
        if going is not None:
            await self._leave(going)
        running, began_s = coming.running, time.monotonic()
        if running is None:
            raise SwitchFailed("its engine has died in its sleep")
        try:
            await self._turns.wake(running.engine, self._level)
            differs = coming.metrics.switching.wake_check_failed
            await self._turns.verify(running.engine, running.loader, is_new=False, differs=differs)
        except (EngineDied, WaySpoiled) as error:
            await end(coming)
            raise SwitchFailed(str(error)) from error
        except BaseException:  # given up in the middle
            coming.follow(EngineOrder.STOP)
            raise
        coming.woke_up(replace(running, in_flight=InFlight()), time.monotonic() - began_s)
        if not coming.is_ready():
            raise SwitchFailed("the engine died as it woke up")

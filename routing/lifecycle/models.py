"""The admin API's calls on whole models that take turns. Implements `ports.ModelManagement`."""

from __future__ import annotations

from collections.abc import Sequence

from routing.lifecycle.registry import Registry
from routing.turns.driver import Turns
from routing.turns.report import TurnsReport, WakeForecast


class Models:
    """Wakes models, has them sleep and pins them, for operators; each order is an event."""

    def __init__(self, turns: Turns, registry: Registry) -> None:
        self._turns = turns
        self._registry = registry

    def report(self) -> TurnsReport:
        """Copy the state of every model at every host, and the timeline."""
        return self._turns.report()

    def forecast(self, model: str) -> Sequence[WakeForecast]:
        """Say what waking a model would do. Raises as `wake` does."""
        return self._turns.forecast(model)

    async def wake(self, model: str) -> Sequence[WakeForecast]:
        """Have a model come awake; say what that does. Raises `NotFound` and `Conflict`."""
        told = self._turns.forecast(model)
        self._turns.wake(model)
        await self._registry.record(f"model {model}", "to be woken")
        return told

    async def sleep(self, model: str) -> None:
        """Have a model go to disk once what it runs has ended. Raises `NotFound` and `Conflict`."""
        self._turns.sleep(model)
        await self._registry.record(f"model {model}", "put to sleep")

    async def pin(self, model: str, pinned: bool) -> None:
        """Keep a model awake, or let it take turns. Raises `NotFound` and `Conflict`."""
        self._turns.pin(model, pinned)
        await self._registry.record(f"model {model}", "pinned" if pinned else "unpinned")

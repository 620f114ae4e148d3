"""A running engine, and the model that it has now, from turn to turn."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from engines.switching.digest import Identity
from engines.switching.salting import Salting

T = TypeVar("T")
_LOOK_INTERVAL_S = 0.2  # vLLM has no event for an engine's death
_NAMING_FLAGS = frozenset({"--model", "--served-model-name", "--revision"})


class WaySpoiled(Exception):
    """A switch failed after it had begun to change the engine, which is fit for nothing now."""


@dataclass(frozen=True, slots=True)
class Model:
    """A whole model as an engine is started with it."""

    name: str  # as it is served
    folder: Path | None  # None: not on this machine, or not yet
    argv: tuple[str, ...]  # of `vllm serve`

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags that say how it is served, and not which model it is."""
        kept: list[str] = []
        parts = iter(self.argv)
        for part in parts:
            if part in _NAMING_FLAGS:
                next(parts, None)
            else:
                kept.append(part)
        return tuple(kept)


class LiveEngine:
    """An engine from its start to its end, through the models that it has."""

    def __init__(self, engine: Any, tasks: Sequence[str], model: Model, identity: Identity | None) -> None:
        """Take vLLM's `AsyncLLM` and its tasks, and the model that it was started with."""
        self.engine = engine
        self.tasks = tasks
        self.model = model
        self.is_confirmed = False  # its model has just answered as it did at first
        self.identity = identity  # None: not known, so that it takes no turns in place
        # Weights in host memory: digest -> bytes, put longest ago first.
        self.held: OrderedDict[str, int] = OrderedDict()
        self._salting = Salting(engine.engine_core, identity.digest) if identity else None

    def now_has(self, model: Model, identity: Identity) -> None:
        """Take note that its weights are another model's. Raises `WaySpoiled`."""
        if self._salting is None:
            raise WaySpoiled("the cache of an engine that began with an unknown model is not parted")
        self.model, self.identity = model, identity
        self._salting.model = identity.digest

    async def call(self, work: Coroutine[Any, Any, T], within_s: float) -> T:
        """Return the result of a call to the engine. Raises its error, `TimeoutError`, or `WaySpoiled`.

        vLLM never ends a call whose engine dies.
        """
        task = asyncio.ensure_future(work)
        try:
            async with asyncio.timeout(within_s):
                while not task.done():
                    await asyncio.wait({task}, timeout=_LOOK_INTERVAL_S)
                    if self.engine.errored and not task.done():
                        raise WaySpoiled("the engine died")
            return task.result()
        finally:
            task.cancel()

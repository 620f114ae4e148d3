"""What the engines of one host have in common for turns in place: their models, and the answers of each."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

from adapters.errors import AdapterError
from engines.loader import AdapterLoader
from engines.residency import EngineAdapter, FilesAway
from engines.switching.holding import Holding
from engines.switching.in_place import InPlace, Means
from engines.switching.library import Library
from engines.switching.live import LiveEngine, Model, WaySpoiled
from engines.switching.sleep import Sleep
from engines.switching.wake_check import WakeCheck

log = logging.getLogger("tenantry.engine")


class Turns:
    """The turns of one host."""

    def __init__(self, models: Mapping[str, Model], holding: Holding | None = None) -> None:
        self._models = dict(models)
        self._library = Library()
        self._in_place = InPlace(self._library, holding or Holding())
        self._check = WakeCheck()
        self._sleep = Sleep(self._library)
        self.sleeps_at: int | None = None  # the one level at which engines sleep; None: whichever fits
        self._live: dict[int, LiveEngine] = {}  # by the id of vLLM's engine
        self._proven: set[tuple[str, tuple[str, ...]]] = set()  # files and flags whose self-test has passed

    def take(self, model: Model) -> None:
        """Take in a model, or one with other files or flags."""
        self._models[model.name] = model

    def forget(self, model: str) -> None:
        """Forget a model that is a base model here no more; an engine that has it goes on."""
        self._models.pop(model, None)

    def expect(self, model: str) -> None:
        """Begin to read a model's files, while an engine starts with it; returns at once."""
        self._library.study([self._models[model]])

    async def began(self, model: str, engine: Any, tasks: tuple[str, ...]) -> None:
        """Take note of a new engine. Then the other models are read in the background."""
        identity = await self._library.studied(self._models[model])
        self._live[id(engine)] = LiveEngine(engine, tasks, self._models[model], identity)
        self._library.study(self._models.values())

    def ended(self, engine: Any) -> None:
        """Forget an engine."""
        self._live.pop(id(engine), None)
        self._sleep.ended(engine)

    def level_of_sleep(self, engine: Any, *, has_slots: bool) -> int:
        """Return the level at which an engine can sleep now; 0: it cannot."""
        live = self._live.get(id(engine))
        possible = 0 if live is None else self._sleep.level(live, has_slots=has_slots)
        return possible if self.sleeps_at is None or not possible else self.sleeps_at

    async def sleep(self, engine: Any, level: int) -> None:
        """Have an engine sleep. Raises `WaySpoiled`."""
        await self._sleep.sleep(self._known(engine), level)

    async def wake(self, engine: Any, level: int) -> None:
        """Have an engine wake up. Raises `WaySpoiled`."""
        await self._sleep.wake(self._known(engine), level)

    def _known(self, engine: Any) -> LiveEngine:
        live = self._live.get(id(engine))
        if live is None:
            raise WaySpoiled("the engine is not known")
        return live

    async def read_all(self) -> None:
        """Wait until the files of all models have been read."""
        for model in self._models.values():
            await self._library.studied(model)

    async def close(self) -> None:
        """Read no more files."""
        await self._library.close()

    def why_not(self, means: Means, engine: Any, model: str) -> str:
        """Return why a model cannot come so into an engine, or "". Changes nothing."""
        live = self._live.get(id(engine))
        return self._in_place.why_not(means, live, self._models[model]) if live else "the engine is not known"

    async def exchange(self, means: Means, engine: Any, model: str) -> None:
        """Give an engine another model's weights. Raises `WaySpoiled`."""
        await self._in_place.exchange(means, self._known(engine), self._models[model])

    async def is_proven(self, engine: Any) -> bool:
        """Whether one of these files and flags has passed its self-test here, and this one answers as it did.

        Never raises: what is wrong with an engine shows in its self-test.
        """
        live = self._live.get(id(engine))
        if live is None or _proof_of(live) not in self._proven:
            return False
        try:
            return await self._check.answers_as_before(live)
        except Exception as error:  # noqa: BLE001
            log.warning("%s: it is tested as one that is not known: %s", live.model.name, error)
            return False

    def passed(self, engine: Any) -> None:
        """Note that an engine has passed its self-test."""
        live = self._live.get(id(engine))
        if live is not None and live.identity is not None:
            self._proven.add(_proof_of(live))

    async def verify(
        self, engine: Any, loader: AdapterLoader | None, *, is_new: bool, differs: Callable[[], None]
    ) -> None:
        """Check the model's answer and an adapter's against those that are kept; `differs` counts.

        Raises `WaySpoiled`, and `EngineDied`.
        """
        live = self._live.get(id(engine))
        if live is None:
            return
        await self._check.verify(live, is_new=is_new, differs=differs)
        adapter = self._check.adapter_of(live)
        if loader is None or adapter is None:
            return
        try:
            async with loader.lease(adapter) as request:
                await self._check.verify(
                    live, is_new=is_new, differs=differs, adapter=adapter, request=request
                )
        except (AdapterError, FilesAway) as error:  # its files may be gone: nobody wants it any more
            log.info("%s: adapter %s is not checked: %s", live.model.name, adapter.id, error)
            self._check.forget_adapter(live)

    async def remember(
        self, engine: Any, loader: AdapterLoader | None, wanted: Callable[[str], EngineAdapter | None]
    ) -> None:
        """Keep the answer of the adapter that was used last, unless one is kept. Raises as `verify` does."""
        live = self._live.get(id(engine))
        if live is None or loader is None or self._check.adapter_of(live) is not None:
            return
        used = [adapter for name in loader.host if (adapter := wanted(name)) is not None]
        if not used:
            return
        with contextlib.suppress(AdapterError, FilesAway):
            async with loader.lease(used[-1]) as request:
                await self._check.verify(
                    live, is_new=False, differs=lambda: None, adapter=used[-1], request=request
                )


def _proof_of(live: LiveEngine) -> tuple[str, tuple[str, ...]]:
    digest = "" if live.identity is None else live.identity.digest
    return digest, live.model.flags

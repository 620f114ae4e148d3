"""Are the adapters a request needs in the engine? Loads each once at a time, from its folder.

Speaks to vLLM in-process: a name never comes with a path, and `load_inplace` is never used.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from adapters.checkpoint import inspect_adapter
from adapters.errors import AdapterError
from adapters.types import Adapter

RETRY_AFTER_S = 30.0  # a broken adapter is not read again for this long, however many requests ask for it
log = logging.getLogger("tenantry.engine")


class AdapterLoader:
    """Adapters of one running engine."""

    def __init__(self, serving_models: Any, adapters: Iterable[Adapter], *, max_rank: int) -> None:
        """`serving_models` is vLLM's `OpenAIServingModels` of the engine."""
        self._models = serving_models
        self._adapters = {adapter.name: adapter for adapter in adapters}
        self._max_rank = max_rank
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._failures: dict[str, tuple[float, AdapterError]] = {}

    @property
    def loaded(self) -> list[str]:
        """Adapters registered in the engine, in order of loading."""
        return list(self._models.lora_requests)

    async def ensure(self, name: str) -> None:
        """Return once the adapter is registered; concurrent callers share one load. Raises `AdapterError`."""
        if name in self._models.lora_requests:
            return
        failure = self._failures.get(name)
        if failure is not None and time.monotonic() - failure[0] < RETRY_AFTER_S:
            raise failure[1]
        task = self._loading.get(name)
        if task is None:
            task = self._loading[name] = asyncio.create_task(self._load(name))
            task.add_done_callback(lambda done: self._loaded(name, done))
        await asyncio.shield(task)  # a caller that leaves does not stop the load for the others

    def _loaded(self, name: str, task: asyncio.Task[None]) -> None:
        del self._loading[name]
        error = None if task.cancelled() else task.exception()
        if isinstance(error, AdapterError):
            self._failures[name] = (time.monotonic(), error)
            log.error("adapter not loaded: %s", error)
        elif error is None:
            self._failures.pop(name, None)

    async def _load(self, name: str) -> None:
        from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest

        adapter = self._adapters.get(name)
        if adapter is None:
            raise AdapterError(f"adapter {name!r} is not declared for this engine")
        started_s = time.monotonic()
        manifest = await asyncio.to_thread(inspect_adapter, Path(adapter.source))
        if manifest.rank > self._max_rank:
            raise AdapterError(
                f"adapter {name!r} has rank {manifest.rank}, the engine takes at most {self._max_rank}; "
                "raise max_lora_rank of its base model"
            )
        request = LoadLoRAAdapterRequest(lora_name=name, lora_path=adapter.source)
        answer = await self._models.load_lora_adapter(request)
        if not isinstance(answer, str):
            raise AdapterError(f"vLLM refused adapter {name!r}: {answer.error.message}")
        log.info("adapter %s loaded in %.2f s", name, time.monotonic() - started_s)

"""Starts the engines of one replica: with its flags, in an environment of their own."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import os
from collections.abc import Collection, Iterator

from prometheus_client import CollectorRegistry

from engines import engine_process, logs, orphans, shared_memory, vllm_engine
from engines.built import Built
from engines.devices.pinning import pin
from engines.engine_metrics import OF_ENGINE, EngineMetrics, keep_bounded, take
from engines.last_words import LastWords
from engines.vllm_args import engine_args, engine_environment, tracing_environment
from fleet.mig import SliceName
from fleet.types import BaseModel

PROGRESS_INTERVAL_S = 30
ADAPTER_NUMBERS: Iterator[int] = itertools.count(1)  # vLLM's lora_int_id, never used twice in an engine
log = logging.getLogger("tenantry.engine")


class EngineStart:
    """The starts of one replica's engines."""

    def __init__(
        self,
        replica: str,
        models: Collection[BaseModel],
        *,
        shutdown_grace_s: float,
        traces_endpoint: str | None,
        withheld: Collection[str],
        on_slice: SliceName | None = None,
    ) -> None:
        """`models` are all that this process may have engines of, on that MIG slice if one is named."""
        self.on_cpu = vllm_engine.is_cpu_build()
        self.last_words = LastWords()
        self._replica = replica
        self._withheld = withheld
        self.on_slice = on_slice
        self._args_of = functools.partial(
            engine_args,
            shutdown_grace_s=shutdown_grace_s,
            on_cpu=self.on_cpu,
            traces_endpoint=traces_endpoint,
        )
        self._environment = engine_environment(models, on_cpu=self.on_cpu)
        own = {} if traces_endpoint is None else tracing_environment(replica)
        self._own_environment = {name: value for name, value in own.items() if name not in os.environ}

    async def prepare(self) -> None:
        """Prepare this process, and end what another one left behind; before each start."""
        for name, value in self._environment.items():
            os.environ.setdefault(name, value)
        await asyncio.to_thread(orphans.reap, self._replica)
        engine_process.become_main_of_children()
        engine_process.withhold(self._withheld)

    def make(self, model: BaseModel, metrics: EngineMetrics) -> Built:
        """Start an engine's processes, in the thread for that; minutes on a GPU.

        They inherit this process's environment, which is the replica's until the next one is started. Raises
        `SliceError`, `NoSharedMemory`.
        """
        shared_memory.require(workers=model.tensor_parallel_size, on_cpu=self.on_cpu)
        pinned = pin(self.on_slice, model, on_cpu=self.on_cpu)
        os.environ.update(
            self._own_environment
            | pinned.environment
            | orphans.mark(self._replica)
            | self.last_words.listen()
            | {logs.REPLICA: self._replica}
        )
        registry = CollectorRegistry()
        args, engine = vllm_engine.build_engine(self._args_of(pinned.model))
        take(OF_ENGINE, registry)
        keep_bounded(registry, metrics.adapters.in_flight)
        return Built(args, engine, self._replica, registry)

    async def log_progress(self) -> None:
        """Log now and then that an engine is still on its way; until this is cancelled."""
        for times in itertools.count(1):
            await asyncio.sleep(PROGRESS_INTERVAL_S)
            log.info("%s: still loading (%d s)", self._replica, times * PROGRESS_INTERVAL_S)

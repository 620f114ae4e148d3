"""Starts the engines of one replica: with its flags, in an environment of their own."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import os
from collections.abc import Collection

from prometheus_client import CollectorRegistry

from engines import engine_process, logs, orphans, shared_memory, vllm_engine
from engines.builder import Shared
from engines.built import Built
from engines.devices.layout import SliceError
from engines.devices.pinning import pin
from engines.engine_metrics import OF_ENGINE, EngineMetrics, keep_bounded, take
from engines.forking.server import NoFork
from engines.last_words import LastWords
from engines.selftest import SelfTestFailed
from engines.shared_memory import NoSharedMemory
from engines.vllm_args import engine_args, engine_environment, tracing_environment
from engines.words import points_elsewhere, words_of
from fleet.mig import SliceName
from fleet.types import BaseModel

PROGRESS_INTERVAL_S = 30
log = logging.getLogger("tenantry.engine")


class EngineStart:
    """The starts of one replica's engines."""

    def __init__(
        self,
        replica: str,
        model: BaseModel,
        *,
        shutdown_grace_s: float,
        traces_endpoint: str | None,
        withheld: Collection[str],
        on_slice: SliceName | None = None,
        shared: Shared | None = None,
    ) -> None:
        """The process may be `shared` with engines of other models, or have a MIG slice to itself."""
        self.forks = None if shared is None else shared.forks
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
            sleeps=shared is not None and shared.sleeps,
        )
        self._environment = engine_environment(
            [model] if shared is None else shared.models, on_cpu=self.on_cpu
        )
        own = {} if traces_endpoint is None else tracing_environment(replica)
        self._own_environment = {name: value for name, value in own.items() if name not in os.environ}

    def why_not_fork(self, model: BaseModel) -> str:
        """Return why no engine of a model can be forked now, or ""."""
        if self.forks is None:
            return "there is no fork server"
        if "--numa-bind" in model.vllm_args:
            return "--numa-bind needs processes that are started from nothing"
        return self.forks.why_not()

    async def prepare(self) -> None:
        """Prepare this process, and end what another one left behind; before each start."""
        for name, value in self._environment.items():
            os.environ.setdefault(name, value)
        await asyncio.to_thread(orphans.reap, self._replica)
        engine_process.become_main_of_children()
        engine_process.withhold(self._withheld)

    def make(self, model: BaseModel, metrics: EngineMetrics, *, forked: bool = False) -> Built:
        """Start an engine's processes, in the thread for that; minutes on a GPU.

        They inherit this process's environment, which is the replica's until the next one is started. Raises
        `SliceError`, `NoSharedMemory`, and `NoFork` for one that is to be `forked`.
        """
        shared_memory.require(workers=model.tensor_parallel_size, on_cpu=self.on_cpu)
        forks = self.forks if forked else None
        if forks is not None:
            forks.launch()  # it imports vLLM while this process does
        pinned = pin(self.on_slice, model, on_cpu=self.on_cpu)
        os.environ.update(
            self._own_environment
            | pinned.environment
            | orphans.mark(self._replica)
            | self.last_words.listen()
            | {logs.REPLICA: self._replica}
        )
        registry = CollectorRegistry()
        args, engine = vllm_engine.build_engine(self._args_of(pinned.model), forks)
        take(OF_ENGINE, registry)
        keep_bounded(registry, metrics.adapters.in_flight)
        return Built(args, engine, self._replica, registry)

    def why_failed(self, error: Exception) -> str:
        """Return why an engine did not start: its own last error, if this one only points at its log."""
        if isinstance(error, SelfTestFailed | SliceError | NoSharedMemory | NoFork):
            return str(error)
        return (points_elsewhere(str(error)) and self.last_words.read()) or words_of(error)

    async def log_progress(self) -> None:
        """Log now and then that an engine is still on its way; until this is cancelled."""
        for times in itertools.count(1):
            await asyncio.sleep(PROGRESS_INTERVAL_S)
            log.info("%s: still loading (%d s)", self._replica, times * PROGRESS_INTERVAL_S)

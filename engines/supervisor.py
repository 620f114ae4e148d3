"""Runs the engine of this process: loads one, watches it, restarts it when it dies, ends it.

Loading never blocks the event loop, so liveness answers meanwhile. A dead engine is restarted in place, since
BentoML ends a whole container when one of its workers dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import os
import signal
import time
import types
from collections.abc import Collection, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from engines import engine_process, orphans, vllm_engine
from engines.builder import Builder
from engines.health import EngineHealth
from engines.heartbeat import SILENT_AFTER_ON_CPU_S, SILENT_AFTER_S, Heartbeat
from engines.last_words import DYING_S, LastWords, ended_how
from engines.loader import AdapterLoader, LoraEngine, Reconciler
from engines.protocol import EngineOrder
from engines.residency import FaultKind, limits_in
from engines.restarts import Restarts
from engines.selftest import SelfTest, SelfTestFailed
from engines.trial import Trials
from engines.vllm_args import engine_args, engine_environment, tracing_environment
from engines.words import blames_machine, points_elsewhere, words_of
from fleet.types import BaseModel

WATCH_INTERVAL_S = 0.2
PROGRESS_INTERVAL_S = 30
log = logging.getLogger("tenantry.engine")
VLLM_CLIENT_LOG = logging.getLogger("vllm.v1.engine.async_llm")  # calls every end of an engine a failure


@dataclass(frozen=True, slots=True)
class Running:
    """An engine that has passed its self-test, with its app and its loader."""

    engine: Any  # vLLM's AsyncLLM
    app: Any  # vLLM's FastAPI app
    loader: AdapterLoader | None = None  # None for an engine without slots
    trials: Trials | None = None
    heartbeat: Heartbeat | None = None


class Supervisor:
    """The engines of one worker process, one after the other.

    No engine holds an adapter until the gateway has sent the desired set; a restarted one gets the same set.
    """

    def __init__(
        self,
        replica: str,
        model: BaseModel,
        *,
        shutdown_grace_s: float,
        traces_endpoint: str | None = None,
        withheld: Collection[str] = (),
    ) -> None:
        """With a `traces_endpoint` (OTLP over HTTP) the engine sends its spans there.

        vLLM's processes do not get the `withheld` environment variables.
        """
        self.replica = replica
        self.running: Running | None = None
        self.limits: dict[str, Any] = {}  # of the last engine, as `Residency` names them
        self.model = model  # as the next engine is to have it
        self.reconciler = Reconciler(slots=model.max_loras)
        self.draining = False
        self._stopped = False  # an engine runs only once it is told to start
        self._start_asked = False  # now, whatever the delay
        self._withheld = withheld
        self._model = model  # as the one that loads or runs has it
        self._on_cpu = vllm_engine.is_cpu_build()
        self._args_of = functools.partial(
            engine_args,
            shutdown_grace_s=shutdown_grace_s,
            on_cpu=self._on_cpu,
            traces_endpoint=traces_endpoint,
        )
        self._environment = engine_environment(model, on_cpu=self._on_cpu)
        if traces_endpoint is not None:
            self._environment |= tracing_environment(replica)
        self._adapter_numbers: Iterator[int] = itertools.count(1)  # vLLM's lora_int_id, never used twice
        self._restarts = Restarts(replica)
        self._last_words = LastWords()
        self._task: asyncio.Task[None] | None = None
        self._was_ready = False  # this engine, since it was loaded
        self._builder = Builder(
            lambda: vllm_engine.build_engine(self._args_of(self._model)), lambda built: built[1].shutdown(0)
        )

    def start(self) -> None:
        """Begin loading and return at once. Call it in the main thread, inside the running loop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._drain_on(number)
        self._task = asyncio.create_task(self._supervise())

    def _drain_on(self, number: signal.Signals) -> None:
        """Tell an ordered end from a crash: BentoML signals EngineCore at the same moment as this process."""
        previous = signal.getsignal(number)

        def on_signal(signum: int, frame: types.FrameType | None) -> None:
            self.draining = True
            # EngineCore ends on the same signal, or is killed as it loads. vLLM would log that as a failure,
            # with a traceback.
            VLLM_CLIENT_LOG.disabled = True
            if not self._was_ready:
                logging.getLogger("vllm").setLevel(logging.CRITICAL)
            if callable(previous):
                previous(signum, frame)

        signal.signal(number, on_signal)

    async def stop(self) -> None:
        """Shut the engine down and leave no process behind."""
        self.draining = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._builder.close()
        self._last_words.close()

    def follow(self, order: EngineOrder, model: BaseModel | None = None) -> None:
        """Restart, stop or start the engine, soon; one that loads is ended once it has loaded.

        `model` is the base model with other settings, which the next engine has.
        """
        self.model = model or self.model
        was_stopped, self._stopped = self._stopped, order is EngineOrder.STOP
        if order is EngineOrder.RESTART or (was_stopped and not self._stopped):
            self._start_asked = True
            if self.running is None:
                self._restarts.told_to_start()

    # -- how it stands -------------------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Whether the engine has passed its self-test and is not dead, silent or draining. Never raises."""
        if self.running is None or self.running.engine.errored or self.draining:
            return False
        heartbeat = self.running.heartbeat
        return heartbeat is None or not heartbeat.is_silent()

    def is_alive(self) -> bool:
        """Whether starting the engine still makes sense. Never raises."""
        return self._restarts.is_alive()

    def health(self) -> EngineHealth:
        """Return the engine's state, for operators. Never raises."""
        return self._restarts.health(answers=self.is_ready(), draining=self.draining)

    def blame(self, name: str, kind: FaultKind, reason: str) -> None:
        """Record a failure of an adapter, unless the engine died of something that no adapter causes."""
        words = self._last_words.read(DYING_S) if kind is FaultKind.CRASH else ""
        if not blames_machine(words):
            self.reconciler.blame(name, kind, f"{reason}: {words}" if words else reason)

    # -- one engine after the other ------------------------------------------------------------------------

    async def _supervise(self) -> None:
        while not self.draining:
            async with contextlib.AsyncExitStack() as stack:
                try:
                    began_s = time.monotonic()
                    self._start_asked = False
                    self._model = self.model
                    self.reconciler.take_slots(self._model.max_loras)
                    self.running = await self._load(stack)
                    # Else this is the engine that was asked for meanwhile.
                    self._start_asked = self._model != self.model
                    self._restarts.passed(time.monotonic() - began_s)
                    await self._watch(self.running)
                except Exception as error:
                    if self.draining:  # its processes were ended while it loaded
                        break
                    log.debug("%s: the engine did not start", self.replica, exc_info=True)
                    self.reconciler.forgive()  # if none comes back, no adapter ended the last one
                    self._restarts.did_not_start(self._why(error))
                    if self._start_asked:  # with other settings, perhaps
                        self._restarts.told_to_start()
                finally:
                    self.running = None
            await self._until_next_start()

    async def _until_next_start(self) -> None:
        VLLM_CLIENT_LOG.disabled = self.draining
        if self._stopped:
            self._restarts.told_to_end(stay=True)
        due_s = time.monotonic() + self._restarts.delay_s
        await asyncio.sleep(0)
        while self._stopped or (not self._start_asked and time.monotonic() < due_s):  # noqa: ASYNC110
            await asyncio.sleep(WATCH_INTERVAL_S)

    async def _watch(self, running: Running) -> None:
        """Return once the engine has died, or is to end."""
        while not (running.engine.errored or self._stopped or self._start_asked):  # noqa: ASYNC110
            await asyncio.sleep(WATCH_INTERVAL_S)  # vLLM has no event for it
        if not running.engine.errored:
            VLLM_CLIENT_LOG.disabled = True  # until it has ended
            self._restarts.told_to_end(stay=self._stopped)
            return
        if running.loader is not None:
            running.loader.engine.declare_dead()
        if self.draining:  # it ended on the same signal as this process will
            await asyncio.Event().wait()
        self._restarts.died(self._last_words.read(DYING_S) or ended_how(running.engine))

    def _why(self, error: Exception) -> str:
        """Return why an engine did not start: its own last error, if this one only points at its log."""
        if isinstance(error, SelfTestFailed):
            return str(error)
        return (points_elsewhere(str(error)) and self._last_words.read()) or words_of(error)

    # -- loading -------------------------------------------------------------------------------------------

    async def _load(self, stack: contextlib.AsyncExitStack) -> Running:
        """Start an engine, test it, and keep its adapters from then on; the stack ends all of it."""
        for name, value in self._environment.items():
            os.environ.setdefault(name, value)
        await asyncio.to_thread(orphans.reap, self.replica)
        os.environ.update(orphans.mark(self.replica) | self._last_words.listen())
        engine_process.become_main_of_children()
        engine_process.withhold(self._withheld)
        log.info("%s: loading %s", self.replica, self._model.name)
        self._was_ready = False
        args, engine = await self._build(stack)
        tasks = await engine.get_supported_tasks()
        app = await vllm_engine.start_app(stack, args, engine, tasks)
        await self._prove(engine, app, tasks)
        loader, trials = None, None
        if self._model.serves_adapters:
            loader, trials = self._keep_adapters(
                stack, engine, app.state.openai_serving_models.lora_requests, tasks
            )
        self.limits = vllm_engine.limits_of(engine) | limits_in(self._model)
        # Any call that the core's loop answers would do; this one changes nothing and reaches no worker.
        silent_after_s = SILENT_AFTER_ON_CPU_S if self._on_cpu else SILENT_AFTER_S
        heartbeat = Heartbeat(engine.is_sleeping, silent_after_s=silent_after_s)
        stack.push_async_callback(_cancel, asyncio.create_task(heartbeat.run()))
        self._was_ready = True
        return Running(engine, app, loader, trials, heartbeat)

    async def _build(self, stack: contextlib.AsyncExitStack) -> tuple[Any, Any]:
        """Start the engine's processes in a thread; minutes on a GPU."""
        progress = asyncio.create_task(self._log_progress())
        try:
            args, engine = await self._builder.build()
        finally:
            await _cancel(progress)
        stack.push_async_callback(asyncio.to_thread, self._end, engine)
        return args, engine

    async def _log_progress(self) -> None:
        for times in itertools.count(1):
            await asyncio.sleep(PROGRESS_INTERVAL_S)
            log.info("%s: still loading (%d s)", self.replica, times * PROGRESS_INTERVAL_S)

    async def _prove(self, engine: Any, app: Any, tasks: Sequence[str]) -> None:
        """Run the self-test. Raises `SelfTestFailed` with the engine's own error."""
        try:
            await SelfTest(engine, app, self._model.name, tasks, trials=self._model.serves_adapters).run()
        except SelfTestFailed as error:
            died_of = (self._last_words.read() or ended_how(engine)) if engine.errored else ""
            raise SelfTestFailed(f"self-test, {error}: {died_of or words_of(error)}") from error

    def _keep_adapters(
        self,
        stack: contextlib.AsyncExitStack,
        engine: Any,
        frontend: MutableMapping[str, Any],
        tasks: Sequence[str],
    ) -> tuple[AdapterLoader, Trials]:
        """Bring the engine to the desired adapters in the background, from now on until it dies."""
        from vllm.lora.request import LoRARequest

        lora_engine = LoraEngine(engine, frontend, LoRARequest)
        loader = AdapterLoader(
            lora_engine,
            slots=self._model.max_loras,
            places=max(self._model.max_cpu_loras, self._model.max_loras),
            numbers=self._adapter_numbers,
            blame=self.blame,
        )
        reconciling = asyncio.create_task(self.reconciler.run(loader))
        stack.push_async_callback(_cancel, reconciling)
        stack.callback(lora_engine.declare_dead)
        return loader, Trials(engine, tasks, lora_engine.call)

    def _end(self, engine: Any) -> None:
        """End an engine: a serving one after it has drained, another one at once."""
        if not self._was_ready:
            orphans.end_own()
        engine.shutdown(engine.vllm_config.shutdown_timeout if self._was_ready else 0)
        orphans.end_own()  # vLLM's workers take some seconds to notice that their engine is gone


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

"""Runs the engine of one replica: loads one, watches it, restarts it when it dies, ends it.

Loading never blocks the event loop, so liveness answers meanwhile. A dead engine is restarted in place, since
BentoML ends a whole container when one of its workers dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Sequence
from typing import Any

from engines import orphans, vllm_engine
from engines.adapter_files import AdapterFiles, nowhere
from engines.builder import Builder, Shared, builder_thread
from engines.built import Built, Running, Source
from engines.draining import VLLM_CLIENT_LOG, drain_on_signals
from engines.engine_metrics import EngineMetrics
from engines.health import EngineHealth
from engines.heartbeat import SILENT_AFTER_ON_CPU_S, SILENT_AFTER_S, Heartbeat
from engines.keep_adapters import cancel, keep_adapters
from engines.last_words import DYING_S, ended_how
from engines.loader import EngineDied, Reconciler
from engines.protocol import EngineOrder
from engines.residency import DesiredAdapters, FaultKind, limits_in
from engines.restarts import Restarts
from engines.selftest import SelfTest, SelfTestFailed
from engines.start import EngineStart
from engines.switching.turns import Turns
from engines.words import blames_machine, words_of
from fleet.mig import SliceName
from fleet.types import BaseModel

WATCH_INTERVAL_S = 0.2
log = logging.getLogger("tenantry.engine")


class Supervisor:
    """The engines of one replica, one after the other, in its worker process.

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
        shared: Shared | None = None,
        on_slice: SliceName | None = None,
    ) -> None:
        """With a `traces_endpoint` (OTLP over HTTP) the engine sends its spans there.

        vLLM's processes do not get the `withheld` environment variables. Where this process is `shared` with
        engines of other models, this one begins on disk, and is tried once whenever it is told to start. With
        `on_slice` each engine runs on that MIG slice, or not at all.
        """
        self.replica = replica
        self.model = model  # with the settings that the next engine is to have
        self.metrics = EngineMetrics(alone=shared is None)
        self.running: Running | None = None
        self.sleeps = 0  # the level at which its engine sleeps; 0: it does not
        self.limits: dict[str, Any] = {}  # of the last engine, as `Residency` names them
        self.reconciler = Reconciler(slots=model.max_loras, metrics=self.metrics.adapters)
        self.draining = False
        self.source = ""  # where the weights of the last engine are; empty: there was none
        self._on_demand = shared is not None
        self._stopped = self._on_demand  # an engine runs only once it is told to start
        self.turns: Turns | None = None  # with them it may leave its engine to another one
        self._told = asyncio.Event()  # it has been given an order
        self._rests = asyncio.Event()  # nothing of an engine is there, and none is to come
        self._settled = asyncio.Event()  # it is ready, or rests
        self._aborting: asyncio.Task[None] | None = None
        self._source: Source | None = None  # of the next engine; None: it is built
        self._given_away: Built | None = None  # the engine that does not end with its supervision
        self._start_asked = False  # now, whatever the delay
        self._model = model  # as the one that loads or runs has it
        self.files: AdapterFiles | None = None  # its adapters'
        self._start = EngineStart(
            replica,
            model,
            shutdown_grace_s=shutdown_grace_s,
            traces_endpoint=traces_endpoint,
            withheld=withheld,
            on_slice=on_slice,
            shared=shared,
        )
        self._restarts = Restarts(replica, on_demand=self._on_demand)
        self._task: asyncio.Task[None] | None = None
        self._was_ready = False  # this engine, since it was loaded
        self._was_aborted = False  # it was told to stop while it loaded
        self._thread = builder_thread() if shared is None else shared.thread
        self._builder = Builder(
            lambda forked=False: self._start.make(self._model, self.metrics, forked=forked),
            lambda built: built.engine.shutdown(0),
            end=lambda: orphans.end_own(replica),
            thread=self._thread,
        )

    def start(self) -> None:
        """Begin loading, at once. Call it in the main thread, inside the running loop."""
        drain_on_signals([self])
        self.begin()

    def begin(self) -> None:
        """Begin supervision, without taking signals."""
        self._task = asyncio.create_task(self._supervise())

    @property
    def is_loading(self) -> bool:
        """Whether an engine is on its way that has not passed its self-test."""
        return not (self._was_ready or self._rests.is_set())

    async def stop(self) -> None:
        """Shut the engine down and leave no process behind."""
        self.draining = True
        if self._aborting is not None:
            await cancel(self._aborting)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if not self._on_demand:  # else others may still use it
            self._thread.shutdown(wait=False)
        self._start.last_words.close()

    def follow(self, order: EngineOrder, *, source: Source | None = None) -> None:
        """Restart, stop or start the engine, soon. An engine of its own is never prepared.

        One that loads is ended once it has loaded, or at once where others of this process want its place.
        With a `source` the engine that starts is not built but had from there. It has the settings that
        `model` has by then.
        """
        if order is EngineOrder.PREPARE:
            return
        was_stopped, self._stopped = self._stopped, order is EngineOrder.STOP
        if order is EngineOrder.RESTART or (was_stopped and not self._stopped):
            self._source = source
            self._start_asked = True
            self._rests.clear()
            self._settled.clear()
            if self.running is None:
                self._restarts.told_to_start()
        elif self._stopped and self._on_demand and self.is_loading and not self._was_aborted:
            self._was_aborted = True
            self._aborting = asyncio.create_task(self._abort_load())
        self._told.set()

    async def release(self) -> Built:
        """Stop serving, and give the engine away as it runs; return it.

        Whoever gets it ends it, or has another supervisor take it over as its source. Raises `EngineDied`
        where none runs.
        """
        running = self.running
        if not self.is_ready() or running is None or running.built is None:
            raise EngineDied("the engine does not run")
        built = self._given_away = running.built
        self.follow(EngineOrder.STOP)
        await self.rests()
        if self._given_away is not built:
            raise EngineDied("the engine died")
        self._given_away = None
        return built

    def why_not_fork(self) -> str:
        """Return why no engine can be forked now, or ""."""
        return self._start.why_not_fork(self.model)

    async def fork(self) -> Built:
        """Start an engine's processes from the fork server: a source of the next engine."""
        return await self._builder.build(True)

    def fell_asleep(self, level: int) -> None:
        """Take note that the engine sleeps: it is not awake, and its processes stay."""
        self.sleeps = level
        self._restarts.fell_asleep(level)

    def woke_up(self, running: Running, took_s: float) -> None:
        """Take note that the engine is awake again, after so long."""
        self.running, self.sleeps = running, 0
        self._restarts.passed(took_s)

    async def _abort_load(self) -> None:
        """End the processes of an engine that loads, and those that are still to come of it.

        The thread that starts them goes on, to its next error: an exception from here could break imports,
        which the next engine of this process needs.
        """
        while self._stopped and not self._rests.is_set():
            await asyncio.to_thread(orphans.end_own, self.replica)
            await asyncio.sleep(WATCH_INTERVAL_S)

    async def rests(self) -> None:
        """Wait until nothing of an engine is there, and none is to come."""
        await self._rests.wait()

    async def settles(self) -> bool:
        """Wait until it is ready or rests, after an order to start; return whether it is ready."""
        await self._settled.wait()
        return self.is_ready()

    # -- how it stands -------------------------------------------------------------------------------------

    @property
    def is_awake(self) -> bool:
        """Whether anything of an engine is there, or to come: it takes memory, or may at any moment."""
        return not (self.sleeps or self._rests.is_set() or self._task is None)

    @property
    def is_ending(self) -> bool:
        """Whether it is awake and told to stop, so that it will rest."""
        return self.is_awake and self._stopped

    @property
    def marked(self) -> str:
        """The replica that the processes of the engine that runs are marked with."""
        built = self.running.built if self.running is not None else None
        return self.replica if built is None else built.marked

    @property
    def failed_starts(self) -> int:
        """How many starts have failed since the last one that did not."""
        return self._restarts.failed_starts

    def is_ready(self) -> bool:
        """Whether the engine has passed its self-test and is not dead, silent or draining. Never raises."""
        if self.running is None or self.sleeps or self.running.engine.errored or self.draining:
            return False
        heartbeat = self.running.heartbeat
        return heartbeat is None or not heartbeat.is_silent()

    def is_alive(self) -> bool:
        """Whether starting the engine still makes sense. Never raises."""
        return self._restarts.is_alive()

    def health(self) -> EngineHealth:
        """Return the engine's state. Never raises."""
        return self._restarts.health(answers=self.is_ready(), draining=self.draining)

    def blame(self, name: str, kind: FaultKind, reason: str) -> None:
        """Record a failure of an adapter, unless the engine died of something that no adapter causes."""
        words = self._start.last_words.read(DYING_S) if kind is FaultKind.CRASH else ""
        if not blames_machine(words):
            self.reconciler.blame(name, kind, f"{reason}: {words}" if words else reason)

    # -- one engine after the other ------------------------------------------------------------------------

    async def _supervise(self) -> None:
        if self._stopped:
            await self._until_next_start()
        while not self.draining:
            async with contextlib.AsyncExitStack() as stack:
                try:
                    began_s = time.monotonic()
                    self._start_asked = False
                    self._model, self.source = self.model, self.model.source
                    self.reconciler.take_slots(self._model.max_loras)
                    self.running = await self._load(stack)
                    # Else this is the engine that was asked for meanwhile.
                    self._start_asked = self._model != self.model
                    self._restarts.passed(time.monotonic() - began_s)
                    if not self._start_asked:
                        self._settled.set()
                    await self._watch(self.running)
                except Exception as error:
                    if self.draining:  # its processes were ended while it loaded
                        break
                    log.debug("%s: the engine did not start", self.replica, exc_info=True)
                    if not self._was_aborted:
                        self.reconciler.forgive()  # if none comes back, no adapter ended the last one
                        self._restarts.did_not_start(self._start.why_failed(error))
                    if self._start_asked:  # with other settings, perhaps
                        self._restarts.told_to_start()
                    else:
                        self._stopped = self._stopped or self._on_demand
                finally:
                    self.running, self.sleeps = None, 0
            await self._until_next_start()

    async def _until_next_start(self) -> None:
        VLLM_CLIENT_LOG.disabled = self.draining
        due_s = time.monotonic() + self._restarts.delay_s
        await asyncio.sleep(0)
        while self._stopped or (not self._start_asked and time.monotonic() < due_s):
            if self._stopped:
                self._rest()
            await self._until_told(None if self._stopped else due_s - time.monotonic())

    async def _until_told(self, within_s: float | None) -> None:
        self._told.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._told.wait(), within_s)

    def _rest(self) -> None:
        """Nothing of an engine is there; adapters are told anew to one that is to come on demand."""
        self._restarts.told_to_end(stay=True)
        if self._on_demand:
            self.reconciler.desire(DesiredAdapters(0, ()))
        self._rests.set()
        self._settled.set()

    async def _watch(self, running: Running) -> None:
        """Return once the engine has died, or is to end."""
        while not (running.engine.errored or self._stopped or self._start_asked):
            await self._until_told(WATCH_INTERVAL_S)  # vLLM has no event for a death
        if not running.engine.errored:
            VLLM_CLIENT_LOG.disabled = True  # until it has ended
            self._restarts.told_to_end(stay=self._stopped)
            return
        if self.sleeps:  # it is missed once its turn comes
            self._stopped = True
            return
        if running.loader is not None:
            running.loader.engine.declare_dead()
        if self.draining:  # it ended on the same signal as this process will
            await asyncio.Event().wait()
        self._restarts.died(self._start.last_words.read(DYING_S) or ended_how(running.engine))
        self._source = None if self.why_not_fork() else self.fork  # if that fails, the next one is not forked

    # -- loading -------------------------------------------------------------------------------------------

    async def _load(self, stack: contextlib.AsyncExitStack) -> Running:
        """Start an engine, test it, and keep its adapters from then on; the stack ends all of it."""
        self._was_ready = self._was_aborted = False
        await self._start.prepare()
        log.info("%s: loading %s", self.replica, self._model.name)
        if self.turns is not None:
            self.turns.expect(self._model.name)
        built = await self._build(stack)
        engine, is_new = built.engine, built.app is None
        tasks = await engine.get_supported_tasks()
        if is_new:
            if self.turns is not None:
                await self.turns.began(self._model.name, engine, tasks)
            built.app = await vllm_engine.start_app(built.closing, built.args, engine, tasks, built.metrics)
            await self._prove(engine, built.app, tasks)
        loader, trials = None, None
        if self._model.serves_adapters:
            folder_of = nowhere if self.files is None else self.files.folder_of
            loader, trials = keep_adapters(
                stack, built, tasks, self._model, self.reconciler, self.blame, folder_of
            )
        if self.turns is not None:
            differs = self.metrics.switching.wake_check_failed
            await self.turns.verify(engine, loader, is_new=is_new, differs=differs)
        self.limits = vllm_engine.limits_of(engine) | limits_in(self._model)
        # Any call that the core's loop answers would do; this one changes nothing and reaches no worker.
        silent_after_s = SILENT_AFTER_ON_CPU_S if self._start.on_cpu else SILENT_AFTER_S
        heartbeat = Heartbeat(engine.is_sleeping, silent_after_s=silent_after_s)
        stack.push_async_callback(cancel, asyncio.create_task(heartbeat.run()))
        self._was_ready = True
        return Running(engine, built.app, loader, trials, heartbeat, built)

    async def _build(self, stack: contextlib.AsyncExitStack) -> Built:
        """Start the engine's processes in a thread, minutes on a GPU; or have the engine from its source."""
        source, self._source = self._source, None
        progress = asyncio.create_task(self._start.log_progress())
        try:
            built = await (self._builder.build() if source is None else source())
        finally:
            await cancel(progress)
        self.metrics.engine = built.metrics
        stack.push_async_callback(self._leave, built)
        return built

    async def _prove(self, engine: Any, app: Any, tasks: Sequence[str]) -> None:
        """Run the self-test. Raises `SelfTestFailed` with the engine's own error."""
        model, brief = self._model, self.turns is not None and await self.turns.is_proven(engine)
        try:
            await SelfTest(engine, app, model.name, tasks, trials=model.serves_adapters, brief=brief).run()
        except SelfTestFailed as error:
            died_of = (self._start.last_words.read() or ended_how(engine)) if engine.errored else ""
            raise SelfTestFailed(f"self-test, {error}: {died_of or words_of(error)}") from error
        if self.turns is not None:
            self.turns.passed(engine)

    async def _leave(self, built: Built) -> None:
        if self._given_away is not built or built.engine.errored:
            await built.closing.aclose()
        await asyncio.to_thread(self._end, built)

    def _end(self, built: Built) -> None:
        """End an engine: a serving one after it has drained, another one at once; not one given away."""
        engine = built.engine
        if self._given_away is built and not engine.errored:
            return
        self._given_away = None
        if self.turns is not None:
            self.turns.ended(engine)
        if not self._was_ready:
            orphans.end_own(built.marked)
        engine.shutdown(engine.vllm_config.shutdown_timeout if self._was_ready else 0)
        orphans.end_own(built.marked)  # vLLM's workers take some seconds to notice that their engine is gone

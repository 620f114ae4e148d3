"""Tokens per second of an engine that came by turns, and of plain vLLM with the same model and settings."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import uvicorn

from benchmarks.endpoint import Target
from benchmarks.processes import free_port
from benchmarks.scenarios import prompts
from benchmarks.switches.host import Host
from benchmarks.tools import Endpoint, Load, ToolError, run_load

CONNECTIONS = 16
MAX_TOKENS = 48
BODIES = 256


def drive(target: Target, folder: Path, seconds: float) -> float:
    """Ask as much as it takes; returns tokens per second. Raises `ToolError`."""
    bodies = folder / "bodies.jsonl"
    extra: dict[str, object] = {"max_tokens": MAX_TOKENS, "ignore_eos": True}
    bodies.write_text(prompts(random.Random(1), BODIES, list(target.models), extra))
    load = Load(CONNECTIONS, seconds, warmup_s=2.0, timeout_s=60.0)
    result = run_load(target.endpoint, load, bodies)
    if result.errors or not result.done_tokens:
        raise ToolError(f"{target.name}: {result.errors} of {result.requests} failed: {result.first_error}")
    return result.done_tokens_per_s


async def drive_host(host: Host, folder: Path, seconds: float) -> float:
    """The same of the model that is awake at a host, over HTTP. Raises `ToolError`."""
    port = free_port()
    config = uvicorn.Config(
        host.app, host="127.0.0.1", port=port, access_log=False, log_level="warning", lifespan="off"
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0.01)
        headers = tuple(f"{name}: {value}" for name, value in host.headers().items())
        target = Target("the host", Endpoint(f"127.0.0.1:{port}", headers), (str(host.now),))
        return await asyncio.to_thread(drive, target, folder, seconds)
    finally:
        server.should_exit = True
        await serving

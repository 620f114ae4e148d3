"""Plain vLLM's server for one model: what a switch costs where one is stopped and the other started."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.endpoint import Target, wait_for_chat
from benchmarks.processes import Child, free_port, start, stop
from benchmarks.switches.report import PLAIN, Switch
from benchmarks.tools import Endpoint
from engines.vllm_args import engine_environment
from fleet.types import BaseModel

STARTS_WITHIN_S = 300.0
GRACE_S = 10.0  # for what runs there; nothing does


def serve(folder: Path, model: Path, *, on_cpu: bool) -> tuple[Child, Target]:
    """Start one; returns it, and where it will answer."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1"),
        *("--port", str(port), "--model", str(model), "--served-model-name", model.name),
        *("--max-model-len", "512", "--kv-cache-memory-bytes", str(2**28)),
        *(["--enforce-eager"] if on_cpu else []),
    ]
    environment = engine_environment([BaseModel(model.name, str(model))], on_cpu=on_cpu)
    child = start(command, folder / f"{model.name}.log", env=environment)
    return child, Target(model.name, Endpoint(f"127.0.0.1:{port}"), (model.name,))


@contextmanager
def served(folder: Path, model: Path, *, on_cpu: bool) -> Iterator[Target]:
    """Have one answer meanwhile. Raises `ToolError`."""
    child, target = serve(folder, model, on_cpu=on_cpu)
    try:
        wait_for_chat(target, child, STARTS_WITHIN_S)
        yield target
    finally:
        stop(child, GRACE_S)


def switch(folder: Path, models: tuple[Path, Path], *, on_cpu: bool) -> Switch:
    """Stop the one that runs, and start the other: seconds until its first answer. Raises `ToolError`."""
    going, target = serve(folder, models[0], on_cpu=on_cpu)
    coming: Child | None = None
    try:
        wait_for_chat(target, going, STARTS_WITHIN_S)
        began_s = time.monotonic()
        stop(going, GRACE_S)
        coming, target = serve(folder, models[1], on_cpu=on_cpu)
        wait_for_chat(target, coming, STARTS_WITHIN_S)
        took_s = time.monotonic() - began_s
        return Switch(PLAIN, took_s, took_s)
    finally:
        for child in (going, coming):
            if child is not None:
                stop(child, GRACE_S)

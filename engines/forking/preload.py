"""Makes a process a fork server: importing this module has it import what an engine's core and workers need.

Python's fork server imports it before it takes the first order. It reports to its host in a file: what it
has done, or why it is no good. A child of a process with other threads may find their locks held for ever,
and CUDA does not survive a fork: with either, the host does not use it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from engines import logs
from engines.forking.child import find_mark
from engines.forking.dying import die_with_parent

ORDER = "TENANTRY_FORK_SERVER"  # environment: JSON of `report`, `imports`, `architectures`


def serve(order: dict[str, Any]) -> None:
    """Prepare this process as it was ordered, and say so."""
    began_s = time.monotonic()
    report = Path(order["report"])
    _say(report, {"pid": os.getpid()})
    try:
        for module in order["imports"]:
            importlib.import_module(module)
        _import_models(order["architectures"])
    except Exception as error:
        _say(report, {"pid": os.getpid(), "why_not": f"{type(error).__name__}: {error}"})
        raise
    gc.collect()
    gc.freeze()  # so that a child's collections touch, and copy, none of this
    _say(report, {"pid": os.getpid(), "took_s": time.monotonic() - began_s, "why_not": _why_not()})


def _import_models(architectures: list[str]) -> None:
    """Import vLLM's modules of these models, as far as it knows them (0.32: `ModelRegistry.models`)."""
    if not architectures:
        return
    from vllm.model_executor.models.registry import ModelRegistry

    for name in architectures:
        module = getattr(ModelRegistry.models.get(name), "module_name", None)
        if module is not None:
            with contextlib.suppress(ImportError):  # the engine says what is missing
                importlib.import_module(module)


def _why_not() -> str:
    """Say why this process must not be forked; empty: it may."""
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        return f"it has {threads} threads after its imports"
    with contextlib.suppress(ImportError):
        import torch

        if torch.cuda.is_initialized():
            return "CUDA is initialised in it"
    return ""


def _say(report: Path, said: dict[str, Any]) -> None:
    """Write the report as a whole."""
    new = report.with_suffix(".new")
    new.write_text(json.dumps(said))
    new.replace(report)


_order = os.environ.pop(ORDER, None)
if _order is not None:
    die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # BentoML signals all processes; engines end in their order
    find_mark()
    logs.set_up()
    serve(json.loads(_order))

"""Keeps the last error that an engine's processes logged before they died.

Where vLLM's EngineCore fails, this process learns no more than "see stack trace (above)": the exception stays
in the child's log. So the children keep the last exception that vLLM logs in a file of this start, whose path
they find in their environment. They are spawned at a function of this module, which arranges that and then
goes on to vLLM's own (0.32: `EngineCoreProc.run_engine_core`, `WorkerProc.worker_main`).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engines.words import in_a_line, points_elsewhere, words_of

ENVIRONMENT = "TENANTRY_LAST_WORDS"

DYING_S = 30.0  # errors that an engine survived are no last words
_worker_main: Callable[..., None] | None = None  # vLLM's own, in a core that has replaced it


class LastWords:
    """The last errors of one engine after the other."""

    def __init__(self) -> None:
        self._path: Path | None = None  # in a folder that only this user can enter

    def listen(self) -> dict[str, str]:
        """Forget earlier errors; return the environment for the next engine's processes."""
        if self._path is None:
            self._path = Path(tempfile.mkdtemp(prefix="tenantry-engine-")) / "words"
        self._path.unlink(missing_ok=True)
        return {ENVIRONMENT: str(self._path)}

    def close(self) -> None:
        """Leave nothing behind."""
        if self._path is not None:
            shutil.rmtree(self._path.parent, ignore_errors=True)

    def read(self, within_s: float = math.inf) -> str:
        """Return the last error since `listen`, or within the last seconds; "" if there is none."""
        if self._path is None:
            return ""
        try:
            if time.time() - self._path.stat().st_mtime > within_s:
                return ""
            return in_a_line(self._path.read_text(errors="replace"))
        except OSError:
            return ""


def follow_engine_core() -> None:
    """Make engines that this process starts from now on keep their errors. Imports vLLM."""
    from vllm.v1.engine.core import EngineCoreProc

    EngineCoreProc.run_engine_core = staticmethod(run_engine_core)


def run_engine_core(*args: Any, **options: Any) -> None:
    """Run as vLLM's engine process that keeps its errors, and its workers'."""
    from vllm.v1.engine.core import EngineCoreProc
    from vllm.v1.executor.multiproc_executor import WorkerProc

    global _worker_main
    keep_errors()
    _worker_main = WorkerProc.worker_main
    WorkerProc.worker_main = staticmethod(run_worker)
    EngineCoreProc.run_engine_core(*args, **options)


def run_worker(*args: Any, **options: Any) -> None:
    """Run as vLLM's worker process of one device that keeps its errors."""
    from vllm.v1.executor.multiproc_executor import WorkerProc

    keep_errors()
    (_worker_main or WorkerProc.worker_main)(*args, **options)


def keep_errors() -> None:
    """Keep each exception that vLLM logs from now on in the file of this start.

    Through the factory of records, since vLLM replaces its loggers' handlers afterwards.
    """
    path = os.environ.get(ENVIRONMENT)
    if path is not None:
        logging.setLogRecordFactory(_keeping(Path(path), logging.getLogRecordFactory()))


def _keeping(path: Path, make: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def make_and_keep(*args: Any, **options: Any) -> logging.LogRecord:
        record = make(*args, **options)
        if record.levelno >= logging.ERROR and record.exc_info and record.exc_info[1] is not None:
            with contextlib.suppress(OSError):
                _keep(path, record.exc_info[1])
        return record

    return make_and_keep


def _keep(path: Path, error: BaseException) -> None:
    """Keep the error, unless it only points to another one that is kept already."""
    if not (points_elsewhere(str(error)) and path.exists()):
        path.write_text(words_of(error))


def ended_how(engine: Any) -> str:
    """Return how a dead engine's process ended, as far as vLLM (0.32) knows."""
    try:
        codes = [process.exitcode for process in engine.engine_core.resources.engine_manager.processes]
    except AttributeError:
        codes = []
    for code in codes:
        if code is not None and code < 0:
            return f"its process was ended by {signal.Signals(-code).name}"
    return "its process ended without a word"

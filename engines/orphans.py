"""Ends engine processes that a killed worker left behind, found by a mark in their environment.

vLLM's EngineCore outlives a parent that dies by SIGKILL and keeps its GPU memory (vllm-project/vllm#55510).
Every engine process inherits a mark that names its replica and worker; without that worker it is an orphan.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from pathlib import Path

REPLICA_MARK = "TENANTRY_ENGINE_OF_REPLICA"
WORKER_MARK = "TENANTRY_ENGINE_OF_WORKER"
log = logging.getLogger("tenantry.engine")


def mark(replica: str) -> dict[str, str]:
    """Environment that marks engine processes of this worker."""
    return {REPLICA_MARK: _replica_mark(replica), WORKER_MARK: _identity(os.getpid())}


def reap(replica: str, proc: Path = Path("/proc")) -> list[int]:
    """Kill engine processes of this replica whose worker is dead; return their pids. Linux only."""
    reaped = []
    for folder in proc.glob("[0-9]*"):
        environment = _environment(folder)
        if environment.get(REPLICA_MARK) != _replica_mark(replica):
            continue
        worker = environment.get(WORKER_MARK, "")
        pid = int(folder.name)
        if pid != os.getpid() and worker != _identity(int(worker.partition(":")[0] or 0), proc):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                reaped.append(pid)
    if reaped:
        log.warning("%s: ended %d engine processes that a killed worker left behind", replica, len(reaped))
    return reaped


def end_own(proc: Path = Path("/proc")) -> list[int]:
    """Kill every engine process of this worker; return their pids. Linux only."""
    worker, ended = _identity(os.getpid()), []
    for folder in proc.glob("[0-9]*"):
        pid = int(folder.name)
        if pid == os.getpid() or _environment(folder).get(WORKER_MARK) != worker or _tidies_up(folder):
            continue
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
            ended.append(pid)
    return ended


def _tidies_up(folder: Path) -> bool:
    """Whether it is Python's resource tracker, which ends last and removes the others' shared memory."""
    try:
        return b"multiprocessing.resource_tracker" in (folder / "cmdline").read_bytes()
    except OSError:
        return False


def _replica_mark(replica: str) -> str:
    """Replicas of the same name in two deployments on one machine are told apart by their working folder."""
    return f"{replica}@{os.getcwd()}"


def _identity(pid: int, proc: Path = Path("/proc")) -> str:
    """A pid with its start time, since pids are reused; empty for a process that is gone."""
    try:
        stat = (proc / str(pid) / "stat").read_text()
    except OSError:
        return ""
    start_ticks = stat.rpartition(")")[2].split()[19]  # proc(5): field 22, after the name in brackets
    return f"{pid}:{start_ticks}"


def _environment(folder: Path) -> dict[str, str]:
    try:
        content = (folder / "environ").read_bytes()
    except OSError:
        return {}
    pairs = (item.partition(b"=") for item in content.split(b"\0") if item)
    return {name.decode(errors="replace"): value.decode(errors="replace") for name, _, value in pairs}

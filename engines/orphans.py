"""Ends engine processes that a killed worker left behind, found by a mark in their environment.

vLLM's EngineCore outlives a parent that dies by SIGKILL and keeps its GPU memory (vllm-project/vllm#55510).
Every engine process inherits a mark that names its replica and worker; without that worker it is an orphan.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections import Counter
from pathlib import Path

REPLICA_MARK = "TENANTRY_ENGINE_OF_REPLICA"
WORKER_MARK = "TENANTRY_ENGINE_OF_WORKER"
log = logging.getLogger("tenantry.engine")


def mark(replica: str) -> dict[str, str]:
    """Environment that marks engine processes of this worker."""
    return {REPLICA_MARK: _replica_mark(replica), WORKER_MARK: _identity(os.getpid())}


def reap(*replicas: str, host: str | None = None, proc: Path = Path("/proc")) -> list[int]:
    """Kill engine processes of these replicas whose worker is dead; return their pids. Linux only.

    With a shared host's name, those of all its models: also of one that was added while it ran.
    """
    reaped: list[int] = []
    left_behind: Counter[str] = Counter()
    for folder in proc.glob("[0-9]*"):
        environment = _environment(folder)
        replica = _replica_of(environment.get(REPLICA_MARK, ""))
        if not (replica in replicas or (host is not None and replica.startswith(f"{host}."))):
            continue
        worker = environment.get(WORKER_MARK, "")
        pid = int(folder.name)
        if pid != os.getpid() and worker != _identity(int(worker.partition(":")[0] or 0), proc):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                reaped.append(pid)
                left_behind[replica] += 1
    for replica, count in left_behind.items():
        log.warning("%s: ended %d engine processes that a killed worker left behind", replica, count)
    return reaped


def own(replica: str, proc: Path = Path("/proc")) -> list[int]:
    """List the pids of this worker's engine processes of one replica. Linux only."""
    wanted, found = mark(replica), []
    for folder in proc.glob("[0-9]*"):
        environment = _environment(folder)
        if int(folder.name) != os.getpid() and wanted.items() <= environment.items():
            found.append(int(folder.name))
    return found


def end_own(replica: str, proc: Path = Path("/proc")) -> list[int]:
    """Kill this worker's engine processes of one replica; return their pids. Linux only."""
    ended = []
    for pid in own(replica, proc):
        if _tidies_up(proc / str(pid)):
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


def _replica_of(mark: str) -> str:
    """The replica of a mark; empty: of another working folder, or none."""
    return mark.removesuffix(_replica_mark("")) if mark.endswith(_replica_mark("")) else ""


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

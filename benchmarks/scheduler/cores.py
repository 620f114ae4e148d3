"""Who computes where, and who used how much? Engines, gateway, this process and everybody else.

Each engine gets a core of its own, as it would have a GPU of its own. On it, vLLM's EngineCore and worker
spin while they wait for each other, and whatever answers (this process, gateway or routers, the engines'
HTTP servers) would wait behind them for tenths of seconds. So what answers goes first, for every
scheduler alike.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import PROC, busy_seconds, cpu_seconds, running_family
from benchmarks.tools import ToolError

SERVICE_NAME = "--service-name"


@dataclass(frozen=True, slots=True)
class Cores:
    """Mean use over some time, in cores."""

    load: float  # this process
    gateway: float  # or a baseline's routers
    engines: float
    others: float  # whatever else ran on this machine


@dataclass(frozen=True, slots=True)
class Roles:
    """Which processes are what."""

    gateway: int  # pids; whatever comes of one counts with it
    engines: tuple[int, ...]
    routers: tuple[int, ...] = ()  # of baselines

    @classmethod
    def find(cls, service: int, engines: Sequence[str], routers: Sequence[int] = ()) -> Roles:
        """By the names BentoML gives its workers. Raises ToolError where one is missing."""
        workers = {}
        for member in running_family(service):
            name = worker_name(_command_line(member.pid))
            if name is not None:
                workers[name] = member.pid
        missing = {"gateway", *engines} - workers.keys()
        if missing:
            raise ToolError(f"the service has no worker {', '.join(sorted(missing))}")
        return cls(workers["gateway"], tuple(workers[name] for name in engines), tuple(routers))


def seat(roles: Roles) -> str:
    """Give every engine a core, and let what answers go first, which needs root; says what was done."""
    cores = sorted(os.sched_getaffinity(0))
    for number, engine in enumerate(roles.engines):
        for member in running_family(engine):
            for thread in threads(member.pid):
                os.sched_setaffinity(thread, {cores[number % len(cores)]})
    try:
        for pid in (os.getpid(), roles.gateway, *roles.routers, *roles.engines):
            for thread in threads(pid):
                os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        return (
            "each engine on one core; without root load, routers and HTTP servers wait behind vLLM's spinning"
        )
    return "each engine on one core; load, routers and engines' HTTP servers go first (SCHED_RR)"


def threads(pid: int) -> Iterator[int]:
    """Of one process, now."""
    for folder in (PROC / str(pid) / "task").iterdir():
        yield int(folder.name)


def worker_name(command_line: str) -> str | None:
    """The service a BentoML worker runs, by its arguments; None for any other process."""
    words = command_line.split("\0")
    if SERVICE_NAME not in words[:-1]:
        return None
    return words[words.index(SERVICE_NAME) + 1]


def _command_line(pid: int) -> str:
    try:
        return (PROC / str(pid) / "cmdline").read_text(errors="replace")
    except OSError:  # it ended meanwhile
        return ""


@dataclass(frozen=True, slots=True)
class Clocks:
    """CPU time used so far, in seconds."""

    wall_s: float
    load_s: float
    gateway_s: float
    engines_s: float
    busy_s: float  # by everybody

    @classmethod
    def read(cls, roles: Roles) -> Clocks:
        """Read them all now."""
        return cls(
            wall_s=time.monotonic(),
            load_s=time.process_time(),
            gateway_s=cpu_seconds(roles.gateway) + sum(cpu_seconds(pid) for pid in roles.routers),
            engines_s=sum(cpu_seconds(pid) for pid in roles.engines),
            busy_s=busy_seconds(Path("/proc/stat").read_text(), ()),
        )

    def cores_since(self, before: Clocks) -> Cores:
        """What was used since."""
        wall_s = self.wall_s - before.wall_s
        load = (self.load_s - before.load_s) / wall_s
        gateway = (self.gateway_s - before.gateway_s) / wall_s
        engines = (self.engines_s - before.engines_s) / wall_s
        busy = (self.busy_s - before.busy_s) / wall_s
        return Cores(load, gateway, engines, max(0.0, busy - load - gateway - engines))

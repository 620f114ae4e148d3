"""Which processes does a benchmark start, and what do they use? Starts, pins, watches and ends them.

Ends only what it started, and everything that came of it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """The fields of /proc/PID/stat that are of use here."""

    pid: int
    state: str
    parent: int
    session: int
    ticks: int  # of CPU, waited-for children included


@dataclass(frozen=True, slots=True)
class Child:
    """A process that was started here, with its own session, and the file its output goes to."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Its process id, which is also its session's."""
        return self.process.pid

    def last_words(self, lines: int = 15) -> str:
        """The end of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def pin_to(cpu: int | None) -> Callable[[], None] | None:
    """What a child runs first to stay on one CPU; `None` where it may run anywhere."""
    if cpu is None:
        return None
    return lambda: os.sched_setaffinity(0, {cpu})


def end_on_sigterm() -> None:
    """Let SIGTERM unwind this process as an exit does, so that it ends what it has started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def start(
    command: Sequence[str], log: Path, *, cpu: int | None = None, env: Mapping[str, str] | None = None
) -> Child:
    """Start a command in a session of its own, pinned where asked, `env` added to ours."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
            preexec_fn=pin_to(cpu),
        )
    return Child(process, log)


def parse_stat(text: str) -> ProcessStat:
    """Read one /proc/PID/stat line; the command in it may hold spaces and brackets."""
    fields = text[text.rindex(")") + 2 :].split()
    return ProcessStat(
        pid=int(text[: text.index(" ")]),
        state=fields[0],
        parent=int(fields[1]),
        session=int(fields[3]),
        ticks=sum(int(field) for field in fields[11:15]),
    )


def family(root: int, everybody: Sequence[ProcessStat]) -> list[ProcessStat]:
    """The root, what is in its session, and all their descendants."""
    inside = {stat.pid for stat in everybody if stat.pid == root or stat.session == root}
    while True:
        more = {stat.pid for stat in everybody if stat.parent in inside} - inside
        if not more:
            return [stat for stat in everybody if stat.pid in inside]
        inside |= more


def running_family(root: int) -> list[ProcessStat]:
    """As `family`, of what runs now; processes that have ended but were not waited for are left out."""
    stats = []
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            try:
                stats.append(parse_stat((folder / "stat").read_text(errors="replace")))
            except OSError:  # it ended meanwhile
                continue
    return [stat for stat in family(root, stats) if stat.state != "Z"]


def cpu_seconds(root: int) -> float:
    """CPU time a process and all that came of it have used so far, in seconds."""
    return sum(stat.ticks for stat in running_family(root)) / os.sysconf("SC_CLK_TCK")


def busy_seconds(proc_stat: str, cpus: Collection[int]) -> float:
    """CPU seconds everybody has used on these CPUs, by the text of /proc/stat; on all where none is named.

    Time stolen by other guests of the host does not count: the kernel cannot say whose it is.
    """
    ticks = 0
    for line in proc_stat.splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu" and (not cpus or int(name[3:]) in cpus):
            user, nice, system, _idle, _iowait, irq, softirq = (int(field) for field in fields[:7])
            ticks += user + nice + system + irq + softirq
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_bytes(root: int) -> int:
    """Resident memory of a process and all that came of it; pages they share count once for each."""
    total = 0
    for stat in running_family(root):
        try:
            total += int((PROC / str(stat.pid) / "statm").read_text().split()[1])
        except OSError:  # it ended meanwhile
            continue
    return total * os.sysconf("SC_PAGE_SIZE")


def stop(child: Child, grace_s: float = 10.0) -> None:
    """End a child and all that came of it: politely, and after `grace_s` seconds for certain."""
    for sign, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        members = [stat.pid for stat in running_family(child.pid)]
        for pid in members:
            try:
                os.kill(pid, sign)
            except ProcessLookupError:
                continue
        end = time.monotonic() + wait_s
        while time.monotonic() < end:
            running = any(_is_running(pid) for pid in members)
            child.process.poll()  # after the look: what has ended by then is waited for
            if not running:
                return
            time.sleep(0.02)


def _is_running(pid: int) -> bool:
    try:
        return parse_stat((PROC / str(pid) / "stat").read_text(errors="replace")).state != "Z"
    except OSError:
        return False


def free_port() -> int:
    """A TCP port of this machine that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

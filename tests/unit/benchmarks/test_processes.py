"""What a benchmark starts is found again, counted and ended."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks.processes import (
    ProcessStat,
    busy_seconds,
    cpu_seconds,
    family,
    parse_stat,
    resident_bytes,
    running_family,
    start,
    stop,
)


def stat(pid: int, parent: int, session: int = 1) -> ProcessStat:
    return ProcessStat(pid, "S", parent, session, 0)


def test_a_command_with_brackets_and_spaces_does_not_confuse_the_fields() -> None:
    line = "42 (a) b (c) S 7 42 9 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 1 0 100 1 1"
    assert parse_stat(line) == ProcessStat(pid=42, state="S", parent=7, session=9, ticks=100)


def test_a_family_is_the_root_its_session_and_all_their_descendants() -> None:
    everybody = [
        stat(1, 0),
        stat(10, 1, 10),
        stat(11, 1, 10),
        stat(12, 11, 12),
        stat(13, 12, 13),
        stat(20, 1),
    ]
    assert [member.pid for member in family(10, everybody)] == [10, 11, 12, 13]


def test_a_family_that_has_ended_is_empty() -> None:
    assert family(99, [stat(1, 0), stat(2, 1)]) == []


def test_busy_time_is_that_of_the_cpus_in_question_without_idle_and_steal() -> None:
    text = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 100 0 50 900 30 5 5 40 0 0\ncpu1 200 0 0 9 9 0 0 9 0 0\nintr 12\n"
    tick = os.sysconf("SC_CLK_TCK")
    assert busy_seconds(text, {0}) == 160 / tick
    assert busy_seconds(text, ()) == 360 / tick


def test_this_process_uses_memory_and_time() -> None:
    assert resident_bytes(os.getpid()) > 2**20
    assert cpu_seconds(os.getpid()) > 0


def test_a_child_is_pinned_and_ends_with_its_own_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, os; child = subprocess.Popen(['sleep', '60'], start_new_session=True);"
        "print(os.sched_getaffinity(0), flush=True); child.wait()"
    )
    cpu = min(os.sched_getaffinity(0))
    child = start([sys.executable, "-c", code], tmp_path / "log", cpu=cpu)
    while len(running_family(child.pid)) < 2 or not child.last_words():
        assert child.process.poll() is None
    members = [member.pid for member in running_family(child.pid)]
    stop(child)
    assert child.last_words() == str({cpu})
    assert child.process.poll() is not None
    assert not [pid for pid in members if running_family(pid)]


def test_a_benchmark_that_is_terminated_ends_what_it_has_started(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from benchmarks.processes import *; end_on_sigterm();"
        "folder = pathlib.Path(sys.argv[1]); child = start(['sleep', '60'], folder / 'child');\n"
        "try: print(child.pid, flush=True); child.process.wait()\n"
        "finally: stop(child)"
    )
    benchmark = start([sys.executable, "-c", code, str(tmp_path)], tmp_path / "log")
    while not benchmark.last_words():
        assert benchmark.process.poll() is None
    sleeper = int(benchmark.last_words())
    assert running_family(sleeper)
    benchmark.process.terminate()
    assert benchmark.process.wait(timeout=20) == 143
    assert not running_family(sleeper)

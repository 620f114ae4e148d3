"""A process that was told to end does end, whatever it is busy with."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest

from tests.processes import left_of

PROGRAM = """
import signal, subprocess, sys, time
from engines import last_resort
last_resort.LEEWAY_S = 0.1
{handler}
last_resort.bound_the_end(0.1)
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); "
                          "print('here', flush=True); time.sleep(60)"], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
{busy}
"""
HANGS = "signal.signal(signal.SIGTERM, lambda *_: None); signal.signal(signal.SIGINT, lambda *_: None)"
ENDS = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))"


def started(handler: str, busy: str) -> tuple[subprocess.Popen[str], psutil.Process]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(handler=handler, busy=busy)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, psutil.Process(int(process.stdout.readline()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "busy", ["time.sleep(60)\ntime.sleep(60)", "while True: pass"], ids=["waiting", "calculating"]
)
def test_what_does_not_end_is_ended_with_its_children(number: signal.Signals, busy: str) -> None:
    process, child = started(HANGS, busy)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "ended by force" in said
    assert left_of([child], within_s=10.0) == []


def test_what_ends_in_time_is_left_alone() -> None:
    process, child = started(ENDS, "time.sleep(60)")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    child.kill()
    process.communicate()

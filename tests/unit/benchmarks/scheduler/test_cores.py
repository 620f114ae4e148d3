"""Processes are found by what BentoML calls them, and CPU time becomes cores."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.processes import start, stop
from benchmarks.scheduler.cores import Clocks, Roles, threads, worker_name
from benchmarks.tools import ToolError


def test_a_worker_is_known_by_its_service() -> None:
    assert worker_name("python\0-m\0bentoml\0--service-name\0shared-0\0--fd\0003\0") == "shared-0"
    assert worker_name("circusd\0") is None
    assert worker_name("python\0--service-name") is None
    assert worker_name("") is None


def test_a_service_without_a_gateway_is_refused(tmp_path: Path) -> None:
    child = start([sys.executable, "-c", "input()"], tmp_path / "log")
    try:
        with pytest.raises(ToolError, match="gateway, shared-0"):
            Roles.find(child.pid, ["shared-0"])
    finally:
        stop(child)


def test_use_is_told_apart_and_nobody_else_gets_less_than_none() -> None:
    before = Clocks(wall_s=10.0, load_s=1.0, gateway_s=2.0, engines_s=20.0, busy_s=50.0)
    after = Clocks(wall_s=20.0, load_s=1.5, gateway_s=3.0, engines_s=37.0, busy_s=69.5)
    cores = after.cores_since(before)
    assert (cores.load, cores.gateway, cores.engines) == pytest.approx((0.05, 0.1, 1.7))
    assert cores.others == pytest.approx(0.1)
    still = Clocks(wall_s=20.0, load_s=1.5, gateway_s=3.0, engines_s=37.0, busy_s=60.0)
    assert still.cores_since(before).others == 0.0


def test_this_process_has_used_some_time() -> None:
    clocks = Clocks.read(Roles(gateway=os.getpid(), engines=()))
    assert clocks.load_s > 0 and clocks.busy_s > 0 and clocks.engines_s == 0


def test_threads_of_a_process_are_listed() -> None:
    assert os.getpid() in set(threads(os.getpid()))
    with subprocess.Popen([sys.executable, "-c", "pass"]) as gone:
        gone.wait()
    with pytest.raises(OSError):
        list(threads(gone.pid))

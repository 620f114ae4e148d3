"""Which engine processes are orphans?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engines import orphans


def engine_process(worker: str, replica: str = "shared-0") -> subprocess.Popen[bytes]:
    """A process marked as an engine's, started by the given worker."""
    env = {**os.environ, **orphans.mark(replica), orphans.WORKER_MARK: worker}
    process = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"], env=env, stdin=-1, stdout=-1
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def end(process: subprocess.Popen[bytes]) -> int:
    """Close and wait for a process; its exit status."""
    process.kill()
    process.communicate()
    return process.returncode


def test_an_engine_whose_worker_is_gone_is_ended() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    identity = orphans._identity(gone.pid)
    gone.wait()
    orphan = engine_process(identity)
    try:
        assert orphans.reap("shared-0") == [orphan.pid]
    finally:
        end(orphan)


def test_an_engine_whose_pid_of_a_worker_was_given_to_another_process_is_ended() -> None:
    orphan = engine_process(f"{os.getpid()}:1")
    try:
        assert orphans.reap("shared-0") == [orphan.pid]
    finally:
        end(orphan)


def test_engines_of_living_workers_and_of_other_replicas_are_left_alone() -> None:
    mine = engine_process(orphans.mark("shared-0")[orphans.WORKER_MARK])
    other = engine_process("1:1", replica="shared-1")
    try:
        assert orphans.reap("shared-0") == []
        assert mine.poll() is None and other.poll() is None
    finally:
        end(mine)
        end(other)


def test_all_replicas_of_a_host_are_looked_for_at_once(caplog: pytest.LogCaptureFixture) -> None:
    left = [engine_process("1:1", replica=f"mesh-0.{model}") for model in ("even", "odd", "odd")]
    try:
        found = orphans.reap("mesh-0.even", "mesh-0.odd", "mesh-0.third")
        assert sorted(found) == sorted(process.pid for process in left)
    finally:
        for process in left:
            end(process)
    assert sorted(caplog.messages) == [
        "mesh-0.even: ended 1 engine processes that a killed worker left behind",
        "mesh-0.odd: ended 2 engine processes that a killed worker left behind",
    ]


def test_a_host_finds_engines_of_models_that_were_added_while_it_ran_too() -> None:
    left = [engine_process("1:1", replica=name) for name in ("mesh-0.added", "mesh-0.even")]
    others = [engine_process("1:1", replica=name) for name in ("mesh-00.added", "mesh-0", "mesh-1.added")]
    try:
        found = orphans.reap("mesh-0.even", host="mesh-0")
        assert sorted(found) == sorted(process.pid for process in left)
        assert all(process.poll() is None for process in others)
    finally:
        for process in (*left, *others):
            end(process)


def test_engines_of_other_replicas_of_the_same_worker_are_nobody_elses_to_end() -> None:
    both = [
        engine_process(orphans.mark(name)[orphans.WORKER_MARK], replica=name)
        for name in ("mesh-0.even", "mesh-0.odd")
    ]
    try:
        assert orphans.own("mesh-0.odd") == [both[1].pid]
        assert orphans.end_own("mesh-0.even") == [both[0].pid]
        assert both[1].poll() is None
    finally:
        for process in both:
            end(process)


def test_a_process_that_cannot_be_read_is_no_orphan(tmp_path: Path) -> None:
    (tmp_path / "123").mkdir()
    assert orphans.reap("shared-0", proc=tmp_path) == []


def test_a_worker_ends_its_own_engines_processes_and_nobody_elses() -> None:
    mine = engine_process(orphans.mark("shared-0")[orphans.WORKER_MARK])
    others = engine_process("1:1")
    try:
        assert orphans.end_own("shared-0") == [mine.pid]
        assert mine.wait(10) == -signal.SIGKILL
        assert others.poll() is None
    finally:
        end(mine)
        end(others)


def test_the_process_that_removes_shared_memory_is_left_to_do_so(tmp_path: Path) -> None:
    folder = tmp_path / "123"
    folder.mkdir()
    (tmp_path / str(os.getpid())).symlink_to(f"/proc/{os.getpid()}")
    worker = orphans.mark("shared-0")[orphans.WORKER_MARK]
    replica = orphans.mark("shared-0")[orphans.REPLICA_MARK]
    environment = f"{orphans.WORKER_MARK}={worker}\0{orphans.REPLICA_MARK}={replica}\0"
    (folder / "environ").write_text(environment)
    (folder / "cmdline").write_text("python\0-c\0from multiprocessing.resource_tracker import main;main(5)\0")
    assert orphans.own("shared-0", proc=tmp_path) == [123]
    assert orphans.end_own("shared-0", proc=tmp_path) == []

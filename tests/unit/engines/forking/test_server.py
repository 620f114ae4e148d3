"""What is forked, whose is it, and what ends with what? A real fork server that imports next to nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import pytest

from engines import orphans
from engines.forking import server as module
from engines.forking.child import Forked, become
from engines.forking.server import FAULTY_FOR_S, ForkServer, NoFork, architectures_of
from tests.processes import left_of, runs
from tests.unit.engines.forking import children

REPLICA = "mesh-0.even"
HERE = "tests.unit.engines.forking"


class Hosted:
    """A fork server, and what was forked from it."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 0.0
        self.folder = folder
        self.server = self.make("json")
        self.forked: list[BaseProcess] = []

    def make(self, *imports: str) -> ForkServer:
        return ForkServer("mesh-0", imports, clock=lambda: self.now_s)

    def fork(self, run: Callable[..., None] = children.report) -> dict[str, Any]:
        """Fork a process; returns what it says of itself."""
        self.server.launch()
        context = self.server.context()
        said = self.folder / str(len(self.forked))
        process = context.Process(target=self.server.target(run), args=(str(said),))
        process.start()
        self.forked.append(process)
        return wait_for(said)

    def of_server(self) -> psutil.Process:
        return psutil.Process(self.server._report()["pid"])


def wait_for(said: Path) -> dict[str, Any]:
    """What a process has written, once it has."""
    deadline_s = time.monotonic() + 20
    while not said.exists():
        assert time.monotonic() < deadline_s, "nothing was said"
        time.sleep(0.005)
    found: dict[str, Any] = json.loads(said.read_text())
    return found


@pytest.fixture
def hosted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosted]:
    for name, value in orphans.mark(REPLICA).items():
        monkeypatch.setenv(name, value)
    hosted = Hosted(tmp_path)
    yield hosted
    for process in hosted.forked:
        process.kill()
        process.join()
    hosted.server.close()
    assert orphans.own(hosted.server.name) == []


def test_a_forked_process_is_the_servers_child_with_the_environment_that_is_here_now(
    hosted: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosted.fork()
    monkeypatch.setenv("A_VARIABLE", "that came later")
    monkeypatch.delenv("HOME")
    said = hosted.fork()
    assert said["parent"] == hosted.of_server().pid
    environment = said["environment"]
    assert {**os.environ, "VLLM_WORKER_MULTIPROC_METHOD": "fork"}.items() <= environment.items()
    assert "HOME" not in environment


def test_others_see_whose_process_it_is_and_whose_the_server_is(hosted: Hosted) -> None:
    first = hosted.fork()
    os.environ.update(orphans.mark("mesh-0.odd, of a name that is longer"))
    second = hosted.fork(children.with_worker)
    assert orphans.own(REPLICA) == [first["pid"]]
    assert sorted(orphans.own("mesh-0.odd, of a name that is longer")) == sorted(
        [second["pid"], second["parent"]]
    ), "a worker of a forked process is its replica's, too"
    assert orphans.own(hosted.server.name) == [hosted.of_server().pid]


def test_what_was_forked_ends_with_the_server_and_another_one_is_launched(hosted: Hosted) -> None:
    said = hosted.fork()
    assert hosted.server.is_running()
    first, child = hosted.of_server(), psutil.Process(said["pid"])
    first.kill()
    assert left_of([first, child], within_s=5) == []
    again = hosted.fork()
    assert again["parent"] == hosted.of_server().pid != first.pid
    assert hosted.server.why_not() == "" and hosted.server.is_running()


def test_all_of_it_ends_with_a_host_that_is_killed(tmp_path: Path) -> None:
    said, before = tmp_path / "said", set(os.listdir("/dev/shm"))
    command = [sys.executable, "-m", f"{HERE}.children", str(said)]
    host = subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.getcwd()})
    child = psutil.Process(wait_for(said)["pid"])
    below = psutil.Process(host.pid).children(recursive=True)
    assert child in below
    host.send_signal(signal.SIGKILL)
    host.communicate()
    assert left_of(below, within_s=5) == []
    assert set(os.listdir("/dev/shm")) <= before


def test_a_signal_to_all_processes_ends_engines_and_not_the_server_under_them(hosted: Hosted) -> None:
    child = psutil.Process(hosted.fork()["pid"])
    hosted.of_server().terminate()
    hosted.of_server().send_signal(signal.SIGINT)
    child.terminate()
    hosted.forked[0].join(5)
    assert hosted.forked[0].exitcode == -signal.SIGTERM
    assert runs(hosted.of_server())


def test_it_ends_when_it_is_closed_and_leaves_no_file(hosted: Hosted) -> None:
    hosted.fork()
    server, folder = hosted.of_server(), hosted.server._folder
    hosted.server.close()
    assert not runs(server) and folder is not None and not folder.exists()
    hosted.server.close()


@pytest.mark.parametrize(
    ("imported", "why"),
    [
        ("no_such_module", "No module named 'no_such_module'"),
        (f"{HERE}.threaded", "it has 2 threads after its imports"),
    ],
)
def test_one_that_must_not_be_forked_is_left_alone_for_a_while(
    hosted: Hosted, imported: str, why: str
) -> None:
    hosted.server = hosted.make(imported)
    with pytest.raises(NoFork, match=why):
        hosted.fork()
    assert why in hosted.server.why_not()
    assert orphans.own(hosted.server.name) == [], "it does not stay in memory"
    hosted.now_s = FAULTY_FOR_S
    assert hosted.server.why_not() == ""


@pytest.mark.parametrize("said", [{}, {"pid": os.getpid()}])
def test_one_that_says_nothing_is_not_waited_for_without_end(
    hosted: Hosted, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any]
) -> None:
    def pass_time(_: float) -> None:
        hosted.now_s += 1

    monkeypatch.setattr(hosted.server, "_report", lambda: said)
    monkeypatch.setattr(module, "_has_ended", lambda _: False)
    monkeypatch.setattr(time, "sleep", pass_time)
    with pytest.raises(NoFork, match="not ready after"):
        hosted.server.context()
    assert hosted.now_s == (module.READY_WITHIN_S if said else module.FIRST_WORD_WITHIN_S)


def test_nothing_is_forked_from_one_that_was_not_ready(hosted: Hosted) -> None:
    with pytest.raises(NoFork):
        hosted.server.target(children.report)


def test_what_stands_for_a_forked_function_runs_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="forked"):
        Forked(children.report, {}, 1)()
    monkeypatch.setattr("engines.forking.child.die_with_parent", lambda: None)
    with pytest.raises(RuntimeError, match="not forked from a fork server"):
        become(children.report, {}, os.getppid())


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ('{"architectures": ["LlamaForCausalLM", 7]}', ["LlamaForCausalLM"]),
        ('{"architectures": "LlamaForCausalLM"}', []),
        ("{}", []),
        ("[]", []),
        ("no JSON", []),
    ],
)
def test_architectures_are_those_of_the_models_own_file(
    tmp_path: Path, config: str, found: list[str]
) -> None:
    (tmp_path / "config.json").write_text(config)
    assert architectures_of(tmp_path) == found
    assert architectures_of(tmp_path / "absent") == architectures_of(None) == []

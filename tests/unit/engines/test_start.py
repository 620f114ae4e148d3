"""How is an engine started, from nothing or forked, and why not? Without vLLM."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from engines import vllm_engine
from engines.builder import Shared, builder_thread
from engines.engine_metrics import EngineMetrics
from engines.forking.server import ForkServer, NoFork
from engines.start import EngineStart
from fleet.types import BaseModel

MODEL = BaseModel("base", "/models/base")


class FakeForks:
    """A fork server that is as the test says."""

    def __init__(self) -> None:
        self.diary: list[str] = []
        self.reason = ""

    def why_not(self) -> str:
        return self.reason

    def launch(self) -> None:
        self.diary.append("launch")

    def context(self) -> str:
        self.diary.append("context")
        if self.reason:
            raise NoFork(self.reason)
        return "processes that are forked"

    def target(self, run: object) -> tuple[str, object]:
        return "forked", run


@pytest.fixture
def forks() -> FakeForks:
    return FakeForks()


@pytest.fixture
def start(forks: FakeForks, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineStart]:
    start = EngineStart(
        "mesh-0.base",
        MODEL,
        shutdown_grace_s=1.0,
        traces_endpoint=None,
        withheld=(),
        shared=Shared(builder_thread(), [MODEL], cast(ForkServer, forks)),
    )
    for name in start.last_words.listen():
        monkeypatch.setenv(name, "")
    yield start
    start.last_words.close()


@pytest.mark.parametrize("forked", [False, True])
def test_a_fork_server_is_launched_before_the_imports_that_it_does_meanwhile(
    start: EngineStart, forks: FakeForks, monkeypatch: pytest.MonkeyPatch, forked: bool
) -> None:
    def build(argv: list[str], given: object) -> tuple[object, object]:
        forks.diary.append("build" if given is None else "build forked")
        return None, SimpleNamespace()

    monkeypatch.setattr(vllm_engine, "build_engine", build)
    start.make(MODEL, EngineMetrics(), forked=forked)
    assert forks.diary == (["launch", "build forked"] if forked else ["build"])


def test_why_an_engine_cannot_be_forked_is_said(start: EngineStart, forks: FakeForks) -> None:
    assert start.why_not_fork(MODEL) == ""
    bound = BaseModel("base", "/models/base", vllm_args=("--numa-bind",))
    assert "--numa-bind" in start.why_not_fork(bound)
    forks.reason = "it has 2 threads"
    assert start.why_not_fork(MODEL) == start.why_failed(NoFork("it has 2 threads")) == "it has 2 threads"
    start.forks = None
    assert start.why_not_fork(MODEL) == "there is no fork server"


def run_core() -> None:
    """Stands for vLLM's function of a core."""


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Any:
    """vLLM's modules that start a core, as `_started_by` finds them."""
    core = ModuleType("vllm.v1.engine.core")
    core.EngineCoreProc = type("EngineCoreProc", (), {"run_engine_core": staticmethod(run_core)})  # type: ignore[attr-defined]
    utils = ModuleType("vllm.v1.engine.utils")
    utils.get_mp_context = lambda: "processes that are spawned"  # type: ignore[attr-defined]
    for name in ("vllm", "vllm.v1", "vllm.v1.engine"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for module in (core, utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(
            sys.modules["vllm.v1.engine"], module.__name__.rpartition(".")[2], module, raising=False
        )
    monkeypatch.setattr(sys.modules["vllm"], "v1", sys.modules["vllm.v1"], raising=False)
    monkeypatch.setattr(sys.modules["vllm.v1"], "engine", sys.modules["vllm.v1.engine"], raising=False)
    return SimpleNamespace(
        context=lambda: utils.get_mp_context(),
        run=lambda: core.EngineCoreProc.run_engine_core,
    )


def test_only_the_core_that_is_being_started_is_forked(forks: FakeForks, vllm: Any) -> None:
    with pytest.raises(ZeroDivisionError), vllm_engine._started_by(cast(ForkServer, forks)):
        assert (vllm.context(), vllm.run()) == ("processes that are forked", ("forked", run_core))
        raise ZeroDivisionError
    assert (vllm.context(), vllm.run()) == ("processes that are spawned", run_core)


def test_where_none_can_be_forked_nothing_of_vllm_is_changed(forks: FakeForks, vllm: Any) -> None:
    forks.reason = "it ended"
    with pytest.raises(NoFork), vllm_engine._started_by(cast(ForkServer, forks)):
        pass
    assert (vllm.context(), vllm.run()) == ("processes that are spawned", run_core)

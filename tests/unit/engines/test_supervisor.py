"""Which engine runs, and what becomes of one that fails, dies or is told to end? Without vLLM: stand-ins."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from engines import engine_process, orphans, vllm_engine
from engines import start as start_module
from engines import supervisor as supervisor_module
from engines.builder import Shared, builder_thread
from engines.built import Built, Running
from engines.draining import VLLM_CLIENT_LOG
from engines.health import EngineState
from engines.loader import EngineDied
from engines.protocol import EngineOrder
from engines.residency import DesiredAdapters, EngineAdapter, FaultKind
from engines.restarts import FAILURES_BEFORE_DEAD, Restarts
from engines.selftest import SelfTestFailed
from engines.supervisor import Supervisor
from fleet.types import BaseModel
from tests.fakes import eventually


@pytest.fixture
def supervisor() -> Supervisor:
    model = BaseModel("base", "/models/base", max_loras=2, max_cpu_loras=4)
    return Supervisor("shared-0", model, shutdown_grace_s=1.0)


def test_an_engine_that_never_starts_is_not_alive_for_ever(supervisor: Supervisor) -> None:
    assert supervisor.is_alive()
    for _ in range(FAILURES_BEFORE_DEAD):
        supervisor._restarts.did_not_start("it broke")
    assert not supervisor.is_alive()


class Starts:
    """Stands for the loading of engines: each start fails with an error, or gives an engine."""

    def __init__(self, supervisor: Supervisor, *outcomes: Any) -> None:
        self.supervisor = supervisor
        self.outcomes = list(outcomes)

    async def __call__(self, stack: Any) -> Running:
        self.supervisor._start.last_words.listen()
        outcome = self.outcomes.pop(0) if self.outcomes else SimpleNamespace(errored=False)
        if isinstance(outcome, Exception):
            raise outcome
        return Running(outcome, app=None)


async def states_of(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, *outcomes: Any
) -> list[tuple[str, str]]:
    """Run starts of these outcomes until an engine stays up; gives each state with its reason."""
    monkeypatch.setattr(Restarts, "delay_s", 0.0)
    monkeypatch.setattr(supervisor_module, "WATCH_INTERVAL_S", 0.0)
    monkeypatch.setattr(supervisor, "_load", Starts(supervisor, *outcomes))
    seen: list[tuple[str, str]] = []
    task = asyncio.create_task(supervisor._supervise())
    while not seen or seen[-1][0] != EngineState.READY:
        health = supervisor.health()
        if not seen or seen[-1] != (health.state, health.reason):
            seen.append((health.state, health.reason))
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return seen


async def test_an_engine_that_fails_is_started_until_one_passes_and_says_why_meanwhile(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = SelfTestFailed("self-test, log-probabilities: InvalidCxxCompiler: none")
    seen = await states_of(supervisor, monkeypatch, failed, ValueError("no such flag"))
    states = [state for state, _ in seen]
    assert states == [EngineState.STARTING, EngineState.FAILED, EngineState.FAILED, EngineState.READY]
    assert [reason for _, reason in seen[1:3]] == [str(failed), "ValueError: no such flag"]


async def test_adapters_are_blamed_for_a_death_only_where_the_engine_comes_back(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor.reconciler.desire(DesiredAdapters(1, (EngineAdapter("a", "/store/a", False),)))
    supervisor.blame("a", FaultKind.CRASH, "the engine died")
    await states_of(supervisor, monkeypatch, SimpleNamespace(errored=False))
    assert dict(supervisor.reconciler.residency().faults)["a"].kind is FaultKind.CRASH
    await states_of(supervisor, monkeypatch, RuntimeError("it does not come back"))
    assert not supervisor.reconciler.residency().faults


async def test_no_adapter_is_blamed_for_the_machines_words(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor.reconciler.desire(DesiredAdapters(1, (EngineAdapter("a", "/store/a", False),)))
    monkeypatch.setattr(
        supervisor._start.last_words, "read", lambda _within_s: "OSError: No space left on device"
    )
    supervisor.blame("a", FaultKind.CRASH, "the engine died")
    assert not supervisor.reconciler.residency().faults
    monkeypatch.setattr(supervisor._start.last_words, "read", lambda _within_s: "KeyError: 5")
    supervisor.blame("a", FaultKind.CRASH, "the engine died")
    assert dict(supervisor.reconciler.residency().faults)["a"].reason == "the engine died: KeyError: 5"


# -- orders ------------------------------------------------------------------------------------------------


@pytest.fixture
async def starts(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Running]]:
    """The engines that a supervisor has started; none fails."""
    monkeypatch.setattr(Restarts, "delay_s", 60.0)
    monkeypatch.setattr(supervisor_module, "WATCH_INTERVAL_S", 0.0)
    made: list[Running] = []

    async def load(_: Any) -> Running:
        await asyncio.sleep(0.02)
        made.append(Running(SimpleNamespace(errored=False), app=None))
        return made[-1]

    monkeypatch.setattr(supervisor, "_load", load)
    task = asyncio.create_task(supervisor._supervise())
    await eventually(supervisor.is_ready)
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_engine_restarts_as_told_without_a_death_and_without_a_delay(
    supervisor: Supervisor, starts: list[Running]
) -> None:
    supervisor.follow(EngineOrder.RESTART)
    await eventually(lambda: supervisor.health().starts == 2)
    health = supervisor.health()
    assert (health.state, health.reason, health.deaths) == (EngineState.READY, "", 0)
    await asyncio.sleep(0.01)
    assert len(starts) == 2, "once"


async def test_a_restart_that_is_asked_for_while_one_loads_is_that_one(
    supervisor: Supervisor, starts: list[Running]
) -> None:
    supervisor.follow(EngineOrder.RESTART)
    await eventually(lambda: not supervisor.is_ready())
    supervisor.follow(EngineOrder.RESTART)
    await eventually(supervisor.is_ready)
    await asyncio.sleep(0.01)
    assert len(starts) == 2


async def test_a_stopped_engine_stays_so_until_it_is_told_to_start(
    supervisor: Supervisor, starts: list[Running]
) -> None:
    supervisor.follow(EngineOrder.STOP)
    await eventually(lambda: supervisor.health().state is EngineState.STOPPED)
    await asyncio.sleep(0.01)
    assert (len(starts), supervisor.is_ready(), supervisor.is_alive()) == (1, False, True)
    assert not VLLM_CLIENT_LOG.disabled, "the next engine may complain"
    supervisor.follow(EngineOrder.START)
    assert supervisor.health().state is EngineState.STARTING
    await eventually(supervisor.is_ready)
    supervisor.follow(EngineOrder.START)
    await asyncio.sleep(0.01)
    assert len(starts) == 2, "one that runs goes on"


async def test_a_stopped_engine_starts_where_a_restart_is_asked_for(
    supervisor: Supervisor, starts: list[Running]
) -> None:
    supervisor.follow(EngineOrder.STOP)
    await eventually(lambda: supervisor.health().state is EngineState.STOPPED)
    supervisor.follow(EngineOrder.RESTART)
    await eventually(supervisor.is_ready)
    assert len(starts) == 2


async def test_an_engine_that_fails_is_tried_at_once_where_a_restart_is_asked_for(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Restarts, "delay_s", 60.0)
    monkeypatch.setattr(supervisor_module, "WATCH_INTERVAL_S", 0.0)
    monkeypatch.setattr(supervisor, "_load", Starts(supervisor, ValueError("no such flag")))
    task = asyncio.create_task(supervisor._supervise())
    await eventually(lambda: supervisor.health().state is EngineState.FAILED)
    supervisor.follow(EngineOrder.RESTART)
    assert supervisor.health().state is EngineState.STARTING
    await eventually(supervisor.is_ready)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# -- other settings ------------------------------------------------------------------------------------------


async def test_the_next_engine_has_the_settings_that_come_with_an_order(
    supervisor: Supervisor, starts: list[Running]
) -> None:
    wanted = supervisor.model = replace(supervisor.model, max_loras=7, max_num_seqs=3)
    supervisor.follow(EngineOrder.RESTART)
    assert supervisor.is_ready() and supervisor._model != wanted, "what runs has the old ones until it ends"
    await eventually(lambda: supervisor.health().starts == 2)
    argv = supervisor._start._args_of(supervisor._model)
    assert argv[argv.index("--max-loras") + 1] == "7"
    assert argv[argv.index("--max-num-seqs") + 1] == "3"
    supervisor.follow(EngineOrder.RESTART)
    await eventually(lambda: supervisor.health().starts == 3)
    assert supervisor._model == wanted, "without others they stay"


async def test_an_engine_that_was_loading_with_the_old_settings_is_never_ready(
    supervisor: Supervisor, starts: list[Running]
) -> None:
    supervisor.follow(EngineOrder.RESTART)
    await eventually(lambda: not supervisor.is_ready())
    supervisor.model = replace(supervisor.model, max_loras=7)
    supervisor.follow(EngineOrder.RESTART)
    await eventually(supervisor.is_ready)
    assert (len(starts), supervisor._model.max_loras) == (3, 7)


async def test_a_start_that_fails_with_the_old_settings_says_nothing_of_the_new_ones(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = asyncio.Event()
    monkeypatch.setattr(Restarts, "delay_s", 60.0)
    monkeypatch.setattr(supervisor_module, "WATCH_INTERVAL_S", 0.0)

    async def load(_: Any) -> Running:
        if supervisor._model.max_loras == 2:
            await fails.wait()
            raise ValueError("no such flag")
        return Running(SimpleNamespace(errored=False), app=None)

    monkeypatch.setattr(supervisor, "_load", load)
    task = asyncio.create_task(supervisor._supervise())
    await asyncio.sleep(0)
    supervisor.model = replace(supervisor.model, max_loras=7)
    supervisor.follow(EngineOrder.RESTART)
    fails.set()
    seen = set()
    while not supervisor.is_ready():
        seen.add(supervisor.health().state)
        await asyncio.sleep(0)
    assert seen == {EngineState.STARTING}, "the gateway would take the restart for failed"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_fewer_slots_are_fewer_pins(supervisor: Supervisor, starts: list[Running]) -> None:
    pins = tuple(EngineAdapter(name, f"/store/{name}", True) for name in "abc")
    supervisor.reconciler.desire(DesiredAdapters(1, pins))
    assert [name for name, _ in supervisor.reconciler.residency().faults] == ["b", "c"]
    supervisor.model = replace(supervisor.model, max_loras=4)
    supervisor.follow(EngineOrder.RESTART)
    await eventually(lambda: supervisor.health().starts == 2)
    assert not supervisor.reconciler.residency().faults


# -- one of several models of a process --------------------------------------------------------------------


def alone() -> Shared:
    """A process that is made for several engines and has one."""
    return Shared(builder_thread(), [])


@pytest.fixture
def asleep() -> Supervisor:
    """One that begins on disk."""
    return Supervisor(
        "mesh-0.base",
        BaseModel("base", "/models/base"),
        shutdown_grace_s=1.0,
        shared=alone(),
    )


@contextlib.asynccontextmanager
async def on_demand(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, *outcomes: Any
) -> AsyncIterator[Starts]:
    """Supervise starts of these outcomes, each of which is asked for."""
    monkeypatch.setattr(supervisor_module, "WATCH_INTERVAL_S", 0.0)
    starts = Starts(supervisor, *outcomes)
    monkeypatch.setattr(supervisor, "_load", starts)
    supervisor.begin()
    await asyncio.sleep(0.01)
    yield starts
    await supervisor.stop()


async def test_it_begins_on_disk_and_is_awake_from_its_order_to_start_until_it_rests_again(
    asleep: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with on_demand(asleep, monkeypatch):
        assert (asleep.health().state, asleep.is_awake, asleep.is_alive()) == ("stopped", False, True)
        assert asleep.health().reason == "it is on disk until its turn comes"
        asleep.follow(EngineOrder.START)
        assert (asleep.health().state, asleep.is_awake) == ("starting", True)
        assert await asyncio.wait_for(asleep.settles(), 5)
        assert (asleep.is_awake, asleep.is_ending) == (True, False)
        asleep.reconciler.desire(DesiredAdapters(3, (EngineAdapter("a", "/store/a", False),)))
        asleep.follow(EngineOrder.STOP)
        assert (asleep.is_awake, asleep.is_ending) == (True, True)
        await asyncio.wait_for(asleep.rests(), 5)
        assert asleep.reconciler.residency().revision == 0, "the gateway tells the next engine anew"
        assert (asleep.health().state, asleep.is_awake) == ("stopped", False)


async def test_it_is_tried_once_for_each_order_and_says_why_it_failed_until_the_next(
    asleep: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [ValueError("no such file"), ValueError("still none")]
    async with on_demand(asleep, monkeypatch, *failures) as starts:
        for number, words in enumerate(("no such file", "still none"), 1):
            asleep.follow(EngineOrder.START)
            assert not await asyncio.wait_for(asleep.settles(), 5)
            await asyncio.sleep(0.01)
            health = asleep.health()
            assert (health.state, health.reason) == (EngineState.FAILED, f"ValueError: {words}")
            assert (asleep.is_awake, asleep.failed_starts, len(starts.outcomes)) == (
                False,
                number,
                2 - number,
            )
        asleep.follow(EngineOrder.START)
        assert await asyncio.wait_for(asleep.settles(), 5)
        assert asleep.failed_starts == 0
    assert "again when it is asked for" in caplog.messages[0]


async def test_one_that_dies_comes_back_by_itself_and_keeps_its_place(
    asleep: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Restarts, "delay_s", 0.0)
    engine = SimpleNamespace(errored=False)
    async with on_demand(asleep, monkeypatch, engine):
        asleep.follow(EngineOrder.START)
        await asyncio.wait_for(asleep.settles(), 5)
        engine.errored = True
        await eventually(lambda: asleep.health().deaths == 1)
        assert asleep.is_awake
        await eventually(lambda: asleep.health().starts == 2)


async def test_one_that_is_told_to_stop_after_it_died_rests(
    asleep: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Restarts, "delay_s", 60.0)
    engine = SimpleNamespace(errored=False)
    async with on_demand(asleep, monkeypatch, engine):
        asleep.follow(EngineOrder.START)
        await asyncio.wait_for(asleep.settles(), 5)
        engine.errored = True
        await eventually(lambda: asleep.health().deaths == 1)
        asleep.follow(EngineOrder.STOP)
        await asyncio.wait_for(asleep.rests(), 5)
        assert asleep.health().state is EngineState.STOPPED


async def test_an_engine_that_is_given_away_runs_on_and_another_replica_takes_it_over(
    asleep: Supervisor, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "WATCH_INTERVAL_S", 0.0)
    ended: list[str] = []
    engine = SimpleNamespace(errored=False, vllm_config=SimpleNamespace(shutdown_timeout=0))
    engine.shutdown = lambda _within_s: ended.append("engine")
    monkeypatch.setattr(orphans, "end_own", ended.append)
    built = Built(None, engine, "mesh-0.base", CollectorRegistry())

    async def source() -> Built:
        return built

    def loading(one: Supervisor) -> Any:
        async def load(stack: Any) -> Running:
            got = await one._build(stack)
            one._was_ready = True
            return Running(got.engine, app=None, built=got)

        return load

    other = Supervisor("mesh-0.other", asleep.model, shutdown_grace_s=1.0, shared=alone())
    for one in (asleep, other):
        monkeypatch.setattr(one, "_load", loading(one))
        one.begin()
    await asyncio.sleep(0)
    with pytest.raises(EngineDied):
        await asleep.release()
    asleep.follow(EngineOrder.START, source=source)
    assert await asyncio.wait_for(asleep.settles(), 5)
    assert await asyncio.wait_for(asleep.release(), 5) is built
    assert (asleep.is_awake, asleep.health().state, ended) == (False, EngineState.STOPPED, [])
    other.follow(EngineOrder.START, source=source)
    assert await asyncio.wait_for(other.settles(), 5)
    assert (other.metrics.engine, other.marked) == (built.metrics, "mesh-0.base")
    for one in (asleep, other):
        await one.stop()
    assert ended == ["engine", "mesh-0.base"], "by the one that had it last"


async def test_an_engine_that_dies_as_it_is_given_away_is_ended_where_it_was(
    asleep: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    engine = SimpleNamespace(errored=False, vllm_config=SimpleNamespace(shutdown_timeout=0))
    engine.shutdown = lambda _within_s: ended.append("engine")
    monkeypatch.setattr(orphans, "end_own", lambda _replica: None)
    built = Built(None, engine, "mesh-0.base", CollectorRegistry())

    async def load(stack: Any) -> Running:
        stack.push_async_callback(asyncio.to_thread, asleep._end, built)
        stack.callback(lambda: setattr(engine, "errored", True))  # as the rest is unwound
        return Running(engine, app=None, built=built)

    monkeypatch.setattr(asleep, "_load", load)
    asleep.begin()
    asleep.follow(EngineOrder.START)
    await asyncio.wait_for(asleep.settles(), 5)
    with pytest.raises(EngineDied):
        await asyncio.wait_for(asleep.release(), 5)
    assert ended == ["engine"]
    await asleep.stop()


async def test_one_that_is_told_to_stop_while_it_loads_is_ended_at_once_and_has_not_failed(
    asleep: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, loads = threading.Event(), threading.Event()
    monkeypatch.setattr(orphans, "end_own", lambda _replica: killed.set())
    monkeypatch.setattr(supervisor_module, "WATCH_INTERVAL_S", 0.0)
    outcomes: list[Any] = []

    async def load(_: Any) -> Running:
        asleep._was_ready = asleep._was_aborted = False
        loads.set()
        if outcomes:
            return Running(SimpleNamespace(errored=False), app=None)
        outcomes.append(None)
        await asyncio.to_thread(killed.wait)
        raise RuntimeError("Engine core initialization failed")

    monkeypatch.setattr(asleep, "_load", load)
    asleep.begin()
    await asyncio.sleep(0)
    asleep.follow(EngineOrder.START)
    await asyncio.to_thread(loads.wait)
    for _ in range(2):
        asleep.follow(EngineOrder.STOP)
    await asyncio.wait_for(asleep.rests(), 5)
    assert (asleep.health().state, asleep.failed_starts) == (EngineState.STOPPED, 0)
    asleep.follow(EngineOrder.START)
    assert await asyncio.wait_for(asleep.settles(), 5)
    await asleep.stop()


async def test_one_that_is_told_to_start_again_before_its_load_has_ended_starts(
    asleep: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads, fails = asyncio.Event(), asyncio.Event()
    monkeypatch.setattr(orphans, "end_own", lambda _replica: None)
    outcomes: list[Any] = []

    async def load(_: Any) -> Running:
        asleep._was_ready = asleep._was_aborted = False
        loads.set()
        if outcomes:
            return Running(SimpleNamespace(errored=False), app=None)
        outcomes.append(None)
        await fails.wait()
        raise RuntimeError("Engine core initialization failed")

    monkeypatch.setattr(asleep, "_load", load)
    asleep.begin()
    await asyncio.sleep(0)
    asleep.follow(EngineOrder.START)
    await loads.wait()
    asleep.follow(EngineOrder.STOP)
    asleep.follow(EngineOrder.START)
    fails.set()
    assert await asyncio.wait_for(asleep.settles(), 5)
    assert (len(outcomes), asleep.failed_starts) == (1, 0)
    await asleep.stop()


async def test_each_engine_of_a_process_finds_the_environment_of_its_own_replica(
    asleep: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Supervisor("mesh-0.other", asleep.model, shutdown_grace_s=1.0, shared=Shared(asleep._thread, []))
    found: list[tuple[str, str]] = []
    for name in (*orphans.mark("x"), "TENANTRY_LOG_REPLICA", "TENANTRY_LAST_WORDS"):
        monkeypatch.setenv(name, "")

    def build(*_: Any) -> Any:
        marked = os.environ[orphans.REPLICA_MARK].partition("@")[0]
        found.append((marked, os.environ["TENANTRY_LOG_REPLICA"]))
        return None, SimpleNamespace(errored=False)

    monkeypatch.setattr(vllm_engine, "build_engine", build)
    await asyncio.gather(*(one._builder.build() for one in (asleep, other, asleep)))
    assert found == [(name, name) for name in ("mesh-0.base", "mesh-0.other", "mesh-0.base")]
    for one in (asleep, other):
        await one.stop()


# -- ending ------------------------------------------------------------------------------------------------


@pytest.fixture
def loading(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The same supervisor while its engine is being built, which ends only by force."""
    state = SimpleNamespace(
        supervisor=supervisor, begun=threading.Event(), given_up=threading.Event(), fails=threading.Event()
    )

    def build(argv: list[str], forks: Any) -> Any:
        state.begun.set()
        try:
            while not state.fails.wait(0.01):
                pass
        finally:
            state.given_up.set()
        raise RuntimeError("the engine's processes are gone")

    monkeypatch.setattr(vllm_engine, "build_engine", build)
    monkeypatch.setattr(engine_process, "become_main_of_children", lambda: None)
    monkeypatch.setattr(supervisor._start, "_environment", {})
    for name in orphans.mark("shared-0"):
        monkeypatch.setenv(name, "")
    return state


@pytest.fixture
def handlers_as_before() -> Iterator[None]:
    """A supervisor takes the process's signals; here they end nothing and go back to who had them."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: None) for number in numbers]
    level = logging.getLogger("vllm").level
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
    logging.getLogger("vllm").setLevel(level)
    logging.getLogger("vllm.v1.engine.async_llm").disabled = False


@pytest.mark.usefixtures("handlers_as_before")
async def test_a_supervisor_that_loads_ends_at_once(
    loading: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    loading.supervisor.start()
    await asyncio.to_thread(loading.begun.wait)
    await asyncio.wait_for(loading.supervisor.stop(), timeout=5)
    assert loading.given_up.is_set()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("handlers_as_before")
async def test_an_engine_that_ends_on_the_same_signal_did_not_fail(
    loading: SimpleNamespace, number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    loading.supervisor.start()
    await asyncio.to_thread(loading.begun.wait)
    signal.raise_signal(number)
    loading.fails.set()
    await asyncio.wait_for(loading.supervisor._task, timeout=5)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not logging.getLogger("vllm.v1.engine.core_client").isEnabledFor(logging.ERROR)
    await loading.supervisor.stop()


@pytest.mark.usefixtures("handlers_as_before")
async def test_a_load_that_takes_long_says_so(
    loading: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tenantry.engine")
    monkeypatch.setattr(start_module, "PROGRESS_INTERVAL_S", 0)
    loading.supervisor.start()
    await asyncio.to_thread(loading.begun.wait)
    await loading.supervisor.stop()
    assert caplog.messages[:2] == ["shared-0: loading base", "shared-0: still loading (0 s)"]


@pytest.mark.parametrize(
    ("was_ready", "calls"), [(True, ["drain 30", "kill"]), (False, ["kill", "drain 0", "kill"])]
)
def test_an_engine_that_serves_is_drained_and_one_that_never_did_is_not(
    supervisor: Supervisor, was_ready: bool, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    engine = SimpleNamespace(
        shutdown=lambda timeout: made.append(f"drain {timeout}"),
        vllm_config=SimpleNamespace(shutdown_timeout=30),
    )
    monkeypatch.setattr(orphans, "end_own", lambda _replica: made.append("kill"))
    vars(supervisor).update(_was_ready=was_ready)
    supervisor._end(Built(None, engine, "shared-0", CollectorRegistry()))
    assert made == calls


# -- forks -------------------------------------------------------------------------------------------------


def has_died(one: Supervisor, times: int) -> bool:
    return one.health().deaths == times


async def test_an_engine_that_died_is_forked_anew_and_comes_from_nothing_if_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forks: Any = SimpleNamespace(reason="")
    forks.why_not = lambda: forks.reason
    model = BaseModel("base", "/models/base")
    shared = Shared(builder_thread(), [], forks)
    one = Supervisor("mesh-0.base", model, shutdown_grace_s=1.0, shared=shared)
    assert one.why_not_fork() == ""
    sources: list[Any] = []
    monkeypatch.setattr(Restarts, "delay_s", 0.0)

    async def load(_: Any) -> Running:
        sources.append(one._source)
        one._source = None
        if len(sources) == 3:
            raise RuntimeError("it does not come so")
        return Running(SimpleNamespace(errored=False), app=None)

    async with on_demand(one, monkeypatch):
        monkeypatch.setattr(one, "_load", load)
        one.follow(EngineOrder.START)
        for deaths in (1, 2):
            await eventually(one.is_ready)
            assert one.running is not None
            one.running.engine.errored = True
            await eventually(functools.partial(has_died, one, deaths))
        await eventually(lambda: one.health().state is EngineState.FAILED)
        one.follow(EngineOrder.START)
        await eventually(one.is_ready)
        forks.reason = "it has ended"
        assert one.running is not None
        one.running.engine.errored = True
        await eventually(lambda: one.health().deaths == 3 and one.is_ready())
    assert sources == [None, one.fork, one.fork, None, None]


async def test_what_is_forked_is_built_as_others_and_told_so(
    asleep: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []

    def make(*_: Any, forked: bool) -> Any:
        told.append(forked)
        return "an engine"

    monkeypatch.setattr(asleep._start, "make", make)
    made: list[Any] = [await asleep.fork(), await asleep._builder.build()]
    assert made == ["an engine"] * 2
    assert told == [True, False]
    assert "no fork server" in asleep.why_not_fork()


async def test_an_order_to_prepare_changes_nothing(
    asleep: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with on_demand(asleep, monkeypatch) as starts:
        asleep.follow(EngineOrder.PREPARE)
        await asyncio.sleep(0)
        assert asleep.health().state is EngineState.STOPPED and not asleep.is_awake
        assert starts.outcomes == []


# -- sleep -------------------------------------------------------------------------------------------------


async def test_one_that_sleeps_is_not_awake_and_wakes_or_ends(
    asleep: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with on_demand(asleep, monkeypatch):
        asleep.follow(EngineOrder.START)
        await eventually(asleep.is_ready)
        running = asleep.running
        assert running is not None
        asleep.fell_asleep(1)
        assert (asleep.is_awake, asleep.is_ready()) == (False, False)
        health = asleep.health()
        assert (health.state, health.reason) == (
            EngineState.STOPPED,
            "it sleeps (level 1) until its turn comes",
        )
        asleep.woke_up(running, 0.1)
        assert (asleep.is_awake, asleep.is_ready(), asleep.health().starts) == (True, True, 2)
        asleep.fell_asleep(2)
        asleep.follow(EngineOrder.STOP)
        await asyncio.wait_for(asleep.rests(), 5)
        assert (asleep.sleeps, asleep.running) == (0, None)


async def test_one_that_dies_in_its_sleep_is_on_disk_and_nobody_is_blamed(
    asleep: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with on_demand(asleep, monkeypatch) as starts:
        asleep.follow(EngineOrder.START)
        await eventually(asleep.is_ready)
        asleep.fell_asleep(1)
        assert asleep.running is not None
        asleep.running.engine.errored = True
        await asyncio.wait_for(asleep.rests(), 5)
        health = asleep.health()
        assert (health.state, health.deaths, asleep.sleeps) == (EngineState.STOPPED, 0, 0)
        asleep.follow(EngineOrder.START)
        await eventually(asleep.is_ready)
        assert starts.outcomes == []

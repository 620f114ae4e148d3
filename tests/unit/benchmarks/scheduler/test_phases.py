"""Every scheduler goes through every phase with the same arrivals, and what counts is counted."""

from __future__ import annotations

import gc
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from benchmarks.scheduler import driving, phases
from benchmarks.scheduler.answers import Answer
from benchmarks.scheduler.cores import Roles
from benchmarks.scheduler.doors import session_to
from benchmarks.scheduler.engines import EngineEyes
from benchmarks.scheduler.phases import Phase, Stage
from engines.protocol import METRICS_PATH
from tests.unit.benchmarks.scheduler.fakes import FakeDoor, FakeServer, IdleEyes
from tests.unit.benchmarks.scheduler.measured import DEMAND, PLAN, made, measured

NAMES = ["round robin", "hash affinity", "ours"]


def stage(door: FakeDoor, eyes: EngineEyes | None = None) -> Stage:
    return Stage([door], DEMAND, PLAN, eyes or IdleEyes(), Roles(gateway=1, engines=()))


async def finish(answer: Answer) -> None:
    answer.sent_s = answer.due_s
    answer.first_s, answer.last_s, answer.whole = answer.due_s + 0.001, answer.due_s + 0.002, True


def test_every_phase_of_every_scheduler_is_measured_once_a_round() -> None:
    steps = list(PLAN.steps(NAMES))
    assert set(Counter(steps).values()) == {1}
    assert len(steps) == PLAN.rounds * len(Phase) * len(NAMES)


def test_who_begins_changes_from_phase_to_phase_and_round_to_round() -> None:
    first = {(number, phase): name for number, phase, name in reversed(list(PLAN.steps(NAMES)))}
    assert first[0, Phase.STEADY] == first[0, Phase.FLOOD] != first[0, Phase.SATURATED]
    assert all(first[0, phase] != first[1, phase] for phase in Phase)


def test_steady_and_flood_of_a_scheduler_follow_each_other_and_change_places() -> None:
    steps = list(PLAN.steps(NAMES))
    compared = [(Phase.STEADY, Phase.FLOOD), (Phase.FLOOD, Phase.STEADY)]
    for number, phases_of_round in enumerate(compared):
        for name in NAMES:
            at = [steps.index((number, phase, name)) for phase in phases_of_round]
            assert at[1] == at[0] + 1


def test_a_flood_comes_on_top_of_the_very_same_arrivals() -> None:
    running = stage(FakeDoor("ours", finish))
    steady = running.arrivals(0, Phase.STEADY, 50.0)
    flooded = running.arrivals(0, Phase.FLOOD, 50.0)
    assert [a for a in flooded if not a.flood] == steady
    assert {a.tenant for a in flooded if a.flood} == {PLAN.flooder(DEMAND)}
    assert len(flooded) - len(steady) == pytest.approx(PLAN.flood * 50.0 * PLAN.seconds, rel=0.3)
    assert running.arrivals(1, Phase.STEADY, 50.0) != steady


def test_only_what_was_due_in_the_window_counts_and_never_the_flood_itself() -> None:
    one = measured(Phase.FLOOD, "ours", [made(0.5), made(1.5), made(1.5, flood=True), made(9.5)])
    assert [answer.due_s for answer in one.counted()] == [1.5]


def test_service_and_demand_are_counted_for_each_tenant() -> None:
    one = measured(Phase.STEADY, "ours", [made(1.5, tenant=0), made(1.5, tenant=1), made(8.9, tenant=1)])
    assert one.demand(2, 10) == [10.0, 20.0]
    assert one.service(2, 10) == pytest.approx([10.0, 10.0 + 0.0])
    saturated = measured(Phase.SATURATED, "ours", [made(1.5)])
    assert saturated.demand(2, 10) == [float("inf")] * 2


async def test_a_phase_is_measured_between_two_looks_at_idle_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driving, "LEAD_S", 0.0)
    monkeypatch.setattr(phases, "SETTLE_S", 0.0)
    engine, gateway = FakeServer(), FakeServer()
    gateway.pages["/metrics"] = b""
    page = 'tenantry_adapter_load_seconds_count{{tier="disk"}} {}.0\n'
    engine.pages[METRICS_PATH] = page.format(3).encode()

    async def load(answer: Answer) -> None:
        assert not gc.isenabled()
        await finish(answer)
        engine.pages[METRICS_PATH] = page.format(5).encode()

    async with AsyncExitStack() as stack:
        sessions = []
        for name, server in (("e", engine), ("g", gateway)):
            socket = tmp_path / f"{name}.sock"
            await stack.enter_async_context(server.listening(socket))
            sessions.append(await stack.enter_async_context(session_to(f"unix:{socket}", "t")))
        door = FakeDoor("ours", load)
        running = stage(door, EngineEyes({"e": sessions[0]}, sessions[1]))
        monkeypatch.setattr(running, "arrivals", lambda *_: [made(0.0).arrival] * 3)
        found = await running.measure(0, Phase.STEADY, "ours", 50.0)
    assert (found.disk_loads, found.most_adapters) == (2, 0)
    assert [answer.whole for answer in found.drive.answers] == [True] * 3

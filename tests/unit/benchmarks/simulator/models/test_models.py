"""Do simulated devices run, switch and count as they should, and does each policy do what it is known for?"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.simulator.models.baselines import LRU, LlamaSwap, Ollama, Retry
from benchmarks.simulator.models.comparison import compare, figures
from benchmarks.simulator.models.devices import Call, Device, Policy, Simulation
from benchmarks.simulator.models.ours import Turns
from benchmarks.simulator.models.scenarios import DURATION_S, POLICIES, of_traces
from benchmarks.simulator.models.workloads import bursty, steady, traced
from routing.turns.view import TurnSettings

SWITCH_S = 2.0
ALONE_S = 12 / (60 / (1 + 1 / 32))  # a first token of one sequence alone


def run(policy: Policy, *calls: Call, room: int = 1, devices: int = 1) -> Simulation:
    sim = Simulation(4, [Device(n, room, 4) for n in range(devices)], policy, switch_s=lambda *_: SWITCH_S)
    sim.run(calls)
    return sim


def test_a_first_token_takes_a_switch_and_a_prompt_and_the_next_one_a_prompt_alone() -> None:
    calls = [Call(0, 0.0, 60.0), Call(0, 30.0, 60.0)]
    run(LRU(), *calls)
    assert [c.first_s for c in calls] == pytest.approx([SWITCH_S + ALONE_S, 30.0 + ALONE_S])


def test_a_host_that_still_has_the_weights_switches_faster() -> None:
    calls = [Call(model, at_s, 6.0) for at_s, model in ((0.0, 0), (20.0, 1), (40.0, 0))]
    sim = Simulation(2, [Device(0, 1, 2)], LRU(), switch_s=lambda _, warm: 1.0 if warm else 9.0)
    sim.run(calls)
    assert [round(c.first_s - c.at_s) for c in calls if c.first_s is not None] == [9, 9, 1]


@pytest.mark.parametrize("policy", [LRU, Ollama, LlamaSwap, lambda: Turns(TurnSettings())])
def test_nobody_is_forgotten_who_waits(policy: type[Policy]) -> None:
    calls = [Call(number % 4, 0.5 * number, 60.0) for number in range(24)]
    sim = run(policy(), *calls)
    assert all(call.over and not call.refused for call in calls)
    assert sum(device.running for device in sim.devices) == 0


def test_one_that_answers_503_sends_away_who_has_come_three_times() -> None:
    calls = [Call(0, 0.0, 3000.0), Call(1, 0.1, 60.0)]
    run(Retry(), *calls)
    assert not calls[0].refused
    assert calls[1].refused


def test_with_an_objective_who_would_be_late_is_refused() -> None:
    calls = [Call(number % 4, 0.1 * number, 600.0) for number in range(8)]
    run(Turns(TurnSettings(objective_s=4.0), sheds=True), *calls)
    assert 0 < sum(call.refused for call in calls) < len(calls)


@pytest.mark.parametrize("workload", [steady, bursty])
def test_calls_are_the_same_for_the_same_seed_and_as_many_as_asked_for(workload: object) -> None:
    first, again = (workload(12, 1.0, 2.0, 3000.0, 7) for _ in range(2))  # type: ignore[operator]
    assert [(c.model, c.at_s, c.tokens) for c in first] == [(c.model, c.at_s, c.tokens) for c in again]
    assert len(first) / 3000.0 == pytest.approx(2.0, rel=0.5)
    assert [c.at_s for c in first] == sorted(c.at_s for c in first)


def test_a_traces_arrivals_are_stretched_to_the_rate_and_its_lengths_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    rows = [f"2023-11-16 18:{i // 60:02}:{i % 60:02}.5000000,100,{20 + i % 3}" for i in range(1200)]
    file.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]) + "\n")
    first, again = (traced(4, 1.0, 0.5, 1000.0, 7, trace=file) for _ in range(2))
    assert [(c.model, c.at_s) for c in first] == [(c.model, c.at_s) for c in again]
    assert len(first) == pytest.approx(500, abs=2), "one a second has become one in two"
    assert {c.tokens for c in first} == {20.0, 21.0, 22.0} and {c.model for c in first} == {0, 1, 2, 3}
    assert first[0].at_s >= 0 and first[-1].at_s < 1000.0
    file.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n")
    with pytest.raises(ValueError, match="no arrivals"):
        traced(4, 1.0, 0.5, 1000.0, 7, trace=file)


def test_fleets_by_traces_are_there_where_these_are(tmp_path: Path) -> None:
    names = [fleet.name for fleet in of_traces(tmp_path)]
    assert names and all("Azure" in name for name in names)
    with pytest.raises(ValueError, match="unknown"):
        next(compare(["Azure"], 1, 1))
    with pytest.raises(OSError, match="az23"):
        next(compare(["Azure code"], 1, 1, tmp_path))


def test_figures_are_of_calls_after_the_warm_up_alone() -> None:
    calls = [Call(0, 0.0, 60.0), Call(0, 200.0, 60.0), Call(0, DURATION_S + 1, 60.0)]
    found = figures(calls, run(LRU(), *calls))
    assert (found.good, found.unserved) == (1.0, 0.0)
    assert found.p99_s == pytest.approx(ALONE_S)
    with pytest.raises(ValueError, match="no call"):
        figures(calls[:1], run(LRU(), *calls[:1]))


def test_a_fleet_that_nobody_knows_is_refused_with_those_that_there_are() -> None:
    assert "llama-swap" in POLICIES
    with pytest.raises(ValueError, match="12 models, 2 devices"):
        next(compare(["nothing like this"], 1, 1))

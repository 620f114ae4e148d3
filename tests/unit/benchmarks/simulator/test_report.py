"""How comparisons are run and read, and what the command line refuses."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmarks.simulator.__main__ import app
from benchmarks.simulator.report import Comparison, spread
from benchmarks.simulator.runs import Task, run, run_all
from benchmarks.simulator.scenarios import ALL, OURS, PUBLIC, VARIANTS, Scenario, scenarios
from benchmarks.simulator.workloads import CONV, Workload
from simulation.costs import EngineSettings, StepCosts

TINY = Scenario("tiny", 2, EngineSettings(slots=2), Workload(6, 2.0, CONV, duration_s=20.0))


def task(router: str, seed: int = 1, **changes: float) -> Task:
    return Task(TINY, router, seed, StepCosts(), changes)


@pytest.mark.parametrize("router", ALL)
def test_every_router_gets_through_a_run(router: str) -> None:
    found = run(task(router))
    assert (found.router, found.figures.unserved_share, found.figures.refused_share) == (router, 0.0, 0.0)


def test_runs_come_in_the_order_of_their_tasks_from_two_processes() -> None:
    tasks = [task("round robin", seed) for seed in (3, 1, 2)]
    alone, shared = list(run_all(tasks, 1)), list(run_all(tasks, 2))
    assert [found.seed for found in shared] == [3, 1, 2]
    assert [found.figures for found in alone] == [found.figures for found in shared]


def test_changes_of_settings_reach_our_scheduler() -> None:
    with pytest.raises(TypeError):
        run(task(OURS, nonsense=1.0))
    assert run(task(OURS, slot_wait_s=1.0)).figures.ttft_p99_s > 0


def test_every_scenario_names_known_routers_and_makes_calls() -> None:
    for name, group in scenarios().items():
        for scenario in group:
            assert scenario.name == name
            assert set(scenario.routers) <= set(PUBLIC) | set(VARIANTS)
            brief = replace(scenario.workload, duration_s=1.0)
            assert all(call.tenant in scenario.workload.tenants() for call in brief.calls(1))


def test_spreads_are_means_with_the_least_and_the_most() -> None:
    assert spread([1.0, 2.0, 6.0]) == "3 (1..6)"
    assert spread([0.5], percent=True) == "50 %"
    assert spread([math.nan]) == "-"


def test_a_comparison_has_a_row_for_each_router() -> None:
    results = [run(task(router, seed)) for router in ("round robin", OURS) for seed in (1, 2)]
    comparison = Comparison(StepCosts(), results)
    console = Console(width=200)
    with console.capture() as capture:
        console.print(comparison.table("tiny"))
    assert comparison.table("tiny").row_count == 2
    assert "ours" in capture.get() and "p99 TTFT s" in capture.get()


def test_runs_that_were_given_up_are_complained_about() -> None:
    found = run(task("round robin"))
    lost = replace(found, figures=replace(found.figures, unserved_share=0.25))
    assert "25.0 %" in Comparison(StepCosts(), [lost]).complaints()[0]
    assert Comparison(StepCosts(), [found]).complaints() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "--scenario", "nonsense"], "unknown: nonsense"),
        (["compare", "--router", "nonsense"], "unknown: nonsense"),
        (["compare", "--set", "slot_wait_s"], "NAME=NUMBER"),
        (["compare", "--set", "slot_wait_s=soon"], "NAME=NUMBER"),
        (["compare", "--costs", "/nonexistent"], "No such file"),
        (["validate", "--traces", "/nonexistent"], "No such file"),
        (["fit", "--measurements", "/nonexistent"], "No such file"),
    ],
)
def test_the_command_line_says_what_is_wrong(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert message in " ".join(result.stderr.split())


def test_costs_fitted_to_measurements_can_be_simulated_with(tmp_path: Path) -> None:
    measured = tmp_path / "measured.json"
    loads = [(1, 1), (8, 2), (16, 8), (32, 4), (64, 8)]
    measured.write_text(
        json.dumps([{"batch": b, "adapters": a, "slots": 8, "itl_ms": 50 + b + 2 * a} for b, a in loads])
    )
    out = tmp_path / "costs.json"
    result = CliRunner().invoke(app, ["fit", "--measurements", str(measured), "--out", str(out)])
    assert result.exit_code == 0, result.stderr
    found = StepCosts.read(out)
    assert found.sequence_ms == pytest.approx(1.0)
    assert found.adapter_ms == pytest.approx(2.0)

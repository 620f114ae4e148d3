"""How are many runs got through? Each is one scenario, one router and one seed; two processes share them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from benchmarks.simulator.measures import Figures, Window, figures
from benchmarks.simulator.scenarios import WARMUP_S, Scenario
from simulation.costs import StepCosts
from simulation.driver import Driver

PROCESSES = 2


@dataclass(frozen=True, slots=True)
class Task:
    """One run to be made."""

    scenario: Scenario
    router: str
    seed: int
    costs: StepCosts
    changes: Mapping[str, float]  # of our scheduler's settings


@dataclass(frozen=True, slots=True)
class Result:
    """One run that was made."""

    scenario: str
    label: str
    router: str
    seed: int
    calls: int
    took_s: float
    figures: Figures


def run(task: Task) -> Result:
    """Make one run."""
    begun_s = time.perf_counter()
    scenario = task.scenario
    calls = scenario.workload.calls(task.seed)
    driver = Driver(
        scenario.engines(),
        scenario.costs or task.costs,
        scenario.router(task.router, task.seed, task.changes),
    )
    driver.run(calls)
    end_s = scenario.workload.duration_s
    window = Window(min(WARMUP_S, end_s / 4), end_s)
    found = figures(calls, driver.engines, window, scenario.bands)
    took_s = time.perf_counter() - begun_s
    return Result(scenario.name, scenario.label, task.router, task.seed, len(calls), took_s, found)


def run_all(tasks: Sequence[Task], processes: int = PROCESSES) -> Iterator[Result]:
    """Make all runs, giving each in the order of the tasks."""
    if processes == 1 or len(tasks) == 1:
        yield from map(run, tasks)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(run, tasks)

"""What does the model make of a run that was measured? Simulates one engine under the very same load."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from benchmarks.simulator.baselines import RoundRobin
from benchmarks.simulator.costs import EngineSettings, StepCosts
from benchmarks.simulator.driver import Driver
from benchmarks.simulator.engine import Totals
from benchmarks.simulator.runs import PROCESSES
from benchmarks.simulator.traces import MeasuredRun
from benchmarks.simulator.workloads import Workload, sharegpt

MAX_SEQUENCES = 2048  # the measured engines' --max-num-seqs
RANK = 16  # the rank the KV cache and the costs are known for


@dataclass(frozen=True, slots=True)
class Simulated:
    """The same figures as a measured run, of calls that were finished in time, as there."""

    tokens_per_s: float
    ttft_s: float
    ttft_p99_s: float
    itl_ms: float
    totals: Totals


def simulate(run: MeasuredRun, costs: StepCosts, seed: int = 1) -> Simulated:
    """Send a measured run's load to one engine; adapters come from disk at first, as they did there."""
    lengths = sharegpt(run.prompt_tokens / run.completed, run.completion_tokens / run.completed)
    workload = Workload(run.adapters, 0.0, lengths, run.duration_s, levels_per_s=run.rates_per_s)
    settings = EngineSettings(run.slots, max(run.slots, run.adapters), MAX_SEQUENCES)
    calls = workload.calls(seed)
    driver = Driver([settings], costs, RoundRobin(seed))
    driver.run(calls, until_s=run.duration_s)
    done = [call for call in calls if call.finished_s is not None]
    times = np.array([call.ttft_s for call in done])
    totals = driver.engines[0].totals
    return Simulated(
        tokens_per_s=sum(call.completion_tokens for call in done) / run.duration_s,
        ttft_s=float(times.mean()),
        ttft_p99_s=float(np.percentile(times, 99)),
        itl_ms=1000 * totals.gaps_s / max(1, totals.gaps),
        totals=totals,
    )


def simulate_all(
    runs: Sequence[MeasuredRun], costs: StepCosts, seed: int = 1, processes: int = PROCESSES
) -> list[Simulated]:
    """Simulate each run, in their order."""
    if processes == 1:
        return [simulate(run, costs, seed) for run in runs]
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(simulate, runs, [costs] * len(runs), [seed] * len(runs)))

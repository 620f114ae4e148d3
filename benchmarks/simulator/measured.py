"""What does the model make of a run that was measured? Simulates one engine under the very same load.

The runs are `llama31_real.txt` of FerranAgulloLopez/GPULLMAdapterOptimization: one 8B model on one GPU under
vLLM 0.8.5, `--max-num-seqs 2048`, no prefix caching. It is read from a folder; nothing of it is kept here.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.baselines import RoundRobin
from benchmarks.simulator.runs import PROCESSES
from benchmarks.simulator.send_at_once import SendAtOnce
from benchmarks.simulator.workloads import Workload, sharegpt
from simulation.costs import EngineSettings, StepCosts
from simulation.driver import Driver
from simulation.engine import Totals

MEASURED_RUNS = "llama31_real.txt"
COLUMNS = 11  # of a measured run that has figures; runs that did not fit the GPU have none
MAX_SEQUENCES = 2048  # the measured engines' --max-num-seqs
RANK = 16  # the rank the KV cache and the costs are known for


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One hour of one engine whose adapters have unequal rates; only completed requests count."""

    rank: int
    rates_per_s: tuple[float, ...]  # each that of an equal part of the adapters
    slots: int
    adapters: int
    completed: int
    duration_s: float
    prompt_tokens: int
    completion_tokens: int
    tokens_per_s: float  # of completions
    ttft_s: float  # mean
    ttft_p99_s: float
    itl_ms: float  # mean


def measured_runs(folder: Path) -> list[MeasuredRun]:
    """Read the hour-long runs that have figures. Raises OSError, and ValueError on a line that is no run."""
    lines = [line.split() for line in (folder / MEASURED_RUNS).read_text().splitlines() if line.strip()]
    return [_measured(words) for words in lines if len(words) == COLUMNS]


def _measured(words: list[str]) -> MeasuredRun:
    """Read `rank_R_rates_A_B_C _SLOTS_ADAPTERS_R_ POOL COMPLETED SECONDS IN OUT TOK/S TTFT P99 ITL`."""
    _, rank, rates, *each = words[0].split("_")
    slots, adapters, _ = words[1].strip("_").split("_")
    if rates != "rates":
        raise ValueError(f"{MEASURED_RUNS}: {words[0]!r} is not the name of a run")
    return MeasuredRun(
        rank=int(rank),
        rates_per_s=tuple(float(rate) for rate in each),
        slots=int(slots),
        adapters=int(adapters),
        completed=int(words[3]),
        duration_s=float(words[4]),
        prompt_tokens=int(words[5]),
        completion_tokens=int(words[6]),
        tokens_per_s=float(words[7]),
        ttft_s=float(words[8]) / 1000,
        ttft_p99_s=float(words[9]) / 1000,
        itl_ms=float(words[10]),
    )


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
    driver = Driver([settings], costs, SendAtOnce(RoundRobin()))
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

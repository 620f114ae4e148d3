"""What does a run come to, and how does a comparison read?"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.table import Table

from benchmarks.simulator.models.devices import QUEUE_TIMEOUT_S, Call, Simulation
from benchmarks.simulator.models.scenarios import (
    DURATION_S,
    FLEETS,
    OBJECTIVE_S,
    POLICIES,
    Fleet,
    of_traces,
)
from benchmarks.simulator.report import spread
from benchmarks.stats import jain

WARMUP_S = 120.0
FEW = 20  # calls of a model, below which its share says nothing


@dataclass(frozen=True, slots=True)
class Figures:
    """One run. Times are of calls that had a first token; the longest wait also of those given up."""

    good: float  # share of calls with a first token within the objective
    worst_model: float  # that of the model with the least
    p50_s: float
    p99_s: float
    longest_s: float
    unserved: float  # share refused or given up
    switches_per_h: float  # of each device
    fairness: float  # between models: Jain's index of their shares in time; 1: all alike


@dataclass(frozen=True, slots=True)
class Result:
    """One run that was made."""

    fleet: str
    policy: str
    seed: int
    figures: Figures


@dataclass(slots=True)
class ModelComparison:
    """All runs of one command."""

    results: list[Result] = field(default_factory=list)

    def complaints(self) -> list[str]:
        """Nothing can be wrong with these runs."""
        return []

    def tables(self) -> Iterator[Table]:
        """A table for each fleet, a row for each policy: mean (least..most) of all seeds."""
        for fleet in dict.fromkeys(result.fleet for result in self.results):
            table = Table(title=fleet)
            table.add_column("")
            for name, _, _ in COLUMNS:
                table.add_column(name, justify="right")
            for policy in dict.fromkeys(r.policy for r in self.results if r.fleet == fleet):
                runs = [r.figures for r in self.results if (r.fleet, r.policy) == (fleet, policy)]
                table.add_row(policy, *(spread([of(run) for run in runs], percent=p) for _, of, p in COLUMNS))
            yield table


COLUMNS: Sequence[tuple[str, Callable[[Figures], float], bool]] = (
    ("in time", lambda f: f.good, True),
    ("worst model's", lambda f: f.worst_model, True),
    ("p50 TTFT s", lambda f: f.p50_s, False),
    ("p99 TTFT s", lambda f: f.p99_s, False),
    ("longest wait s", lambda f: f.longest_s, False),
    ("unserved", lambda f: f.unserved, True),
    ("switches/h", lambda f: f.switches_per_h, False),
    ("fairness", lambda f: f.fairness, False),
)


def figures(calls: Sequence[Call], sim: Simulation) -> Figures:
    """Sum a run up. Raises ValueError where no call counts."""
    counted = [call for call in calls if WARMUP_S <= call.at_s < DURATION_S]
    first = [call.first_s - call.at_s for call in counted if call.first_s is not None]
    if not counted:
        raise ValueError("no call arrives after the warm-up: make the run longer")
    by_model: dict[int, list[bool]] = defaultdict(list)
    for call in counted:
        by_model[call.model].append(_is_good(call))
    shares = [sum(good) / len(good) for good in by_model.values() if len(good) >= FEW]
    waits = [(c.granted_s or c.at_s + QUEUE_TIMEOUT_S) - c.at_s for c in counted if not c.refused]
    switches = sum(device.switches for device in sim.devices) / len(sim.devices)
    return Figures(
        good=sum(map(_is_good, counted)) / len(counted),
        worst_model=min(shares, default=0.0),
        p50_s=_percentile(first, 50),
        p99_s=_percentile(first, 99),
        longest_s=max(waits, default=0.0),
        unserved=1.0 - len(first) / len(counted),
        switches_per_h=switches * 3600 / DURATION_S,
        fairness=jain(shares) or math.nan,
    )


def _percentile(times: Sequence[float], part: float) -> float:
    return float(np.percentile(times, part)) if times else float("nan")


def _is_good(call: Call) -> bool:
    return call.first_s is not None and call.first_s - call.at_s <= OBJECTIVE_S


def run(task: tuple[Fleet, str, int]) -> Result:
    """Make one run."""
    fleet, policy, seed = task
    calls = fleet.calls(seed)
    sim = Simulation(fleet.models, fleet.make_devices(), POLICIES[policy](), switch_s=fleet.cost_s)
    sim.run(calls)
    return Result(fleet.name, policy, seed, figures(calls, sim))


def compare(
    fleets: Sequence[str], seeds: int, processes: int, traces: Path | None = None
) -> Iterator[Result]:
    """Make every run of the fleets whose names contain one of `fleets`. Raises ValueError where none does.

    Those by public traces are among them where `traces`, the folder of these, is given.
    """
    known = FLEETS if traces is None else (*FLEETS, *of_traces(traces))
    chosen = [f for f in known if not fleets or any(part in f.name for part in fleets)]
    if not chosen:
        raise ValueError(f"unknown; there are {'; '.join(fleet.name for fleet in known)}")
    tasks = [(f, policy, seed + 1) for f in chosen for policy in POLICIES for seed in range(seeds)]
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(run, tasks)

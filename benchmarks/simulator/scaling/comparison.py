"""What does a day come to under each policy? Replica-hours, and how many calls are in time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from benchmarks.simulator.measures import Figures, Window, figures
from benchmarks.simulator.ours import Policy as Settings
from benchmarks.simulator.scaling.cluster import Cluster
from benchmarks.simulator.scaling.day import DAY_S, HOUR_S, day_of
from benchmarks.simulator.scaling.policies import Fixed, Gateway, Hpa, Policy
from benchmarks.stats import short
from fleet.pool_settings import Scaling
from fleet.types import Slo
from simulation.costs import EngineSettings, StepCosts
from simulation.driver import Driver

# A smaller GPU than that of the built-in costs: some 1.6 of the trace's calls per second and replica.
COSTS = StepCosts(base_ms=40.0, sequence_ms=0.3, prefill_token_ms=0.15, gpu_load_ms=20.0, disk_load_ms=200.0)
ENGINE = EngineSettings(slots=8, host_places=64, max_sequences=16, kv_tokens=60_000)
ADAPTERS, ZIPF = 100, 1.0
TTFT_S, TPOT_S = 2.0, 0.15
QUEUE_TIMEOUT_S = 60.0
FULL = 0.8  # the target of an HPA that counts what runs too: as full as ours lets replicas be


@dataclass(frozen=True, slots=True)
class Plan:
    """One day under one policy."""

    trace: Path
    policy: str
    seed: int
    least: int
    most: int
    start_s: float  # from the order of a replica to its first request
    duration_s: float = DAY_S
    objective: bool = False  # whether the pool has one, so that what would be late is refused


@dataclass(frozen=True, slots=True)
class Day:
    """What it came to."""

    policy: str
    seed: int
    calls: int
    replica_h: float
    orders: int
    figures: Figures


def policies(fixed: Sequence[int], waiting: float) -> dict[str, Policy]:
    """All of them by name; `waiting` is the HPA's target of waiting requests for each replica."""
    found: list[Policy] = [*(Fixed(count) for count in fixed), Hpa(waiting, with_running=False)]
    found += [Hpa(FULL * ENGINE.max_sequences, with_running=True), Gateway()]
    return {policy.name: policy for policy in found}


def simulate(plan: Plan, policy: Policy) -> Day:
    """Make one run. Raises OSError and ValueError where the trace is none."""
    calls = day_of(plan.trace, adapters=ADAPTERS, zipf=ZIPF, seed=plan.seed, duration_s=plan.duration_s)
    owned = {f"t{index}": [f"a{index}"] for index in range(ADAPTERS)}
    slo = Slo(ttft_s=TTFT_S if plan.objective else None)
    settings = Settings(slo=slo, queue_timeout_s=QUEUE_TIMEOUT_S)
    cluster = Cluster(settings, owned, policy, scaling=Scaling(plan.least), start_s=plan.start_s)
    driver = Driver([ENGINE] * plan.most, COSTS, cluster)
    driver.run(calls)
    found = figures(calls, driver.engines, Window(0.0, plan.duration_s, TTFT_S, TPOT_S))
    return Day(plan.policy, plan.seed, len(calls), cluster.replica_s / HOUR_S, cluster.orders, found)


def compare(plans: Sequence[Plan], known: dict[str, Policy], processes: int) -> Iterator[Day]:
    """Make all runs, giving each in their order."""
    chosen = [known[plan.policy] for plan in plans]
    if processes == 1:
        yield from map(simulate, plans, chosen)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(simulate, plans, chosen)


@dataclass(slots=True)
class ScalingComparison:
    """All days."""

    days: list[Day] = field(default_factory=list)

    def complaints(self) -> list[str]:
        """What makes the figures doubtful: runs that were given up."""
        return [
            f"{day.policy}: {100 * day.figures.unserved_share:.1f} % were still waiting when it was given up"
            for day in self.days
            if day.figures.unserved_share > 0
        ]

    def table(self) -> Table:
        """A row for each day."""
        table = Table(title=f"in time: first token within {TTFT_S:g} s and {1000 * TPOT_S:g} ms a token")
        for name in (
            *("policy", "seed", "calls", "replica-hours", "changes"),
            *("in time", "p50 TTFT s", "p99 TTFT s", "refused"),
        ):
            table.add_column(name, justify="left" if name == "policy" else "right")
        for day in self.days:
            found = day.figures
            table.add_row(
                *(day.policy, str(day.seed), str(day.calls), f"{day.replica_h:.1f}", str(day.orders)),
                f"{100 * found.goodput_share:.2f} %",
                *(short(found.ttft_p50_s), short(found.ttft_p99_s), f"{100 * found.refused_share:.2f} %"),
            )
        return table

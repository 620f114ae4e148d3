"""How does a comparison read? One table for each scenario, a row for each router; measures nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from rich.table import Table

from benchmarks.simulator.measures import Figures
from benchmarks.simulator.runs import Result
from benchmarks.stats import short
from simulation.costs import StepCosts


@dataclass(frozen=True, slots=True)
class Column:
    """A figure of a run and how it is called."""

    name: str
    of: Callable[[Figures], float]
    percent: bool = False


TTFT_MEAN = Column("mean TTFT s", lambda f: f.ttft_mean_s)
TTFT_P50 = Column("p50 TTFT s", lambda f: f.ttft_p50_s)
TTFT_P99 = Column("p99 TTFT s", lambda f: f.ttft_p99_s)
NEIGHBOURS_P99 = Column("neighbours' p99 TTFT s", lambda f: f.neighbours_p99_s)
NEIGHBOURS_GOOD = Column("neighbours' goodput", lambda f: f.neighbours_goodput_share, percent=True)
GOOD_PER_S = Column("goodput /s", lambda f: f.goodput_per_s)
GOOD_SHARE = Column("goodput", lambda f: f.goodput_share, percent=True)
TOKENS = Column("tok/s", lambda f: f.tokens_per_s)
LOADS = Column("loads/call", lambda f: f.loads_per_call)
READS = Column("reads/call", lambda f: f.disk_loads_per_call)
JAIN = Column("Jain", lambda f: f.jain)
REFUSED = Column("refused", lambda f: f.refused_share, percent=True)
ITL = Column("mean ITL ms", lambda f: f.itl_ms)
HIGH = Column("high band's goodput", lambda f: f.band_goodput_share.get("high", math.nan), percent=True)
HIGH_P99 = Column("high band's p99 s", lambda f: f.band_p99_s.get("high", math.nan))
LOW = Column("low band's goodput", lambda f: f.band_goodput_share.get("low", math.nan), percent=True)

PLAIN = (TTFT_P50, TTFT_P99, GOOD_SHARE, GOOD_PER_S, TOKENS, LOADS, JAIN, REFUSED)
FLOODED = (NEIGHBOURS_P99, NEIGHBOURS_GOOD, TTFT_P99, GOOD_SHARE, TOKENS, LOADS, JAIN, REFUSED)
COLUMNS: dict[str, Sequence[Column]] = {
    "noisy": FLOODED,
    "noisy-many": FLOODED,
    "overload": (TTFT_P50, TTFT_P99, GOOD_PER_S, TOKENS, HIGH, HIGH_P99, LOW, JAIN, REFUSED),
    "two-engines": (NEIGHBOURS_P99, NEIGHBOURS_GOOD, TTFT_P50, TOKENS, READS, LOADS, JAIN),
    "slots": (TOKENS, TTFT_MEAN, TTFT_P99, ITL, LOADS, REFUSED),
}


def spread(values: Sequence[float], *, percent: bool = False) -> str:
    """`mean (least..most)`; one value has no range, and none is a dash."""
    seen = [value * (100 if percent else 1) for value in values if not math.isnan(value)]
    if not seen:
        return "-"
    unit = " %" if percent else ""
    if len(seen) == 1:
        return f"{short(seen[0])}{unit}"
    return f"{short(fmean(seen))}{unit} ({short(min(seen))}..{short(max(seen))})"


@dataclass(slots=True)
class Comparison:
    """All runs of one command."""

    costs: StepCosts
    results: list[Result] = field(default_factory=list)

    def complaints(self) -> list[str]:
        """Runs that were given up before every call had ended."""
        return [
            f"{r.scenario} {r.label}, {r.router}, seed {r.seed}: {100 * r.figures.unserved_share:.1f} % of "
            "its calls were neither served nor refused when it was given up: its p99 is a lower bound"
            for r in self.results
            if r.figures.unserved_share
        ]

    def scenarios(self) -> list[str]:
        """In the order in which they were run."""
        return list(dict.fromkeys(result.scenario for result in self.results))

    def rows(self, scenario: str) -> dict[tuple[str, str], list[Figures]]:
        """(label, router) -> figures of all seeds."""
        rows: dict[tuple[str, str], list[Figures]] = {}
        for result in self.results:
            if result.scenario == scenario:
                rows.setdefault((result.label, result.router), []).append(result.figures)
        return rows

    def table(self, scenario: str) -> Table:
        """Mean (least..most) of all seeds."""
        columns = COLUMNS.get(scenario, PLAIN)
        table = Table(title=f"{scenario}: mean (least..most) of all seeds")
        table.add_column("")
        for column in columns:
            table.add_column(column.name, justify="right")
        for (label, router), runs in self.rows(scenario).items():
            name = f"{label}: {router}" if label else router
            cells = (spread([column.of(one) for one in runs], percent=column.percent) for column in columns)
            table.add_row(name, *cells)
        return table

"""How does the comparison read? One table: figures down, schedulers across."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean

from rich.table import Table

from benchmarks.scheduler.figures import Percentile
from benchmarks.scheduler.phases import Measured, Phase
from benchmarks.scheduler.report import Report, text
from benchmarks.stats import short, spread, with_range

Cell = Callable[[Report, str], str]
Rows = tuple[tuple[str, Cell], ...]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _ms(figure: Percentile | None) -> str:
    return text(figure, 1000.0, " ms")


def _cores(report: Report, scheduler: str, of: Callable[[Measured], float]) -> str:
    return f"{mean(of(m) for m in report.measured if m.scheduler == scheduler):.2f}"


def _reads(report: Report, scheduler: str, phase: Phase) -> str:
    reads = report.reads_per_request(phase, scheduler)
    return "-" if reads is None else short(reads)


def _of_every_phase(p: Phase) -> Rows:
    return (
        ("tokens/s of all", lambda r, n: with_range(spread(r.tokens_per_s(p, n)))),
        ("at equal pace of the machine", lambda r, n: with_range(spread(r.tokens_at_equal_pace_per_s(p, n)))),
        ("the machine's pace", lambda r, n: with_range(spread(r.pace(p, n)))),
        ("reads from disk per request", lambda r, n: _reads(r, n, p)),
        ("Jain's index", lambda r, n: with_range(r.fairness(p, n))),
    )


S, F, X = Phase.STEADY, Phase.FLOOD, Phase.SATURATED
SECTIONS: dict[str, Rows] = {
    "steady": (
        ("TTFT p50", lambda r, n: _ms(r.ttft(S, n, 0.5))),
        ("TTFT p99", lambda r, n: _ms(r.ttft(S, n, 0.99))),
        ("goodput", lambda r, n: _share(r.goodput(S, n))),
        *_of_every_phase(S),
    ),
    "flood": (
        ("neighbours' TTFT p50", lambda r, n: _ms(r.ttft(F, n, 0.5, neighbours=True))),
        ("neighbours' TTFT p99", lambda r, n: _ms(r.ttft(F, n, 0.99, neighbours=True))),
        ("the same without the flood", lambda r, n: _ms(r.ttft(S, n, 0.99, neighbours=True))),
        ("ratio", lambda r, n: text(r.neighbour_ratio(n))),
        ("neighbours' goodput", lambda r, n: _share(r.goodput(F, n, neighbours=True))),
        *_of_every_phase(F),
    ),
    "saturated": _of_every_phase(X),
    "always": (
        ("most adapters at one engine", lambda r, n: f"{r.most_adapters(n):g}"),
        ("cores: engines", lambda r, n: _cores(r, n, lambda m: m.cores.engines)),
        ("cores: gateway or routers", lambda r, n: _cores(r, n, lambda m: m.cores.gateway)),
        ("cores: load generator", lambda r, n: _cores(r, n, lambda m: m.cores.load)),
        ("cores: anything else", lambda r, n: _cores(r, n, lambda m: m.cores.others)),
    ),
}


def conditions(report: Report) -> list[str]:
    """What was compared under which conditions, for the head of the report."""
    setting = report.setting
    shape, plan, good = setting.shape, setting.plan, setting.objectives
    return [
        f"served     {shape.adapters} adapters of {shape.tenants} tenants on "
        f"{shape.replicas} engines with {shape.slots} slots, {shape.host_places} places in host memory, "
        f"{shape.max_sequences} sequences",
        f"cores      {report.seats}",
        f"objectives TTFT {1000 * good.ttft_s:g} ms, TPOT {1000 * good.tpot_s:g} ms",
        f"load       capacity {with_range(spread(report.capacities_per_s))} requests/s of {plan.tokens} "
        f"tokens, found anew in each round; steady {plan.load:g} of it; in the flood "
        f"tenant-{setting.flooder} adds {plan.flood:g} of it; saturated: {plan.clients} requests of each "
        "tenant at any time",
    ]


def render(report: Report) -> Table:
    """Figures down, schedulers across."""
    table = Table(title=f"{report.setting.plan.rounds} rounds of {report.setting.plan.seconds:g} s, pooled")
    table.add_column("")
    for name in report.schedulers():
        table.add_column(name, justify="right")
    for section, rows in SECTIONS.items():
        table.add_section()
        table.add_row(f"[bold]{section}")
        for label, cell in rows:
            table.add_row(f"  {label}", *(cell(report, name) for name in report.schedulers()))
    return table

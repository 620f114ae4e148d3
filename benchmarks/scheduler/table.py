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


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else short(value)


def _ms(figure: Percentile | None) -> str:
    return text(figure, 1000.0, " ms")


def _cores(report: Report, scheduler: str, of: Callable[[Measured], float]) -> str:
    return f"{mean(of(m) for m in report.measured if m.scheduler == scheduler):.2f}"


S, F, X = Phase.STEADY, Phase.FLOOD, Phase.SATURATED
SECTIONS: tuple[tuple[str, tuple[tuple[str, Cell], ...]], ...] = (
    (
        "steady",
        (
            ("TTFT p50", lambda r, n: _ms(r.ttft(S, n, 0.5))),
            ("TTFT p99", lambda r, n: _ms(r.ttft(S, n, 0.99))),
            ("TPOT p99", lambda r, n: _ms(r.tpot(S, n, 0.99))),
            ("goodput", lambda r, n: _share(r.goodput(S, n))),
            ("good requests/s", lambda r, n: _number(r.good_per_s(S, n))),
            (
                "reads from disk per request",
                lambda r, n: _number(r.per_request(S, n, lambda m: m.disk_loads)),
            ),
            (
                "moves into a slot per request",
                lambda r, n: _number(r.per_request(S, n, lambda m: m.slot_moves)),
            ),
            ("Jain's index", lambda r, n: with_range(r.fairness(S, n))),
            ("the machine's pace", lambda r, n: with_range(spread(r.pace(S, n)))),
            ("in our queue p50", lambda r, n: _ms(r.queued(S, n, 0.5, victims=False))),
            ("in our queue p99", lambda r, n: _ms(r.queued(S, n, 0.99, victims=False))),
        ),
    ),
    (
        "flood",
        (
            ("victims' TTFT p50", lambda r, n: _ms(r.ttft(F, n, 0.5, victims=True))),
            ("victims' TTFT p99", lambda r, n: _ms(r.ttft(F, n, 0.99, victims=True))),
            ("the same without the flood", lambda r, n: _ms(r.ttft(S, n, 0.99, victims=True))),
            ("ratio", lambda r, n: text(r.victim_ratio(n))),
            ("TPOT p99", lambda r, n: _ms(r.tpot(F, n, 0.99))),
            ("victims' goodput", lambda r, n: _share(r.goodput(F, n, victims=True))),
            ("tokens/s of all", lambda r, n: with_range(spread(r.tokens_per_s(F, n)))),
            (
                "reads from disk per request",
                lambda r, n: _number(r.per_request(F, n, lambda m: m.disk_loads)),
            ),
            (
                "moves into a slot per request",
                lambda r, n: _number(r.per_request(F, n, lambda m: m.slot_moves)),
            ),
            ("Jain's index", lambda r, n: with_range(r.fairness(F, n))),
            ("the machine's pace", lambda r, n: with_range(spread(r.pace(F, n)))),
            ("victims in our queue p50", lambda r, n: _ms(r.queued(F, n, 0.5, victims=True))),
            ("victims in our queue p99", lambda r, n: _ms(r.queued(F, n, 0.99, victims=True))),
        ),
    ),
    (
        "saturated",
        (
            ("tokens/s of all", lambda r, n: with_range(spread(r.tokens_per_s(X, n)))),
            (
                "at equal pace of the machine",
                lambda r, n: with_range(spread(r.tokens_at_equal_pace_per_s(X, n))),
            ),
            ("the machine's pace", lambda r, n: with_range(spread(r.pace(X, n)))),
            ("for each core that engines had", lambda r, n: with_range(spread(r.tokens_per_core_s(X, n)))),
            ("TTFT p50", lambda r, n: _ms(r.ttft(X, n, 0.5))),
            ("TPOT p50", lambda r, n: _ms(r.tpot(X, n, 0.5))),
            (
                "reads from disk per request",
                lambda r, n: _number(r.per_request(X, n, lambda m: m.disk_loads)),
            ),
            (
                "moves into a slot per request",
                lambda r, n: _number(r.per_request(X, n, lambda m: m.slot_moves)),
            ),
            ("Jain's index", lambda r, n: with_range(r.fairness(X, n))),
        ),
    ),
    (
        "always",
        (
            ("most adapters at one engine", lambda r, n: str(r.most_sent(n))),
            ("of them in vLLM", lambda r, n: f"{r.most_in_vllm(n):g}"),
            ("cores: engines", lambda r, n: _cores(r, n, lambda m: m.cores.engines)),
            ("cores: gateway or routers", lambda r, n: _cores(r, n, lambda m: m.cores.gateway)),
            ("cores: load generator", lambda r, n: _cores(r, n, lambda m: m.cores.load)),
            ("cores: anything else", lambda r, n: _cores(r, n, lambda m: m.cores.others)),
        ),
    ),
)


def conditions(report: Report) -> list[str]:
    """What was compared under which conditions, for the head of the report."""
    setting = report.setting
    shape, plan, good = setting.shape, setting.plan, setting.objectives
    return [
        f"served     {shape.adapters} adapters of {shape.tenants} tenants (Zipf {setting.zipf:g}) on "
        f"{shape.replicas} engines with {shape.slots} slots, {shape.host_places} places in host memory, "
        f"{shape.max_sequences} sequences",
        f"cores      {report.seats}",
        f"ours       {', '.join(f'{k} {v:g}' for k, v in setting.tuning.items()) or 'default settings'}",
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
    for section, rows in SECTIONS:
        table.add_section()
        table.add_row(f"[bold]{section}")
        for label, cell in rows:
            table.add_row(f"  {label}", *(cell(report, name) for name in report.schedulers()))
    return table

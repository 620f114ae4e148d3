"""How do the gateway's measurements read? Sums rounds up into a table and into JSON; measures nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from rich.table import Table

from benchmarks.machine import Origin
from benchmarks.results import LoadResult
from benchmarks.scenarios import CHAT_1, CHAT_32, CHUNKS, SLOW_200, STREAMS_16
from benchmarks.stats import Spread, differences, ratios, spread, with_range

DIRECT = "direct"
PLAIN = "plain proxy"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One scenario against one target, once."""

    target: str
    scenario: str
    cpu_ms_per_request: float | None  # of the target and all its processes
    other_cpu: float | None  # CPUs' worth of work by anybody else meanwhile: disturbance
    result: LoadResult


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the table: which scenario it comes from and how one measurement gives it."""

    name: str
    scenario: str
    of: Callable[[Measurement], float | None]


def _per_chunk(cpu_ms_per_stream: float | None) -> float | None:
    return None if cpu_ms_per_stream is None else cpu_ms_per_stream / CHUNKS


FIGURES = (
    Figure("chat requests/s, 32 connections", CHAT_32.name, lambda m: m.result.requests_per_s),
    Figure("CPU s per 1000 chat requests", CHAT_32.name, lambda m: m.cpu_ms_per_request),
    Figure("SSE chunks/s, 16 streams", STREAMS_16.name, lambda m: m.result.chunks_per_s),
    Figure("SSE chunks/s, 200 slow streams", SLOW_200.name, lambda m: m.result.chunks_per_s),
    Figure("CPU s per 1000 slow chunks", SLOW_200.name, lambda m: _per_chunk(m.cpu_ms_per_request)),
    Figure("p99 ms between slow chunks", SLOW_200.name, lambda m: m.result.gap_ms.at("p99")),
    Figure("p50 ms, 1 connection", CHAT_1.name, lambda m: m.result.latency_ms.at("p50")),
    Figure("p99 ms, 1 connection", CHAT_1.name, lambda m: m.result.latency_ms.at("p99")),
    Figure("p99 ms, 32 connections", CHAT_32.name, lambda m: m.result.latency_ms.at("p99")),
)
CHAT_PER_S, CPU_PER_CHAT, CHUNKS_PER_S, SLOW_CHUNKS_PER_S, CPU_PER_SLOW_CHUNK, _, P50_MS, P99_MS, _ = FIGURES


@dataclass(slots=True)
class Report:
    """Everything one run measured."""

    measurements: list[Measurement] = field(default_factory=list)
    idle_bytes: dict[str, int] = field(default_factory=dict)

    def targets(self) -> list[str]:
        """In the order in which they first appear, the mock alone first."""
        names = list(dict.fromkeys(m.target for m in self.measurements))
        return sorted(names, key=lambda name: name != DIRECT)

    def rounds(self, target: str, figure: Figure) -> list[float | None]:
        """One value for each round."""
        found = [m for m in self.measurements if m.target == target and m.scenario == figure.scenario]
        return [figure.of(m) for m in found]

    def summary(self, target: str, figure: Figure) -> Spread | None:
        """The figure over all rounds."""
        return spread(self.rounds(target, figure))

    def ratio(self, target: str, to: str, figure: Figure) -> Spread | None:
        """The figure of one target over that of another, round by round; `None` where either was not run."""
        if to not in self.targets():
            return None
        return ratios(self.rounds(target, figure), self.rounds(to, figure))

    def added(self, target: str, figure: Figure) -> Spread | None:
        """How much more than the mock alone."""
        return differences(self.rounds(target, figure), self.rounds(DIRECT, figure))

    def disturbance(self, target: str) -> Spread | None:
        """What else kept the CPUs busy, over all scenarios."""
        return spread(m.other_cpu for m in self.measurements if m.target == target)

    def complaints(self) -> list[str]:
        """Measurements in which requests failed, with the first reason."""
        return [
            f"{m.target}, {m.scenario}: {m.result.errors} of {m.result.requests} requests failed: "
            f"{m.result.first_error}"
            for m in self.measurements
            if m.result.errors or not m.result.ok
        ]

    def as_json(self, head: Origin) -> str:
        """All measurements and where they come from."""
        rows = [
            {
                "target": m.target,
                "scenario": m.scenario,
                "cpu_ms_per_request": m.cpu_ms_per_request,
                "other_cpu": m.other_cpu,
                "result": m.result.model_dump(),
            }
            for m in self.measurements
        ]
        whole = {"origin": asdict(head), "idle_bytes": self.idle_bytes, "measurements": rows}
        return json.dumps(whole, indent=1) + "\n"


def render(report: Report) -> Table:
    """One row per figure, one column per target; then what they come to against each other."""
    names = report.targets()
    table = Table(title="median (least..most) of all rounds")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    for figure in FIGURES:
        table.add_row(figure.name, *(with_range(report.summary(name, figure)) for name in names))
    table.add_row("idle memory, MiB", *(_mebibytes(report.idle_bytes.get(name)) for name in names))
    table.add_row(
        "disturbance, CPUs used by others", *(with_range(report.disturbance(name)) for name in names)
    )
    table.add_section()
    kept_up = SLOW_200.keeping_up_per_s or 1.0
    for label, cell in (
        ("added p50 ms over direct", lambda name: report.added(name, P50_MS)),
        ("added p99 ms over direct", lambda name: report.added(name, P99_MS)),
        ("slow streams, of keeping up", lambda name: _share(report, name, kept_up)),
        ("chat/s, of the plain proxy", lambda name: report.ratio(name, PLAIN, CHAT_PER_S)),
        ("chunks/s, of the plain proxy", lambda name: report.ratio(name, PLAIN, CHUNKS_PER_S)),
        (
            "CPU per slow chunk, of the plain proxy",
            lambda name: report.ratio(name, PLAIN, CPU_PER_SLOW_CHUNK),
        ),
        ("CPU per chat, of the plain proxy", lambda name: report.ratio(name, PLAIN, CPU_PER_CHAT)),
    ):
        table.add_row(label, *(_beside(name, cell) for name in names))
    return table


def _share(report: Report, name: str, whole: float) -> Spread | None:
    values = report.rounds(name, SLOW_CHUNKS_PER_S)
    return spread(None if value is None else value / whole for value in values)


def _beside(name: str, cell: Callable[[str], Spread | None]) -> str:
    return "-" if name == DIRECT else with_range(cell(name))


def _mebibytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:.0f}"

"""How do the gateway's measurements read? A table with a column for each target; measures nothing."""

from __future__ import annotations

from collections.abc import Callable

from rich.table import Table

from benchmarks.rounds import Figure, Rounds
from benchmarks.scenarios import CHAT_1, CHAT_32, CHUNKS, SLOW_200, STREAMS_16
from benchmarks.stats import Spread, spread, with_range

DIRECT = "direct"
PLAIN = "plain proxy"
KEEPING_UP_PER_S = SLOW_200.connections * 1000 / SLOW_200.delay_ms  # chunks of a target that delays none


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


def render(report: Rounds) -> Table:
    """One row per figure, one column per target; then what they come to against each other."""
    names = sorted(report.targets(), key=lambda name: name != DIRECT)
    table = Table(title="median (least..most) of all rounds")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    for figure in FIGURES:
        table.add_row(figure.name, *(with_range(report.summary(name, figure)) for name in names))
    table.add_row("idle memory, MiB", *(_mebibytes(report.idle_bytes.get(name)) for name in names))
    table.add_row("disturbance, CPUs used by others", *(with_range(_others(report, name)) for name in names))
    table.add_section()
    rows: tuple[tuple[str, Callable[[str], Spread | None]], ...] = (
        ("added p50 ms over direct", lambda name: report.added(name, DIRECT, P50_MS)),
        ("added p99 ms over direct", lambda name: report.added(name, DIRECT, P99_MS)),
        ("slow streams, of keeping up", lambda name: _kept_up(report, name)),
        ("chat/s, of the plain proxy", lambda name: report.ratio(name, PLAIN, CHAT_PER_S)),
        ("chunks/s, of the plain proxy", lambda name: report.ratio(name, PLAIN, CHUNKS_PER_S)),
        (
            "CPU per slow chunk, of the plain proxy",
            lambda name: report.ratio(name, PLAIN, CPU_PER_SLOW_CHUNK),
        ),
        ("CPU per chat, of the plain proxy", lambda name: report.ratio(name, PLAIN, CPU_PER_CHAT)),
    )
    for label, cell in rows:
        table.add_row(label, *("-" if name == DIRECT else with_range(cell(name)) for name in names))
    return table


def _others(report: Rounds, name: str) -> Spread | None:
    return spread(m.other_cpu for m in report.measurements if m.target == name)


def _kept_up(report: Rounds, name: str) -> Spread | None:
    values = report.values(name, SLOW_CHUNKS_PER_S)
    return spread(None if value is None else value / KEEPING_UP_PER_S for value in values)


def _mebibytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:.0f}"

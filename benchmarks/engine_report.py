"""How does the engine's benchmark read? A table with both sides' figures; measures nothing."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from benchmarks.results import LoadResult
from benchmarks.rounds import Figure, Rounds
from benchmarks.stats import with_range

GATEWAY = "through the gateway"
ENGINE = "straight to the engine"


def tokens_per_s(result: LoadResult) -> float:
    """Output tokens per second by the usage of the answers, else one for each chunk of a stream."""
    return result.done_tokens_per_s or result.chunks_per_s


def rates(mode: str) -> Iterator[Figure]:
    """By shares of answers: a batch ends all at once, and whole ones would jump with it."""
    yield Figure("requests/s", mode, lambda m: m.result.done_requests_per_s)
    yield Figure("output tokens/s", mode, lambda m: tokens_per_s(m.result))


def times(mode: str) -> Iterator[Figure]:
    """Medians, of whole answers and of the first content of streams."""
    yield Figure("p50 ms", mode, lambda m: m.result.latency_ms.at("p50"))
    yield Figure("first chunk p50 ms", mode, lambda m: m.result.first_chunk_ms.at("p50"))


def render(report: Rounds) -> Table:
    """For each mode: both sides' rates with their ratio, both sides' times with their difference."""
    table = Table(title="median (least..most) of all rounds")
    for name in ("", GATEWAY, ENGINE, "ratio or difference"):
        table.add_column(name, justify="right" if name else "left")
    for mode in dict.fromkeys(m.case for m in report.measurements):
        table.add_section()
        for rate in rates(mode):
            compared = with_range(report.ratio(GATEWAY, ENGINE, rate))
            table.add_row(f"{mode}: {rate.name}", *_both(report, rate), compared)
        for time in times(mode):
            added = report.added(GATEWAY, ENGINE, time)
            if added is not None:
                table.add_row(f"{mode}: {time.name}", *_both(report, time), f"{with_range(added)} more")
    return table


def _both(report: Rounds, figure: Figure) -> list[str]:
    return [with_range(report.summary(side, figure)) for side in (GATEWAY, ENGINE)]

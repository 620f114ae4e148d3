"""How does the engine's benchmark read? Sums rounds up into a table and into JSON; measures nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from rich.table import Table

from benchmarks.machine import Origin
from benchmarks.results import LoadResult
from benchmarks.stats import Spread, differences, ratios, spread, with_range

GATEWAY = "through the gateway"
ENGINE = "straight to the engine"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One mode on one side, once."""

    mode: str
    side: str
    result: LoadResult


def requests_per_s(result: LoadResult) -> float:
    """Good answers per second, by shares: a batch ends all at once, and whole ones would jump with it."""
    return result.done_requests_per_s


def tokens_per_s(result: LoadResult) -> float:
    """Output tokens per second by the usage of the answers, else one for each chunk of a stream."""
    return result.done_tokens_per_s or result.chunks_per_s


def p50_ms(result: LoadResult) -> float | None:
    """Median time of a whole answer."""
    return result.latency_ms.at("p50")


def first_chunk_p50_ms(result: LoadResult) -> float | None:
    """Median time to the first content of a stream."""
    return result.first_chunk_ms.at("p50")


RATES = (("requests/s", requests_per_s), ("output tokens/s", tokens_per_s))
TIMES: tuple[tuple[str, Callable[[LoadResult], float | None]], ...] = (
    ("p50 ms", p50_ms),
    ("first chunk p50 ms", first_chunk_p50_ms),
)


@dataclass(slots=True)
class Report:
    """Everything one run measured."""

    measurements: list[Measurement] = field(default_factory=list)

    def modes(self) -> list[str]:
        """In the order in which they were measured."""
        return list(dict.fromkeys(m.mode for m in self.measurements))

    def rounds(self, mode: str, side: str, of: Callable[[LoadResult], float | None]) -> list[float | None]:
        """One value for each round."""
        return [of(m.result) for m in self.measurements if (m.mode, m.side) == (mode, side)]

    def ratio(self, mode: str, of: Callable[[LoadResult], float | None]) -> Spread | None:
        """Through the gateway over straight to the engine, round by round."""
        return ratios(self.rounds(mode, GATEWAY, of), self.rounds(mode, ENGINE, of))

    def added(self, mode: str, of: Callable[[LoadResult], float | None]) -> Spread | None:
        """Through the gateway less straight to the engine, round by round."""
        return differences(self.rounds(mode, GATEWAY, of), self.rounds(mode, ENGINE, of))

    def complaints(self) -> list[str]:
        """Measurements in which requests failed, with the first reason."""
        return [
            f"{m.mode}, {m.side}: {m.result.errors} of {m.result.requests} requests failed: "
            f"{m.result.first_error or 'none was answered in time'}"
            for m in self.measurements
            if m.result.errors or not m.result.done_requests
        ]

    def as_json(self, head: Origin) -> str:
        """All measurements and where they come from."""
        rows = [{"mode": m.mode, "side": m.side, "result": m.result.model_dump()} for m in self.measurements]
        return json.dumps({"origin": asdict(head), "measurements": rows}, indent=1) + "\n"


def render(report: Report) -> Table:
    """For each mode: both sides' rates with their ratio, both sides' times with their difference."""
    table = Table(title="median (least..most) of all rounds")
    for name in ("", GATEWAY, ENGINE, "ratio or difference"):
        table.add_column(name, justify="right" if name else "left")
    for mode in report.modes():
        table.add_section()
        for name, rate in RATES:
            table.add_row(f"{mode}: {name}", *_both(report, mode, rate), with_range(report.ratio(mode, rate)))
        for name, time in TIMES:
            added = report.added(mode, time)
            if added is not None:
                table.add_row(f"{mode}: {name}", *_both(report, mode, time), f"{with_range(added)} more")
    return table


def _both(report: Report, mode: str, of: Callable[[LoadResult], float | None]) -> list[str]:
    return [with_range(spread(report.rounds(mode, side, of))) for side in (GATEWAY, ENGINE)]

"""What was measured of switches, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median

from rich.console import Group, RenderableType
from rich.table import Table

from benchmarks.tools import ToolError

MIB = 2**20
PLAIN = "plain vllm serve, stopped and started"


@dataclass(frozen=True, slots=True)
class Switch:
    """One switch between the two large models."""

    way: str
    ready_s: float  # from the order until the model takes requests, the check included
    first_token_s: float  # from the order to the first token


@dataclass(frozen=True, slots=True)
class Memory:
    """What is used when, in bytes: of the device, on CPUs of the machine."""

    when: str
    used_bytes: int
    host_available_bytes: int


@dataclass(frozen=True, slots=True)
class Slots:
    """One adapter of a model that is awake."""

    adapter: str
    load_s: float  # from telling the engine until it is in host memory
    first_token_s: float  # of its first request, which moves it into a slot
    again_s: float  # of the next one


@dataclass(slots=True)
class Report:
    """All of it."""

    on: str  # the device, or that it is none
    switches: list[Switch] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    turns: int = 0
    ways_of_turns: dict[str, int] = field(default_factory=dict)
    wrong_answers: int = 0
    failed_checks: int = 0
    slots: list[Slots] = field(default_factory=list)
    tokens_per_s: dict[str, float] = field(default_factory=dict)
    not_possible: dict[str, str] = field(default_factory=dict)  # way -> why

    def medians(self) -> dict[str, tuple[float, float, int]]:
        """Median seconds until ready and to the first token, and how many, of each way."""
        ways = dict.fromkeys(switch.way for switch in self.switches)
        return {way: self._median(way) for way in ways}

    def _median(self, way: str) -> tuple[float, float, int]:
        found = [switch for switch in self.switches if switch.way == way]
        return (
            median(switch.ready_s for switch in found),
            median(switch.first_token_s for switch in found),
            len(found),
        )

    def complaints(self) -> list[str]:
        """What is not as it must be."""
        return [
            *([f"{self.wrong_answers} answers of {self.turns} turns were wrong"] * bool(self.wrong_answers)),
            *([f"{self.failed_checks} checks after a switch failed"] * bool(self.failed_checks)),
        ]


def render(report: Report) -> RenderableType:
    """All tables, one below the other."""
    return Group(*_tables(report))


def _tables(report: Report) -> Iterator[RenderableType]:
    medians = report.medians()
    cold_s = medians["cold"][1] if "cold" in medians else None
    ways = _table(
        f"from one 603 MiB model to another, {report.on}", "way", "times", "ready s", "first token s"
    )
    ways.add_column("of cold", justify="right")
    for way, (ready_s, first_s, times) in sorted(medians.items(), key=lambda item: item[1][1]):
        part = "" if cold_s is None else f"{first_s / cold_s:.0%}"
        ways.add_row(way, str(times), f"{ready_s:.2f}", f"{first_s:.2f}", part)
    for way, why in report.not_possible.items():
        ways.add_row(way, "0", "", why, "")
    yield ways
    memory = _table("memory, MiB", "when", "used", "host, available")
    for one in report.memory:
        memory.add_row(one.when, f"{one.used_bytes / MIB:.0f}", f"{one.host_available_bytes / MIB:.0f}")
    yield memory
    slots = _table("adapters of a model that is awake", "adapter", "load s", "first token s", "again s")
    for each in report.slots:
        slots.add_row(each.adapter, f"{each.load_s:.3f}", f"{each.first_token_s:.3f}", f"{each.again_s:.3f}")
    yield slots
    how = ", ".join(f"{times} {way}" for way, times in report.ways_of_turns.items())
    wrong = f"{report.wrong_answers} wrong answers, {report.failed_checks} failed checks"
    yield f"{report.turns} turns ({how}): {wrong}"
    for name, speed in report.tokens_per_s.items():
        yield f"{speed:.0f} tokens/s, {name}"


def _table(title: str, first: str, *more: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for name in more:
        table.add_column(name, justify="right")
    return table


def require(condition: object, message: str) -> None:
    """Raise `ToolError` unless something is so."""
    if not condition:
        raise ToolError(message)

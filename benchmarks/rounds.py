"""What came of the same cases, measured in turn in every round? Sums rounds up; measures nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from benchmarks.results import LoadResult
from benchmarks.stats import Spread, differences, ratios, spread


@dataclass(frozen=True, slots=True)
class Measurement:
    """One case with one target, once."""

    case: str
    target: str
    result: LoadResult
    cpu_ms_per_request: float | None = None  # of the target and all its processes
    other_cpu: float | None = None  # CPUs' worth of work by anybody else meanwhile: disturbance


@dataclass(frozen=True, slots=True)
class Figure:
    """How one measurement gives it, and of which case."""

    name: str
    case: str
    of: Callable[[Measurement], float | None]


@dataclass(slots=True)
class Rounds:
    """Everything one run measured."""

    measurements: list[Measurement] = field(default_factory=list)
    idle_bytes: dict[str, int] = field(default_factory=dict)  # resident memory of targets before any load

    def targets(self) -> list[str]:
        """In the order in which they first appear."""
        return list(dict.fromkeys(m.target for m in self.measurements))

    def values(self, target: str, figure: Figure) -> list[float | None]:
        """One for each round."""
        return [figure.of(m) for m in self.measurements if (m.target, m.case) == (target, figure.case)]

    def summary(self, target: str, figure: Figure) -> Spread | None:
        """The figure over all rounds."""
        return spread(self.values(target, figure))

    def ratio(self, target: str, to: str, figure: Figure) -> Spread | None:
        """One target's figure over another's, round by round; `None` where that one was not run."""
        others = self.values(to, figure)
        return ratios(self.values(target, figure), others) if others else None

    def added(self, target: str, to: str, figure: Figure) -> Spread | None:
        """How much more than another target's, round by round."""
        return differences(self.values(target, figure), self.values(to, figure))

    def complaints(self) -> list[str]:
        """Measurements in which requests failed, with the first reason."""
        return list(self._failures())

    def _failures(self) -> Iterator[str]:
        for m in self.measurements:
            if m.result.errors or not (m.result.ok or m.result.done_requests):
                reason = m.result.first_error or "none was answered in time"
                failed = f"{m.result.errors} of {m.result.requests} requests failed"
                yield f"{m.target}, {m.case}: {failed}: {reason}"

"""How do measurements add up to one figure? Medians, spreads, ratios and fairness; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, median


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several rounds, and the least and the most seen."""

    median: float
    low: float
    high: float
    rounds: int


def spread(values: Iterable[float | None]) -> Spread | None:
    """Sum rounds up; `None` where no round gave a value."""
    seen = [value for value in values if value is not None]
    if not seen:
        return None
    return Spread(median(seen), min(seen), max(seen), len(seen))


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of those that are known; `None` where none is."""
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def ratios(ours: Sequence[float | None], theirs: Sequence[float | None]) -> Spread | None:
    """Compare round by round, so that what slows both in one round cancels out.

    Raises ValueError when the two do not have the same number of rounds.
    """
    pairs = zip(ours, theirs, strict=True)
    return spread(a / b for a, b in pairs if a is not None and b)


def differences(ours: Sequence[float | None], theirs: Sequence[float | None]) -> Spread | None:
    """Subtract round by round. Raises ValueError when the two do not have the same number of rounds."""
    pairs = zip(ours, theirs, strict=True)
    return spread(a - b for a, b in pairs if a is not None and b is not None)


def short(value: float) -> str:
    """Three significant digits, thousands as k and M."""
    for limit, scale, unit in ((1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= limit:
            return f"{value / scale:.3g} {unit}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def with_range(figure: Spread | None, unit: str = "") -> str:
    """`median (low..high)`, or a dash where there is no figure; one round has no range."""
    if figure is None:
        return "-"
    text = f"{short(figure.median)}{unit}"
    if figure.rounds == 1:
        return text
    return f"{text} ({short(figure.low)}..{short(figure.high)})"


def jain(values: Iterable[float]) -> float | None:
    """Jain's fairness index: 1 where all are alike, 1/n where one has everything (Jain et al. 1984).

    None where nobody has anything.
    """
    seen = list(values)
    squares = sum(value * value for value in seen)
    return sum(seen) ** 2 / (len(seen) * squares) if squares else None


def max_min_shares(total: float, demands: Sequence[float]) -> list[float]:
    """Divide `total`: nobody gets more than demanded; what one leaves goes to the others in equal parts."""
    shares = [0.0] * len(demands)
    left = total
    by_demand = sorted(range(len(demands)), key=lambda i: demands[i])
    for position, index in enumerate(by_demand):
        shares[index] = min(demands[index], left / (len(demands) - position))
        left -= shares[index]
    return shares


def fairness(served: Sequence[float], demands: Sequence[float]) -> float | None:
    """Jain's index over each tenant's service as a part of its max-min fair share of all service.

    Plain service would call a tenant wronged that asked for little. None where nothing was served.
    """
    shares = max_min_shares(sum(served), demands)
    return jain(got / share for got, share in zip(served, shares, strict=True) if share > 0)

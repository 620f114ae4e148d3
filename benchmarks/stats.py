"""How do rounds add up to one figure? Medians, spreads and ratios; reads no clock and prints nothing."""

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

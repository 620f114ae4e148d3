"""Counts and times in words for people. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from planning.values import DAY_S, HOUR_S


def counted(number: int, what: str) -> str:
    """Return `1 device` or `2 devices`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def lasting(seconds: float) -> str:
    """Return for how long something went on, with a decimal of days and hours."""
    for unit, size in (("days", DAY_S), ("hours", HOUR_S)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return span(seconds)


def span(seconds: float) -> str:
    """Return a time in the largest unit of which it has two."""
    for unit, size in (("days", DAY_S), ("hours", HOUR_S), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.3g} s"


def listed(texts: Sequence[str], most: int = 5) -> str:
    """Return the first of some texts, and how many there are beside them."""
    shown = ", ".join(texts[:most])
    return f"{shown} and {len(texts) - most} more" if len(texts) > most else shown

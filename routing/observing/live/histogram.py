"""A histogram of durations in little memory: counts in buckets that grow by a constant factor.

A quantile read from them is at most `MAX_ERROR` beside the true one (nearest rank), for any values.
Same idea as DDSketch (Masson, Rim and Lee, VLDB 2019), without its bound on the number of buckets: the values
here are short-lived, and `LEAST_S` and `MOST_S` bound them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

PER_OCTAVE = 8  # buckets for each doubling
LEAST_S, MOST_S = 0.001, 3600.0
FIRST, LAST = (math.floor(PER_OCTAVE * math.log2(bound_s)) for bound_s in (LEAST_S, MOST_S))
MAX_ERROR = 2 ** (1 / (2 * PER_OCTAVE)) - 1  # 4.4 %: from the geometric middle of a bucket to its ends

Counts = dict[int, int]  # bucket -> values in it


def bucket(value_s: float) -> int:
    """Return the bucket of a duration; values out of bounds go to the last one at that end."""
    if value_s <= LEAST_S:
        return FIRST
    return math.floor(PER_OCTAVE * math.log2(value_s)) if value_s < MOST_S else LAST


def merged(parts: Iterable[Mapping[int, int]]) -> Counts:
    """Add counts up."""
    total: Counts = {}
    for part in parts:
        for number, count in part.items():
            total[number] = total.get(number, 0) + count
    return total


def quantile(counts: Mapping[int, int], part: float) -> float | None:
    """Return the duration below which that part of the values lies, in seconds; None without values."""
    return _ranked(counts, sorted(counts), math.ceil(part * sum(counts.values())))


def largest(counts: Mapping[int, int], rank: int) -> float | None:
    """Return the longest duration, or that of a lower rank, in seconds; None with fewer values."""
    return _ranked(counts, sorted(counts, reverse=True), rank)


def _ranked(counts: Mapping[int, int], order: list[int], rank: int) -> float | None:
    for number in order:
        rank -= counts[number]
        if rank <= 0:
            return float(2 ** ((number + 0.5) / PER_OCTAVE))
    return None

"""How do answers add up? Percentiles, goodput and shares; reads no clock and prints nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.scheduler.answers import Answer
from benchmarks.scheduler.fleet import Objectives


@dataclass(frozen=True, slots=True)
class Percentile:
    """A value, or what it is at least, where requests were cut off before their first token."""

    value: float
    is_bound: bool = False


def percentile(exact: Sequence[float], bounds: Sequence[float], fraction: float) -> Percentile | None:
    """The nearest-rank percentile, where some values are only known to be at least so much.

    Those enter with what is known, so the result is true or too small; it says so where one could move it.
    None where there is no value at all.
    """
    ordered = sorted([*exact, *bounds])
    if not ordered:
        return None
    value = ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]
    return Percentile(value, is_bound=any(bound <= value for bound in bounds))


def times_to_first_token(answers: Iterable[Answer], cut_s: float) -> tuple[list[float], list[float]]:
    """(known, at least) times in seconds; the second are those cut off at `cut_s` without a token.

    Answers that failed are in neither: they are reported as errors.
    """
    known, at_least = [], []
    for answer in answers:
        first_s = answer.ttft_s()
        if first_s is not None:
            known.append(first_s)
        elif answer.cut:
            at_least.append(cut_s - answer.due_s)
    return known, at_least


def is_good(answer: Answer, objectives: Objectives, tokens: int) -> bool:
    """Whether it was answered whole, and both its first token and the rest came in time."""
    first_s, each_s = answer.ttft_s(), answer.tpot_s(tokens)
    if first_s is None or each_s is None:
        return False
    return first_s <= objectives.ttft_s and each_s <= objectives.tpot_s


def tokens_between(answer: Answer, tokens: int, start_s: float, end_s: float) -> float:
    """Tokens of an answer that came within a window, as if they came evenly from first to last."""
    if answer.first_s is None or answer.last_s is None:
        return 0.0
    count = float(tokens if answer.whole else min(answer.pieces, tokens))
    length_s = answer.last_s - answer.first_s
    if length_s <= 0:
        return count if start_s <= answer.first_s < end_s else 0.0
    inside_s = min(answer.last_s, end_s) - max(answer.first_s, start_s)
    return count * max(0.0, inside_s) / length_s

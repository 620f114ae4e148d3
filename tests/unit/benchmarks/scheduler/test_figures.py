"""Percentiles say when they are bounds; answers are good or not."""

from __future__ import annotations

import pytest

from benchmarks.scheduler.answers import Answer
from benchmarks.scheduler.arrivals import Arrival
from benchmarks.scheduler.figures import (
    Percentile,
    is_good,
    percentile,
    times_to_first_token,
    tokens_between,
)
from benchmarks.scheduler.fleet import Objectives

ARRIVAL = Arrival(0.0, 0, 0)


def answer(
    first_s: float | None = 1.0, last_s: float | None = 2.0, *, pieces: int = 0, **more: object
) -> Answer:
    made = Answer(ARRIVAL, due_s=0.0, first_s=first_s, last_s=last_s, pieces=pieces)
    made.whole = bool(more.get("whole", True))
    made.error = str(more.get("error", ""))
    return made


@pytest.mark.parametrize(
    ("exact", "bounds", "fraction", "expected"),
    [
        ([], [], 0.5, None),
        ([3.0], [], 0.99, Percentile(3.0)),
        ([4.0, 1.0, 2.0, 3.0], [], 0.5, Percentile(2.0)),
        (list(range(1, 101)), [], 0.99, Percentile(99)),
        ([1.0, 2.0, 3.0], [9.0], 0.5, Percentile(2.0)),
        ([1.0, 2.0, 3.0], [9.0], 0.99, Percentile(9.0, is_bound=True)),
        ([1.0, 5.0, 6.0], [2.0], 0.99, Percentile(6.0, is_bound=True)),
    ],
)
def test_a_percentile_is_the_nearest_rank_and_a_bound_where_one_could_move_it(
    exact: list[float], bounds: list[float], fraction: float, expected: Percentile | None
) -> None:
    assert percentile(exact, bounds, fraction) == expected


def test_what_was_cut_off_without_a_token_has_waited_at_least_until_then() -> None:
    cut = answer(None, 8.0, whole=False)
    failed = answer(None, 3.0, whole=False, error="503")
    known, at_least = times_to_first_token([answer(1.5), cut, failed], cut_s=8.0)
    assert (known, at_least) == ([1.5], [8.0])


@pytest.mark.parametrize(
    ("one", "good"),
    [
        (answer(0.9, 1.25), True),
        (answer(1.1, 1.2), False),
        (answer(0.1, 0.6), False),
        (answer(0.1, 0.2, whole=False), False),
        (answer(None, None, whole=False), False),
    ],
)
def test_an_answer_is_good_when_whole_and_both_objectives_are_met(one: Answer, good: bool) -> None:
    assert is_good(one, Objectives(ttft_s=1.0, tpot_s=0.1), tokens=5) is good


def test_tokens_count_by_how_much_of_an_answer_lies_in_the_window() -> None:
    assert tokens_between(answer(1.0, 3.0), 20, 0.0, 10.0) == 20
    assert tokens_between(answer(1.0, 3.0), 20, 2.0, 10.0) == 10
    assert tokens_between(answer(1.0, 3.0), 20, 5.0, 10.0) == 0
    assert tokens_between(answer(None), 20, 0.0, 10.0) == 0
    assert tokens_between(answer(1.0, 1.0), 20, 0.0, 10.0) == 20
    assert tokens_between(answer(1.0, 3.0, whole=False, pieces=8), 20, 2.0, 10.0) == 4

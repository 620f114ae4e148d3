"""Requests as they were read: what is believed of them, and what is said."""

from __future__ import annotations

import math

import pytest

from planning.requests import MAX_TOKENS, DemandError, Requests, sifted

DAY_S = 86_400.0


def some(count: int, *, gap_s: float = 10.0, model: str = "a", begin_s: float = 1e9) -> Requests:
    found = Requests()
    for number in range(count):
        found.add(begin_s + number * gap_s, model, 100, 20)
    return found


def test_requests_in_any_order_come_in_that_of_their_arrival() -> None:
    found = Requests()
    for time_s, prompt in ((30.0, 3), (10.0, 1), (20.0, 2)):
        found.add(time_s, "a", prompt, 5)
    believed = sifted(found)
    assert believed.time_s.tolist() == [0.0, 10.0, 20.0]
    assert believed.prompt.tolist() == [1, 2, 3]
    assert believed.begins_s == 10.0
    assert any("earlier than the line above, by up to 20 s." in n for n in believed.notes)


def test_of_good_requests_nothing_is_said() -> None:
    assert sifted(some(50)).notes == ()


@pytest.mark.parametrize(
    "bad",
    [
        (math.nan, "a", 10, 1),
        (1e9, "a", -1, 1),
        (1e9, "a", 10, -5),
        (1e9, "a", math.inf, 1),
        (1e9, "a", 10, MAX_TOKENS + 1),
        (1e9, "", 10, 1),
    ],
    ids=["no time", "negative prompt", "negative completion", "infinite", "absurd", "no model"],
)
def test_a_request_that_cannot_be_is_left_out_and_counted(bad: tuple[float, str, float, float]) -> None:
    found = some(10)
    found.add(*bad)
    believed = sifted(found)
    assert len(believed.time_s) == 10
    assert any(note.startswith("1 of 11 requests have") for note in believed.notes)


def test_where_most_cannot_be_nothing_is_made_of_it() -> None:
    found = some(3)
    for _ in range(4):
        found.add(1e9, "a", -1, 1)
    with pytest.raises(DemandError, match="4 of its 7 requests"):
        sifted(found)


def test_no_request_is_no_demand() -> None:
    with pytest.raises(DemandError, match="no request"):
        sifted(Requests())


def test_a_clock_that_jumps_is_cut_where_it_jumped() -> None:
    found = some(100)
    found.add(0.0, "a", 10, 1)  # a machine that woke in 1970
    found.add(1e9 + 400 * DAY_S, "a", 10, 1)
    believed = sifted(found)
    assert len(believed.time_s) == 100
    assert believed.time_s[-1] == pytest.approx(990.0)
    assert any("clock jumps" in note and "2 others do not" in note for note in believed.notes)


def test_a_clock_that_jumps_all_the_time_is_refused() -> None:
    with pytest.raises(DemandError, match="jumps 2 times"):
        sifted(some(3, gap_s=40 * DAY_S))


def test_more_is_never_cached_than_there_was() -> None:
    found = some(1)
    found.add(1e9, "a", 10, 1, cached=50)
    assert sifted(found).cached.max() == 10


def test_a_column_that_names_no_models_is_noticed() -> None:
    found = Requests()
    for number in range(10_001):
        found.add(float(number), f"request-{number}", 1, 1)
    with pytest.raises(DemandError, match="is its column of models right"):
        sifted(found)

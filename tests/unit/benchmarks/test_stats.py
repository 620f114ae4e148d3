"""Rounds add up to medians, spreads and ratios; fairness asks what each could have had."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.stats import (
    Spread,
    differences,
    fairness,
    jain,
    max_min_shares,
    ratios,
    short,
    spread,
    with_range,
)


def test_a_spread_is_the_median_and_the_extremes() -> None:
    assert spread([3.0, 1.0, 9.0]) == Spread(3.0, 1.0, 9.0, 3)


def test_rounds_without_a_value_do_not_count() -> None:
    assert spread([None, 4.0, None, 2.0]) == Spread(3.0, 2.0, 4.0, 2)
    assert spread([None, None]) is None
    assert spread([]) is None


def test_ratios_are_taken_round_by_round_so_that_a_slow_round_cancels_out() -> None:
    assert ratios([50.0, 5.0], [100.0, 10.0]) == Spread(0.5, 0.5, 0.5, 2)


def test_a_round_in_which_the_other_gave_nothing_has_no_ratio() -> None:
    assert ratios([50.0, 5.0, None], [0.0, 10.0, 10.0]) == Spread(0.5, 0.5, 0.5, 1)


def test_different_numbers_of_rounds_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="longer"):
        differences([1.0], [1.0, 2.0])


def test_differences_may_be_zero() -> None:
    assert differences([1.5, 2.0], [1.5, 0.0]) == Spread(1.0, 0.0, 2.0, 2)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1_234_567.0, "1.23 M"),
        (98_765.0, "98.8 k"),
        (9_990.4, "9990"),
        (12.345, "12.3"),
        (0.00277, "0.00277"),
        (0.0, "0"),
        (-20_000.0, "-20 k"),
    ],
)
def test_figures_keep_three_digits(value: float, text: str) -> None:
    assert short(value) == text


def test_one_round_has_no_range_and_no_round_is_a_dash() -> None:
    assert with_range(None) == "-"
    assert with_range(Spread(2.0, 2.0, 2.0, 1), " ms") == "2 ms"
    assert with_range(Spread(2.0, 1.0, 3.0, 3)) == "2 (1..3)"


def test_jains_index_is_one_for_equals_and_one_nth_for_a_monopoly() -> None:
    assert jain([2.0, 2.0, 2.0]) == pytest.approx(1.0)
    assert jain([6.0, 0.0, 0.0]) == pytest.approx(1 / 3)
    assert jain([0.0, 0.0]) is None
    assert jain([]) is None


def test_max_min_gives_the_modest_what_they_ask_and_the_rest_in_equal_parts() -> None:
    assert max_min_shares(10.0, [1.0, 100.0, 100.0]) == [1.0, 4.5, 4.5]
    assert max_min_shares(10.0, [float("inf"), float("inf")]) == [5.0, 5.0]
    assert max_min_shares(10.0, [1.0, 2.0]) == [1.0, 2.0]


@given(st.floats(0, 1e6), st.lists(st.floats(0, 1e6), min_size=1, max_size=12))
def test_max_min_gives_away_neither_more_than_there_is_nor_than_is_asked(
    total: float, demands: list[float]
) -> None:
    shares = max_min_shares(total, demands)
    assert all(0 <= share <= demand for share, demand in zip(shares, demands, strict=True))
    assert sum(shares) == pytest.approx(min(total, sum(demands)))
    cut = [share for share, demand in zip(shares, demands, strict=True) if share < demand * (1 - 1e-9)]
    assert not cut or max(shares) <= min(cut) * (1 + 1e-9) + 1e-9, "who is cut short has the most there is"


def test_nobody_is_wronged_who_gets_all_that_was_asked() -> None:
    assert fairness([1.0, 50.0], [1.0, 500.0]) == pytest.approx(1.0)
    assert fairness([1.0, 50.0], [10.0, 500.0]) == pytest.approx(jain([0.1, 50 / 41]) or 0)
    assert fairness([0.0, 0.0], [1.0, 1.0]) is None

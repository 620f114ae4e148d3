"""Rounds add up to medians, spreads and ratios."""

from __future__ import annotations

import pytest

from benchmarks.stats import Spread, differences, ratios, short, spread, with_range


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

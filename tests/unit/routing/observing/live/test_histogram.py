"""Quantiles from counts, against sorted values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.observing.live.histogram import (
    LEAST_S,
    MAX_ERROR,
    MOST_S,
    Counts,
    bucket,
    largest,
    merged,
    quantile,
)


def counted(values: list[float]) -> Counts:
    counts: Counts = {}
    for value in values:
        counts[bucket(value)] = counts.get(bucket(value), 0) + 1
    return counts


@given(
    st.lists(st.floats(LEAST_S, MOST_S), min_size=1, max_size=200), st.sampled_from([0.01, 0.5, 0.9, 0.99, 1])
)
def test_a_quantile_is_within_the_stated_error_of_the_nearest_rank(values: list[float], part: float) -> None:
    exact = sorted(values)[max(1, math.ceil(part * len(values))) - 1]
    found = quantile(counted(values), part)
    assert found is not None
    assert exact / (1 + MAX_ERROR) * 0.999 <= found <= exact * (1 + MAX_ERROR) * 1.001


def test_of_no_values_there_is_no_quantile() -> None:
    assert quantile({}, 0.99) is None


@pytest.mark.parametrize(("value", "like"), [(0.0, LEAST_S), (-1.0, LEAST_S), (1e9, MOST_S)])
def test_what_is_out_of_bounds_counts_as_the_bound(value: float, like: float) -> None:
    assert bucket(value) == bucket(like)


def test_merged_counts_are_those_of_all_values() -> None:
    assert merged([counted([0.1, 0.2]), counted([0.2, 5.0]), {}]) == counted([0.1, 0.2, 0.2, 5.0])


def test_the_third_largest_is_that_of_three_values_or_none() -> None:
    assert largest(counted([0.1, 0.2]), 3) is None
    assert largest(counted([5.0, 0.1, 0.2, 5.0]), 2) == quantile(counted([5.0]), 1)
    assert largest(counted([5.0, 0.1, 0.2, 5.0]), 3) == quantile(counted([0.2]), 1)

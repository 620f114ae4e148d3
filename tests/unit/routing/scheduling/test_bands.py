"""Does the highest band come first, and the lowest not never?"""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from routing.scheduling.bands import BandGuard

ALL_WAIT = [1, 1, 1]


def grants(guard: BandGuard, count: int, waiting: list[int]) -> list[int]:
    """Grant so often to the first band that waits, as the scheduler does; the ranks in turn."""
    given_to = []
    for _ in range(count):
        rank = next(rank for rank in guard.order() if waiting[rank])
        guard.granted(rank, waiting)
        given_to.append(rank)
    return given_to


def test_bands_are_strict_without_a_share() -> None:
    assert set(grants(BandGuard(3, 0.0), 100, ALL_WAIT)) == {0}


def test_a_lower_band_gets_its_share_and_no_more() -> None:
    given_to = grants(BandGuard(3, 0.05), 1000, ALL_WAIT)
    assert 49 <= given_to.count(1) <= 50 and 49 <= given_to.count(2) <= 50


def test_what_a_band_earned_is_gone_once_nothing_of_it_waits() -> None:
    guard = BandGuard(3, 0.5)
    grants(guard, 2, [1, 0, 1])
    guard.granted(0, [1, 0, 0])
    assert list(guard.order()) == [0, 1, 2]


def test_a_band_alone_is_served_whatever_its_rank() -> None:
    assert grants(BandGuard(3, 0.05), 3, [0, 0, 1]) == [2, 2, 2]


@given(st.floats(0.01, 0.4), st.integers(10, 500))
def test_the_lowest_band_never_starves(share: float, count: int) -> None:
    """Of n grants a band that waits gets at least floor(n * share)."""
    given_to = grants(BandGuard(3, share), count, ALL_WAIT)
    for rank in (1, 2):
        assert given_to.count(rank) >= math.floor(count * share) - 1

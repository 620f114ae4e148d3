"""How long would a request wait?"""

from __future__ import annotations

import pytest

from routing.scheduling.forecast import Ahead, Capacity, retry_after_s


def busy(capacity: Capacity, per_s: float, seconds: int, start_s: float = 0.0) -> None:
    """Let somebody wait for so many seconds in which so much is done."""
    for quarter in range(4 * seconds + 1):
        capacity.observe(start_s + quarter / 4, backlogged=True)
        capacity.add(per_s / 4)


def test_nothing_is_known_before_anybody_had_to_wait() -> None:
    capacity = Capacity()
    for second in range(10):
        capacity.add(100.0)
        capacity.observe(float(second), backlogged=False)
    assert capacity.per_s is None and capacity.wait_s(1000.0) is None


def test_a_backlog_shows_what_the_pool_can_do() -> None:
    capacity = Capacity()
    busy(capacity, 100.0, 5)
    assert capacity.per_s == pytest.approx(100.0, rel=0.05)
    assert capacity.wait_s(1000.0) == pytest.approx(10.0, rel=0.05)


def test_an_idle_pool_does_not_look_like_a_slow_one() -> None:
    capacity = Capacity()
    busy(capacity, 100.0, 5)
    for second in range(100):
        capacity.add(1.0)
        capacity.observe(10.0 + second, backlogged=False)
    assert capacity.per_s == pytest.approx(100.0, rel=0.05)


def test_the_latest_seconds_count_more() -> None:
    capacity = Capacity()
    busy(capacity, 100.0, 5)
    busy(capacity, 10.0, 60, start_s=6.0)
    assert capacity.per_s == pytest.approx(10.0, rel=0.2)


def test_a_flood_waits_for_itself_and_a_quiet_tenant_for_its_share() -> None:
    flood = Ahead(higher=0.0, band=1000.0, own=990.0, fair_share=0.5)
    quiet = Ahead(higher=0.0, band=1000.0, own=10.0, fair_share=0.5)
    assert flood.total == 1000.0, "never more than what is there"
    assert quiet.total == 20.0


def test_higher_bands_go_first() -> None:
    assert Ahead(higher=500.0, band=0.0, own=0.0, fair_share=1.0, itself=5.0).total == 505.0


def test_retry_advice_is_when_the_wait_has_come_down_within_reason() -> None:
    assert retry_after_s(12.0, 2.0) == 10.0
    assert retry_after_s(2.1, 2.0) == 0.5
    assert retry_after_s(1e6, 2.0) == 60.0

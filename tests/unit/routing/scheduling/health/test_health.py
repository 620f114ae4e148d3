"""How healthy is a replica, and how much of its limit may it be given?"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterable
from statistics import median_low

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.scheduling.health.breaker import (
    BACKOFF_S,
    MAX_BACKOFF_S,
    MAX_CONSECUTIVE_FAILURES,
    WINDOW_S,
    BreakerState,
)
from routing.scheduling.health.first_tokens import EPOCH_S, MAX_SILENCE_S, MIN_EPOCHS
from routing.scheduling.health.health import (
    OUTLIER_RAMP,
    SLOW_START_FLOOR,
    SLOW_START_S,
    Health,
    outliers,
)
from tests.unit.routing.requests import engine


def serve(health: Health, now_s: float, first_token_s: float, times: int = 1) -> None:
    for _ in range(times):
        period = health.began(now_s)
        health.answered(now_s, period, first_token_s)
        health.succeeded(now_s, period)


def serve_until(health: Health, now_s: float, first_token_s: float) -> None:
    """Answers just long enough for the replica to be known."""
    for age in range(MIN_EPOCHS, -1, -1):
        serve(health, now_s - age * EPOCH_S, first_token_s)


def capacity(limit: int, health: Health, now_s: float) -> int:
    """What an engine of `limit` sequences may have in flight, given its health."""
    one = engine(max_sequences=limit)
    one.ramp = health.ramp(now_s)
    return one.capacity


def fail(health: Health, now_s: float, times: int = MAX_CONSECUTIVE_FAILURES) -> None:
    for _ in range(times):
        health.failed(now_s, health.began(now_s), "connection refused")


def pool(*first_token_s: float, now_s: float = 0.0) -> list[Health]:
    """Replicas with so smooth a time to first token."""
    healths = [Health(f"r{i}") for i in range(len(first_token_s))]
    for health, time_s in zip(healths, first_token_s, strict=True):
        serve_until(health, now_s, time_s)
    return healths


# -- slow start --------------------------------------------------------------------------------------------


def test_a_replica_nobody_has_heard_of_is_trusted() -> None:
    assert Health("r0").allows(0.0)
    assert Health("r0").ramp(0.0) == 1.0


@pytest.mark.parametrize(
    ("age_s", "ramp"), [(0.0, 0.1), (1.0, 0.1), (2.5, 0.25), (5.0, 0.5), (10.0, 1.0), (1e6, 1.0)]
)
def test_a_fresh_engine_gets_a_growing_part_of_its_limit(age_s: float, ramp: float) -> None:
    health = Health("r0")
    health.restarted(100.0)
    assert health.ramp(100.0 + age_s) == pytest.approx(ramp)


def test_the_part_of_a_limit_is_rounded_down_but_never_to_nothing() -> None:
    health = Health("r0")
    health.restarted(0.0)
    assert [capacity(256, health, age_s) for age_s in (0.0, 5.0, 10.0)] == [25, 128, 256]
    assert capacity(4, health, 0.0) == 1
    assert capacity(1, health, 0.0) == 1


def test_an_engine_without_peers_to_lean_on_need_not_start_slowly() -> None:
    health = Health("r0")
    health.restarted(0.0, slow_start=False)
    assert health.ramp(0.0) == 1.0


def test_a_breaker_that_closes_starts_slowly_too() -> None:
    health = Health("r0")
    fail(health, 0.0)
    assert health.ramp(0.0) == health.ramp(1e6) == SLOW_START_FLOOR
    probe = health.began(BACKOFF_S)
    assert health.ramp(BACKOFF_S) == SLOW_START_FLOOR
    health.answered(BACKOFF_S, probe, 0.1)
    assert health.ramp(BACKOFF_S) == SLOW_START_FLOOR
    assert health.ramp(BACKOFF_S + SLOW_START_S) == 1.0


def test_an_engine_restarted_behind_an_open_breaker_still_has_to_prove_itself() -> None:
    health = Health("r0")
    fail(health, 0.0)
    health.restarted(0.1, slow_start=False)
    assert health.ramp(1e6) == SLOW_START_FLOOR
    health.succeeded(0.2, health.began(0.2))
    assert health.ramp(0.2 + SLOW_START_S / 2) == pytest.approx(0.5)


@given(
    st.lists(st.floats(0.0, 50.0), min_size=2, max_size=20),
    st.booleans(),
    st.sampled_from(["fresh", "restarted", "open", "closed again"]),
)
def test_without_events_the_ramp_only_grows(times: list[float], outlying: bool, state: str) -> None:
    health = Health("r0")
    if state == "restarted":
        health.restarted(0.0)
    elif state != "fresh":
        fail(health, -BACKOFF_S)
        if state == "closed again":
            health.succeeded(0.0, health.began(0.0))
    health.outlying = outlying
    ramps = [health.ramp(time) for time in sorted(times)]
    assert ramps == sorted(ramps)
    assert all(0.0 < ramp <= 1.0 for ramp in ramps)
    assert all(1 <= capacity(limit, health, time) <= limit for limit in (1, 7, 256) for time in times)


# -- the breaker -------------------------------------------------------------------------------------------


def test_failures_close_a_replica_off_until_a_probe_is_answered() -> None:
    health = Health("r0")
    fail(health, 0.0)
    assert not health.allows(0.5)
    assert health.allows(BACKOFF_S)
    probe = health.began(BACKOFF_S)
    assert not health.allows(BACKOFF_S)
    health.succeeded(BACKOFF_S, probe)
    assert health.allows(BACKOFF_S)


def test_a_probe_given_up_leaves_the_way_free_for_the_next() -> None:
    health = Health("r0")
    fail(health, 0.0)
    health.abandoned(health.began(BACKOFF_S))
    assert health.allows(BACKOFF_S)


def test_reports_from_before_it_opened_leave_no_trace() -> None:
    health = Health("r0")
    early = health.began(0.0)
    fail(health, 0.0)
    before = health.snapshot(0.5), repr(health)
    for number in range(MIN_EPOCHS + 1):
        health.answered(0.5 + number * EPOCH_S, early, 60.0)
    health.succeeded(0.5, early)
    health.failed(0.5, early, "something else")
    health.abandoned(early)
    assert (health.snapshot(0.5), repr(health)) == before


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "answered", "succeeded", "failed", "abandoned", "restarted"]),
        st.floats(0.0, 4.0),
        st.integers(0, 10),
    ),
    max_size=100,
)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_whatever_came_before_a_replica_that_answers_is_whole_again(
    steps: list[tuple[str, float, int]],
) -> None:
    health, now_s, in_flight = Health("r0"), 0.0, [0]
    for step, passed_s, which in steps:
        now_s += passed_s
        period = in_flight[which % len(in_flight)]
        if step == "begin":
            in_flight.append(health.began(now_s))
        elif step == "restarted":
            health.restarted(now_s)
        elif step == "answered":
            health.answered(now_s, period, 0.1)
        else:
            if step == "abandoned":
                health.abandoned(period)
            else:
                getattr(health, step)(now_s, period)
            if period:
                in_flight.remove(period)
        assert 0.0 < health.ramp(now_s) <= 1.0
        assert (health.snapshot(now_s).breaker is BreakerState.CLOSED) <= health.allows(now_s)
    for period in in_flight:
        health.abandoned(period)
    now_s += MAX_BACKOFF_S
    serve(health, now_s, 0.1)
    assert health.snapshot(now_s).breaker is BreakerState.CLOSED
    assert health.ramp(now_s + SLOW_START_S) == pytest.approx(1.0), "but for rounding"


# -- beside its peers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first_token_s", "named"),
    [
        ((), set()),
        ((9.0,), set()),  # nobody to compare with
        ((0.1, 0.15), set()),
        ((0.1, 0.9), {"r1"}),
        ((0.9, 0.1), {"r0"}),
        ((0.001, 0.03), set()),  # nobody notices 29 ms
        ((0.1, 0.1, 0.1), set()),
        ((0.1, 0.11, 0.5), {"r2"}),
        ((0.1, 0.11, 0.09, 0.1, 0.9, 0.8), {"r4", "r5"}),
        ((0.1, 0.1, 0.7, 0.8, 0.9), set()),  # where most are slow, none of them is an outlier
        ((0.1, 0.2, 0.4, 0.8, 1.6), set()),  # they spread so much that none stands out
        ((0.1, 0.1, 0.1, 0.1, 0.5, 0.6, 0.7), {"r5", "r6"}),  # a third at most, the slowest
    ],
)
def test_who_is_much_slower_than_the_median_is_an_outlier(
    first_token_s: tuple[float, ...], named: set[str]
) -> None:
    assert outliers(pool(*first_token_s), 0.0) == named


def test_an_outlier_gets_half_and_is_never_shut_out() -> None:
    slow = pool(0.1, 0.1, 0.9)[2]
    slow.outlying = True
    assert slow.ramp(0.0) == OUTLIER_RAMP
    assert slow.allows(0.0)
    slow.outlying = False
    assert slow.ramp(0.0) == 1.0


def test_an_outlier_remains_one_until_it_is_clearly_better() -> None:
    healths = pool(0.1, 0.17)
    assert outliers(healths, 0.0) == set()
    healths[1].outlying = True
    assert outliers(healths, 0.0) == {"r1"}
    assert outliers(pool(0.1, 0.14), 0.0) == set()


def test_who_has_not_answered_for_long_is_not_judged() -> None:
    healths = pool(0.1, 0.1, 0.9)
    assert outliers(healths, MAX_SILENCE_S) == {"r2"}
    assert outliers(healths, MAX_SILENCE_S + 1) == set()


@pytest.mark.parametrize("event", ["restarted", "failed"])
def test_an_engine_that_is_new_or_failing_is_not_judged_by_what_it_was(event: str) -> None:
    healths = pool(0.1, 0.1, 0.9)
    healths[2].outlying = True
    if event == "restarted":
        healths[2].restarted(0.0)
    else:
        fail(healths[2], 0.0)
    assert healths[2].first_token_s is None
    assert not healths[2].outlying
    assert outliers(healths, 0.0) == set()


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 1e4), max_size=24), st.lists(st.booleans(), min_size=24, max_size=24))
def test_a_pool_is_never_named_whole(first_token_s: list[float], were: list[bool]) -> None:
    healths = pool(*first_token_s)
    for health, was in zip(healths, were, strict=False):
        health.outlying = was
    named = outliers(healths, 0.0)
    assert len(named) <= max(1, len(healths) // 3)
    assert len(named) < max(1, len(healths))
    times = {health.name: health.first_token_s or 0.0 for health in healths}
    assert all(times[name] > median_low(times.values()) for name in named)


def test_like_replicas_are_seldom_told_apart_and_a_slow_one_is_found() -> None:
    """Times spread by 1 in their logarithm: 5 % of them are five times the median or more."""
    chance = random.Random(20)
    for size in (2, 4, 8):
        like = [Health(f"r{i}") for i in range(size)]
        wrong = 0
        for round_ in range(2000):
            for health in like:
                serve(health, round_ * EPOCH_S, chance.lognormvariate(math.log(0.5), 1.0))
            if round_ >= MIN_EPOCHS:
                wrong += len(outliers(like, round_ * EPOCH_S))
        assert wrong / (2000 * size) < 0.01, f"{size} replicas"
    slow = [Health(f"r{i}") for i in range(4)]
    for round_ in range(4 * MIN_EPOCHS):
        for factor, health in zip((1, 1, 1, 6), slow, strict=True):
            serve(health, round_ * EPOCH_S, factor * chance.lognormvariate(math.log(0.5), 1.0))
    assert outliers(slow, 4 * MIN_EPOCHS * EPOCH_S) == {"r3"}


def test_like_replicas_that_prefill_in_bursts_are_not_told_apart() -> None:
    """Twenty first tokens of one step say one thing, though they are twenty."""
    chance = random.Random(20)
    like = [Health(f"r{i}") for i in range(2)]
    wrong = 0
    for round_ in range(2000):
        now_s = round_ * EPOCH_S
        for health in like:
            serve(health, now_s, chance.choice((0.1, 0.5)), 20)
        wrong += len(outliers(like, now_s))
    assert wrong / 2000 < 0.01


# -- for operators -----------------------------------------------------------------------------------------


def test_it_reads_as_what_it_is() -> None:
    health = Health("shared-0")
    assert repr(health) == "<Health shared-0: closed>"
    serve_until(health, 0.0, 0.25)
    health.outlying = True
    fail(health, 0.0, 1)
    assert repr(health) == "<Health shared-0: closed, 1 failed in a row, first token 0.25 s, outlying>"
    fail(health, 0.0, 2)
    assert repr(health) == "<Health shared-0: open, back-off 1 s, 3 failed in a row>"
    health.began(1.0)
    assert repr(health) == "<Health shared-0: half-open, back-off 1 s, 3 failed in a row>"


def test_a_snapshot_holds_what_an_operator_asks_for_and_does_not_change() -> None:
    health = Health("shared-0")
    serve_until(health, 0.0, 0.25)
    assert health.first_token_s is not None
    fail(health, 0.0)
    snapshot = health.snapshot(0.25)
    serve(health, 1.0, 0.25)
    assert (snapshot.breaker, snapshot.probe_in_s, snapshot.backoff_s) == (BreakerState.OPEN, 0.75, 1.0)
    assert (snapshot.recent_requests, snapshot.recent_failures) == (MIN_EPOCHS + 1 + 3, 3)
    assert (snapshot.consecutive_failures, snapshot.last_failure) == (3, "connection refused")
    assert (snapshot.share, snapshot.first_token_s, snapshot.outlying) == (SLOW_START_FLOOR, None, False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        snapshot.outlying = True  # type: ignore[misc]


# -- whose word counts -------------------------------------------------------------------------------------


def suffer(health: Health, tenants: Iterable[str | None], now_s: float = 0.0) -> None:
    for tenant in tenants:
        health.failed(now_s, health.began(now_s), "it failed", tenant)


@pytest.mark.parametrize(
    ("tenants", "opens"),
    [
        (["a"] * 100, False),
        (["a", "b", "a", "b"], True),
        (["a", "b", "c"], False),
        (["a", "b", "c", "d"], True),
        ([None] * 3, True),
        ([None, None, "a"], False),
    ],
)
def test_one_tenants_word_is_not_enough(tenants: list[str | None], opens: bool) -> None:
    health = Health("shared-0")
    suffer(health, tenants)
    assert health.allows(0.0) is not opens
    assert health.last_failure == "it failed", "operators see it all the same"


def test_a_tenant_that_is_answered_suffers_no_more() -> None:
    health = Health("shared-0")
    suffer(health, ["b"])
    for _ in range(50):
        health.succeeded(0.0, health.began(0.0), "b")
        suffer(health, ["a"] * 5)
    assert health.allows(0.0)


def test_what_others_suffered_long_ago_is_no_evidence() -> None:
    health = Health("shared-0")
    suffer(health, ["b"])
    suffer(health, ["a"] * 50, now_s=WINDOW_S)
    assert health.allows(WINDOW_S)


def test_where_there_is_only_one_tenant_its_word_is_enough() -> None:
    health = Health("shared-0")
    health.witnesses = 1
    suffer(health, ["a"] * 3)
    assert not health.allows(0.0)


def test_a_probe_that_one_tenants_request_breaks_says_nothing() -> None:
    health = Health("shared-0")
    suffer(health, [None] * 3)
    suffer(health, ["a"], now_s=1.0)
    assert health.allows(1.0), "the next one may try at once"
    health.succeeded(1.0, health.began(1.0), "b")
    assert health.allows(1.0)

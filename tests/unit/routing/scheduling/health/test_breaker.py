"""May a replica be given a request, after what the last ones met there?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.scheduling.health.breaker import (
    BACKOFF_S,
    FORGET_S,
    MAX_BACKOFF_S,
    MAX_CONSECUTIVE_FAILURES,
    MIN_REQUESTS,
    NO_PERIOD,
    TRANSITIONS,
    WINDOW_S,
    Breaker,
    BreakerEvent,
    BreakerState,
)

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def fail(breaker: Breaker, now_s: float, times: int = 1) -> None:
    for _ in range(times):
        breaker.failed(now_s, breaker.began(now_s))


def opened(now_s: float = 0.0) -> Breaker:
    """A breaker that has just opened for the first time."""
    breaker = Breaker()
    fail(breaker, now_s, MAX_CONSECUTIVE_FAILURES)
    assert breaker.state is OPEN
    return breaker


def probing(now_s: float = 0.0) -> tuple[Breaker, int]:
    """A breaker whose probe is under way, and the probe's period."""
    breaker = opened(now_s - BACKOFF_S)
    return breaker, breaker.began(now_s)


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not() -> None:
    breaker = Breaker()
    for _ in range(5):
        fail(breaker, 0.0, MAX_CONSECUTIVE_FAILURES - 1)
        breaker.succeeded(0.0, breaker.began(0.0))
    assert breaker.state is CLOSED
    fail(breaker, 0.0, MAX_CONSECUTIVE_FAILURES)
    assert breaker.state is OPEN
    assert not breaker.allows(0.0)


def test_a_first_token_does_not_end_a_row_of_failures() -> None:
    """Streams that all break after their first token are failures like any other."""
    breaker = Breaker()
    for _ in range(MAX_CONSECUTIVE_FAILURES):
        period = breaker.began(0.0)
        breaker.answered(0.0, period)
        breaker.failed(0.0, period)
    assert breaker.state is OPEN


def alternate(breaker: Breaker, requests: int, now_s: float, step_s: float = 0.0) -> None:
    """Let every second request fail, the last one too."""
    for i in range(requests):
        at_s = now_s + i * step_s
        period = breaker.began(at_s)
        if (requests - i) % 2:
            breaker.failed(at_s, period)
        else:
            breaker.succeeded(at_s, period)


def test_half_of_enough_requests_failing_opens_it() -> None:
    breaker = Breaker()
    alternate(breaker, MIN_REQUESTS - 1, 0.0)
    assert breaker.state is CLOSED, "too few to judge"
    alternate(breaker, 1, 0.0)
    assert breaker.state is OPEN


def test_failures_out_of_the_window_are_forgotten() -> None:
    breaker = Breaker()
    alternate(breaker, 4 * MIN_REQUESTS, 0.0, step_s=2 * WINDOW_S / MIN_REQUESTS)
    assert breaker.state is CLOSED
    alternate(breaker, MIN_REQUESTS // 2, 1e6)
    assert breaker.recent(1e6) == (MIN_REQUESTS // 2, MIN_REQUESTS // 4)
    assert breaker.recent(1e6 + WINDOW_S + 1) == (0, 0)


def test_time_that_runs_backwards_empties_no_window() -> None:
    breaker = Breaker()
    breaker.succeeded(100.0, breaker.began(100.0))
    breaker.succeeded(50.0, breaker.began(50.0))
    assert breaker.recent(100.0) == (2, 0)


def test_after_the_back_off_exactly_one_request_goes() -> None:
    breaker = opened(0.0)
    assert breaker.probe_in_s(0.25) == BACKOFF_S - 0.25
    assert not breaker.allows(BACKOFF_S - 0.01)
    assert breaker.began(BACKOFF_S - 0.01) == NO_PERIOD
    assert breaker.allows(BACKOFF_S)
    assert breaker.allows(BACKOFF_S), "asking changes nothing"
    assert breaker.began(BACKOFF_S) != NO_PERIOD
    assert breaker.state is HALF_OPEN
    assert breaker.probe_in_s(BACKOFF_S) is None
    assert not breaker.allows(BACKOFF_S)
    assert breaker.began(BACKOFF_S) == NO_PERIOD


def test_a_probe_closes_it_with_its_first_token_and_counts_again_at_its_end() -> None:
    breaker, probe = probing()
    assert breaker.answered(0.0, probe)
    assert breaker.state is CLOSED
    breaker.failed(0.0, probe)
    assert breaker.consecutive_failures == 1
    assert breaker.state is CLOSED


def test_a_probe_without_a_first_token_closes_it_with_its_success() -> None:
    breaker, probe = probing()
    assert breaker.succeeded(0.0, probe)
    assert breaker.recent(0.0) == (1, 0), "what opened it is forgotten"
    assert breaker.consecutive_failures == 0


def test_each_probe_that_fails_doubles_the_back_off_up_to_its_greatest() -> None:
    breaker, now_s, seen = opened(0.0), 0.0, []
    for _ in range(8):
        seen.append(breaker.backoff_s)
        now_s += breaker.backoff_s
        assert breaker.failed(now_s, breaker.began(now_s))
        assert not breaker.allows(now_s)
    assert seen == [1.0, 2.0, 4.0, 8.0, 16.0, MAX_BACKOFF_S, MAX_BACKOFF_S, MAX_BACKOFF_S]


@pytest.mark.parametrize(
    ("closed_for_s", "backoff_s"), [(FORGET_S - 1, 2 * BACKOFF_S), (FORGET_S, BACKOFF_S)]
)
def test_the_back_off_goes_on_where_it_was_unless_it_was_closed_for_long(
    closed_for_s: float, backoff_s: float
) -> None:
    breaker, probe = probing()
    breaker.succeeded(0.0, probe)
    fail(breaker, closed_for_s, MAX_CONSECUTIVE_FAILURES)
    assert breaker.backoff_s == backoff_s


def test_a_probe_whose_client_leaves_says_nothing_and_the_next_may_go_at_once() -> None:
    breaker, probe = probing()
    breaker.abandoned(probe)
    assert breaker.state is OPEN
    assert breaker.backoff_s == BACKOFF_S
    assert breaker.began(5.0) == probe + 1


def test_what_was_under_way_when_it_opened_is_no_longer_heard() -> None:
    breaker = Breaker()
    early = breaker.began(0.0)
    fail(breaker, 0.0, MAX_CONSECUTIVE_FAILURES)
    before = BACKOFF_S
    breaker.failed(0.5, early)
    breaker.succeeded(0.5, early)
    assert (breaker.state, breaker.backoff_s) == (OPEN, before)
    probe = breaker.began(BACKOFF_S)
    breaker.failed(BACKOFF_S, early)
    breaker.succeeded(BACKOFF_S, early)
    breaker.abandoned(early)
    assert breaker.state is HALF_OPEN, "only the probe decides"
    breaker.succeeded(BACKOFF_S, probe)
    fail(breaker, BACKOFF_S, MAX_CONSECUTIVE_FAILURES - 1)
    breaker.failed(BACKOFF_S, early)
    assert breaker.state is CLOSED


def test_another_engine_answers_only_for_itself() -> None:
    breaker = Breaker()
    early = breaker.began(0.0)
    fail(breaker, 0.0, MAX_CONSECUTIVE_FAILURES - 1)
    breaker.restarted(1.0)
    breaker.failed(1.0, early)
    assert (breaker.state, breaker.consecutive_failures, breaker.recent(1.0)) == (CLOSED, 0, (0, 0))


def test_another_engine_is_probed_at_once_and_trusted_no_sooner() -> None:
    breaker = opened(0.0)
    breaker.restarted(0.1)
    assert breaker.state is OPEN
    assert breaker.began(0.1) != NO_PERIOD
    assert not breaker.allows(0.1)


def test_a_probe_that_hangs_on_a_lost_engine_does_not_keep_the_next_one_out() -> None:
    breaker, lost = probing()
    breaker.restarted(1.0)
    probe = breaker.began(1.0)
    assert probe not in (lost, NO_PERIOD)
    breaker.failed(600.0, lost)
    assert breaker.state is HALF_OPEN
    assert breaker.succeeded(600.0, probe)


def test_an_engine_that_dies_of_every_request_waits_longer_every_time() -> None:
    breaker, seen = opened(0.0), []
    for now_s in (1.0, 3.0, 7.0):
        breaker.restarted(now_s)
        fail(breaker, now_s)
        seen.append(breaker.backoff_s)
    assert seen == [2.0, 4.0, 8.0]


def raise_event(breaker: Breaker, event: BreakerEvent) -> None:
    """Make the event happen through the method that stands for it."""
    match event:
        case BreakerEvent.TRIPPED | BreakerEvent.FAILED:
            for _ in range(MAX_CONSECUTIVE_FAILURES):
                breaker.failed(0.0, breaker.period)
        case BreakerEvent.PROBED:
            breaker.began(BACKOFF_S)
        case BreakerEvent.PASSED:
            breaker.answered(0.0, breaker.period)
        case BreakerEvent.ABANDONED:
            breaker.abandoned(breaker.period)
        case BreakerEvent.RESTARTED:
            breaker.restarted(0.0)


# A failure while closed is counted and may trip it; one while half-open is the probe's.
SAID_OTHERWISE = {(CLOSED, BreakerEvent.FAILED), (HALF_OPEN, BreakerEvent.TRIPPED)}


@pytest.mark.parametrize(
    ("state", "event"), [case for case in product(BreakerState, BreakerEvent) if case not in SAID_OTHERWISE]
)
def test_the_methods_follow_the_table(state: BreakerState, event: BreakerEvent) -> None:
    breaker = {CLOSED: Breaker(), OPEN: opened(), HALF_OPEN: probing()[0]}[state]
    raise_event(breaker, event)
    assert breaker.state is TRANSITIONS.get((state, event), state)


def facts(breaker: Breaker, now_s: float) -> Iterator[object]:
    yield from (breaker.state, breaker.period, breaker.backoff_s, breaker.consecutive_failures)
    yield from (breaker.recent(now_s), breaker.probe_in_s(now_s), breaker.allows(now_s))


@given(st.sampled_from(["began", "answered", "succeeded", "failed", "abandoned"]), st.integers(-1, 9))
def test_what_the_table_does_not_hold_changes_nothing(call: str, period: int) -> None:
    for breaker in (opened(), probing()[0]):
        if call != "began" and breaker.listens(period):
            continue
        before = list(facts(breaker, 0.0))
        if call == "began":
            breaker.began(0.0)
        elif call == "abandoned":
            breaker.abandoned(period)
        else:
            getattr(breaker, call)(0.0, period)
        assert list(facts(breaker, 0.0)) == before


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "answered", "succeeded", "failed", "abandoned", "restarted"]),
        st.floats(0.0, 5.0),  # seconds that pass before
        st.integers(0, 10),  # which request in flight
    ),
    max_size=120,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_whatever_happens_one_probe_is_in_flight_at_most_and_none_waits_for_ever(
    steps: list[tuple[str, float, int]],
) -> None:
    breaker, now_s, in_flight = Breaker(), 0.0, [NO_PERIOD]
    probes: set[int] = set()
    for step, passed_s, which in steps:
        now_s += passed_s
        if step == "begin":
            allowed, was_closed = breaker.allows(now_s), breaker.state is CLOSED
            period = breaker.began(now_s)
            assert allowed == (period != NO_PERIOD)
            in_flight.append(period)
            if allowed and not was_closed:
                probes.add(period)
        elif step == "restarted":
            breaker.restarted(now_s)
        else:
            period = in_flight[which % len(in_flight)]
            if step == "abandoned":
                breaker.abandoned(period)
            else:
                getattr(breaker, step)(now_s, period)
            if step != "answered" and period != NO_PERIOD:
                in_flight.remove(period)
        of_this_period = [p for p in in_flight if p == breaker.period and p in probes]
        if breaker.state is HALF_OPEN:
            assert len(of_this_period) == 1, "half-open is a probe under way, so that it always ends"
        assert 0.0 <= breaker.backoff_s <= MAX_BACKOFF_S
        assert (breaker.probe_in_s(now_s) or 0.0) <= MAX_BACKOFF_S
    for period in in_flight:
        breaker.abandoned(period)
    now_s += MAX_BACKOFF_S
    assert breaker.allows(now_s), "after the back-off somebody may always try"
    breaker.succeeded(now_s, breaker.began(now_s))
    assert breaker.state is CLOSED
    assert all(breaker.allows(now_s) for _ in range(3))

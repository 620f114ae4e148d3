"""How much may a tenant send in a minute, and is the time it is told the right one?"""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.types import Caps, KeyLimits
from routing.scheduling.admission import Cap, Rejection
from routing.scheduling.rates import Allowance, RateLimits

MINUTE_S = 60.0
MOMENT_S = 0.01


class Clock:
    """Stands where the library and `rates` have the module `time`."""

    def __init__(self, now_s: float = 1_800_000_000.0) -> None:  # a full minute
        self.now_s = now_s

    def time(self) -> float:
        """Seconds since 1970."""
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def _time_stands_still(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limits.storage.memory.time", clock)
    monkeypatch.setattr("routing.scheduling.rates.time", clock)


def limits(*, requests: int | None = None, tokens: int | None = None) -> RateLimits:
    """Limits of the tenant `t`."""
    return RateLimits({"t": Caps(requests_per_minute=requests, tokens_per_minute=tokens), "free": Caps()})


def wait_s(rejection: Rejection | None) -> float:
    """The seconds a refused request was told to wait."""
    assert rejection is not None
    assert rejection.retry_after_s is not None
    return rejection.retry_after_s


@pytest.mark.parametrize("tenant", ["free", "nobody"])
def test_a_tenant_without_such_caps_is_never_refused(tenant: str) -> None:
    rates = limits(requests=1, tokens=1)
    assert all(rates.book(tenant, 10**9) is None for _ in range(100))
    rates.correct(tenant, 10**9)


def test_so_many_requests_enter_in_a_minute_and_the_next_is_told_which_cap(clock: Clock) -> None:
    rates = limits(requests=3)
    assert [rates.book("t", 10**6) for _ in range(3)] == [None] * 3
    rejection = rates.book("t", 1)
    assert rejection is not None
    assert (rejection.cap, rejection.limit) == (Cap.REQUESTS_PER_MINUTE, 3)


def test_prompts_are_counted_by_their_tokens(clock: Clock) -> None:
    rates = limits(tokens=100)
    assert rates.book("t", 60) is None
    assert rates.book("t", 40) is None
    rejection = rates.book("t", 1)
    assert rejection is not None
    assert (rejection.cap, rejection.limit) == (Cap.TOKENS_PER_MINUTE, 100)


def test_a_refused_request_takes_nothing_of_either() -> None:
    rates = limits(requests=2, tokens=100)
    assert rates.book("t", 90) is None
    for _ in range(10):
        assert rates.book("t", 50) is not None
    assert rates.book("t", 10) is None  # the second request, the last tokens


def test_tenants_do_not_count_against_each_other() -> None:
    caps = Caps(requests_per_minute=1, tokens_per_minute=10)
    rates = RateLimits({"a": caps, "b": caps})
    assert rates.book("a", 10) is None
    assert rates.book("b", 10) is None


def test_where_both_caps_say_no_the_one_that_takes_longer_is_named(clock: Clock) -> None:
    rates = limits(requests=60, tokens=100)
    for _ in range(59):
        rates.book("t", 0)
    rates.book("t", 100)
    for_tokens, for_a_request = rates.book("t", 100), rates.book("t", 1)
    assert for_tokens is not None
    assert for_tokens.cap is Cap.TOKENS_PER_MINUTE
    assert for_a_request is not None
    assert wait_s(for_tokens) > wait_s(for_a_request)


def test_a_prompt_over_the_whole_limit_is_told_that_retrying_cannot_help() -> None:
    rates = limits(tokens=100)
    assert rates.book("t", 101) == Rejection(Cap.TOKENS_PER_MINUTE, 100, None)
    rates.correct("t", 1000)
    assert rates.book("t", 101) == Rejection(Cap.TOKENS_PER_MINUTE, 100, None)


def test_two_minutes_later_nothing_is_remembered(clock: Clock) -> None:
    rates = limits(requests=2, tokens=100)
    rates.book("t", 100)
    clock.now_s += 2 * MINUTE_S
    assert rates.book("t", 100) is None


# -- the time that is told -----------------------------------------------------------------------------------


@given(
    start_s=st.floats(0, 60),
    limit=st.integers(1, 10_000),
    steps=st.lists(st.tuples(st.floats(0, 70), st.integers(0, 10_000), st.integers(-20_000, 50_000))),
    last=st.integers(1, 10_000),
)
def test_whoever_comes_back_when_told_is_let_in(
    start_s: float, limit: int, steps: list[tuple[float, int, int]], last: int
) -> None:
    clock = Clock(Clock().now_s + start_s)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("limits.storage.memory.time", clock)
        patch.setattr("routing.scheduling.rates.time", clock)
        rates = limits(requests=50, tokens=limit)
        for pause_s, prompt, beyond in steps:
            clock.now_s += pause_s
            if rates.book("t", prompt) is None:
                rates.correct("t", max(beyond, -prompt))
        rejection = rates.book("t", last)
        if rejection is None:
            return
        if rejection.retry_after_s is None:
            assert last > limit
            return
        assert rejection.retry_after_s > 0
        clock.now_s += rejection.retry_after_s
        assert rates.book("t", last) is None


@given(
    start_s=st.floats(0, 59), first=st.integers(1, 100), pause_s=st.floats(0, 59), second=st.integers(1, 100)
)
def test_whoever_comes_back_earlier_is_not(start_s: float, first: int, pause_s: float, second: int) -> None:
    clock = Clock(Clock().now_s + start_s)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("limits.storage.memory.time", clock)
        patch.setattr("routing.scheduling.rates.time", clock)
        rates = limits(tokens=100)
        rates.book("t", first)
        clock.now_s += pause_s
        rejection = rates.book("t", second)
        if rejection is not None:
            clock.now_s += max(0.0, wait_s(rejection) - MOMENT_S)
            assert rates.book("t", second) is not None


@pytest.mark.parametrize(
    ("case", "used", "at_s", "asked", "expected_s"),
    [
        # 100 of this minute; in the next it weighs 100, 99, ... and leaves room for 10 after a tenth of it
        ("in the next minute", 100, 30.0, 10, 30.0 + 54 / 10),
        ("all of it", 100, 0.0, 100, 60.0 + 59.4),
        # 60 seconds later 100 of the minute before weighs 50 at the half; room for 60 is there six seconds on
        ("in this minute", 100, 90.0, 60, 5.4),
    ],
)
def test_the_wait_follows_from_what_the_window_weighs(
    clock: Clock, case: str, used: int, at_s: float, asked: int, expected_s: float
) -> None:
    rates = limits(tokens=100)
    rates.book("t", used)
    clock.now_s += at_s
    assert wait_s(rates.book("t", asked)) == pytest.approx(expected_s, abs=MOMENT_S), case


# -- what a request used in the end --------------------------------------------------------------------------


def test_what_was_used_beyond_the_estimate_counts() -> None:
    rates = limits(tokens=100)
    rates.book("t", 10)
    rates.correct("t", 85)
    assert rates.book("t", 6) is not None
    assert rates.book("t", 5) is None


def test_what_was_estimated_too_high_is_given_back() -> None:
    rates = limits(tokens=100)
    rates.book("t", 100)
    rates.correct("t", -30)
    assert rates.book("t", 31) is not None
    assert rates.book("t", 30) is None


def test_it_is_given_back_a_minute_later_too(clock: Clock) -> None:
    rates = limits(tokens=100)
    rates.book("t", 100)
    clock.now_s += MINUTE_S
    rates.correct("t", -100)
    assert rates.book("t", 100) is None


def test_no_more_is_given_back_than_was_counted() -> None:
    rates = limits(tokens=100)
    rates.book("t", 10)
    rates.correct("t", -(10**6))
    assert rates.book("t", 101) is not None
    assert rates.book("t", 100) is None
    assert rates.book("t", 1) is not None


def test_a_debt_is_forgiven_before_the_window() -> None:
    rates = limits(tokens=100)
    rates.book("t", 10)
    rates.correct("t", 140)  # 50 are owed
    rates.correct("t", -60)
    assert rates.book("t", 11) is not None
    assert rates.book("t", 10) is None


def test_whoever_owes_gets_nothing_until_it_is_paid(clock: Clock) -> None:
    rates = limits(tokens=100)
    rates.book("t", 10)
    rates.correct("t", 190)  # 100 find room, 100 are owed
    clock.now_s += MINUTE_S + 50  # 17 of the window are left, so 83 are paid
    assert rates.book("t", 1) is not None
    clock.now_s += MINUTE_S  # 17 more are paid; 14 of the 83 still weigh
    assert rates.book("t", 60) is None


def test_a_debt_of_ten_minutes_is_told_as_such_and_ends_without_anybody_asking(clock: Clock) -> None:
    rates = limits(tokens=100)
    rates.book("t", 100)
    rates.correct("t", 1000)
    told_s = wait_s(rates.book("t", 50))
    assert 10 * MINUTE_S <= told_s <= 12 * MINUTE_S
    clock.now_s += told_s - 1
    assert rates.book("t", 50) is not None
    clock.now_s += MINUTE_S
    assert rates.book("t", 50) is None


@pytest.mark.parametrize("beyond", [0, 50, 400, 5000])
@pytest.mark.parametrize("obedient", [True, False])
def test_over_an_hour_nobody_uses_more_than_the_limit(clock: Clock, beyond: int, obedient: bool) -> None:
    limit, used, end_s = 1000, 0, clock.now_s + 3600
    rates = limits(tokens=limit)
    while clock.now_s < end_s:
        rejection = rates.book("t", 100)
        if rejection is None:
            rates.correct("t", beyond)
            used += 100 + beyond
        clock.now_s += wait_s(rejection) if rejection and obedient else 1.0
    assert used <= 61 * limit + beyond  # the first minute may be used at once
    assert used >= 30 * limit  # and the limit is no fiction either


# -- what it costs -------------------------------------------------------------------------------------------


def test_no_thread_is_started() -> None:
    rates = limits(requests=1000, tokens=1000)
    for _ in range(10):
        rates.book("t", 10)
        rates.correct("t", -1)
    assert [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)] == []


def test_counts_of_minutes_long_past_are_dropped(clock: Clock) -> None:
    rates = RateLimits({f"t{i}": Caps(requests_per_minute=10) for i in range(100)})
    for minute in range(20):
        clock.now_s += MINUTE_S
        for tenant in range(100):
            if (tenant + minute) % 3:
                assert rates.book(f"t{tenant}", 1) is None
    kept = rates._storage.storage, rates._storage.expirations, rates._storage.locks
    assert all(len(counts) <= 400 for counts in kept)


@pytest.mark.parametrize("ahead_s", [600, 86_400])
def test_counts_of_a_clock_that_was_ahead_are_dropped(clock: Clock, ahead_s: float) -> None:
    rates = RateLimits({f"t{i}": Caps(requests_per_minute=2) for i in range(10)})
    clock.now_s += ahead_s
    assert all(rates.book(f"t{i}", 5, f"k{i}", KeyLimits(tokens_per_minute=9)) is None for i in range(10))
    clock.now_s -= ahead_s - 1
    assert rates.book("t0", 5) is None
    assert len(rates._storage.storage) == len(rates._storage.expirations) == 1
    assert rates._keys == {}
    assert [rates.book("t0", 5) is None for _ in range(2)] == [True, False]


def test_a_clock_that_is_set_back_a_little_forgets_nothing(clock: Clock) -> None:
    rates = limits(requests=2)
    clock.now_s += 5
    assert rates.book("t", 1) is None
    clock.now_s -= 4
    assert rates.book("t", 1) is None
    assert rates.book("t", 1) is not None


def test_a_keys_minute_is_beside_its_tenants_and_a_refusal_by_either_books_nothing() -> None:
    rates, own = limits(requests=3), KeyLimits(requests_per_minute=2)
    assert [rates.book("t", 1, "k", own) is None for _ in range(3)] == [True, True, False]
    refused = rates.book("t", 1, "k", own)
    assert refused is not None and (refused.cap, refused.limit) == (Cap.KEY_REQUESTS_PER_MINUTE, 2)
    assert rates.book("t", 1) is None, "the refused ones took nothing of the tenant's three"
    refused = rates.book("t", 1, "other", own)
    assert refused is not None and refused.cap is Cap.REQUESTS_PER_MINUTE
    assert [rates.book("free", 1, "other", own) is None for _ in range(3)] == [True, True, False]


def test_what_a_key_used_beyond_its_estimate_is_owed_and_a_changed_limit_finds_it(clock: Clock) -> None:
    rates, own = limits(), KeyLimits(tokens_per_minute=100)
    assert rates.book("t", 10, "k", own) is None
    rates.correct("t", 150, "k", own)
    assert wait_s(rates.book("t", 10, "k", own)) > 30.0
    wider = KeyLimits(tokens_per_minute=1000)
    assert rates.book("t", 800, "k", wider) is None
    assert rates.book("t", 100, "k", wider) is not None, "160 and 800 of 1000"


def test_a_key_is_forgotten_once_nothing_of_it_is_counted(clock: Clock) -> None:
    rates, own = limits(requests=10), KeyLimits(requests_per_minute=5)
    assert rates.book("t", 1, "revoked", own) is None
    clock.now_s += 3 * MINUTE_S
    assert rates.book("t", 1, "k", own) is None
    clock.now_s += MINUTE_S + 1
    assert rates.book("t", 1) is None
    assert list(rates._keys) == ["k"]
    rates.correct("t", 5, "revoked", own)  # a request that took long


@pytest.mark.parametrize("own", [KeyLimits(), KeyLimits(max_concurrency=1, monthly_tokens=5)])
def test_a_key_without_rates_is_asked_for_none(own: KeyLimits) -> None:
    rates = limits()
    assert all(rates.book("t", 10**9, "k", own) is None for _ in range(50))
    rates.correct("t", 10**9, "k", own)
    assert not rates._keys


# -- what is left ------------------------------------------------------------------------------------------


def test_who_has_no_rate_has_nothing_left_to_be_told() -> None:
    rates = limits()
    assert rates.left("t") == rates.left("free") == rates.left("nobody", "k", KeyLimits()) == []


def test_what_is_left_is_what_can_be_booked(clock: Clock) -> None:
    rates = limits(requests=3, tokens=100)
    assert rates.left("t") == [Allowance(False, 3, 3, 0.0), Allowance(True, 100, 100, 0.0)]
    rates.book("t", 60)
    requests, tokens = rates.left("t")
    assert (requests.remaining, tokens.remaining) == (2, 40)
    assert wait_s(rates.book("t", 41)) and rates.book("t", 40) is None


@given(st.lists(st.tuples(st.integers(0, 130), st.integers(1, 60)), max_size=20))
def test_after_the_reset_all_of_the_limit_is_free_and_not_before(steps: list[tuple[int, int]]) -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("limits.storage.memory.time", clock)
        patch.setattr("routing.scheduling.rates.time", clock)
        rates = limits(tokens=100)
        for pause_s, tokens in steps:
            clock.now_s += pause_s
            rates.book("t", tokens)
            rates.correct("t", -tokens // 2)
        (allowance,) = rates.left("t")
        if allowance.reset_s > 2 * MOMENT_S:
            clock.now_s += allowance.reset_s - 2 * MOMENT_S
            assert rates.left("t")[0].remaining < 100
            clock.now_s += 2 * MOMENT_S
        clock.now_s += MOMENT_S
        assert rates.left("t")[0].remaining == 100


def test_what_is_owed_leaves_nothing(clock: Clock) -> None:
    rates = limits(tokens=100)
    rates.book("t", 90)
    rates.correct("t", 290)
    (tokens,) = rates.left("t")
    assert tokens.remaining == 0 and tokens.reset_s > MINUTE_S


def test_of_a_tenant_and_its_key_the_tighter_is_told(clock: Clock) -> None:
    rates = limits(requests=10, tokens=100)
    of_key = KeyLimits(requests_per_minute=2, tokens_per_minute=1000)
    rates.book("t", 50, "k", of_key)
    requests, tokens = rates.left("t", "k", of_key)
    assert (requests.limit, requests.remaining) == (2, 1)
    assert (tokens.limit, tokens.remaining) == (100, 50)
    assert [left.remaining for left in rates.left("t")] == [9, 50], "another key of the tenant's"
    assert [left.limit for left in rates.left("free", "k", of_key)] == [2, 1000]

"""Is a candidate judged right: neither blamed for chance, nor let through when it is worse?"""

from __future__ import annotations

import random

import pytest

from routing.catalog.entries import RolloutPlan
from routing.lifecycle.rollouts import Action, Side, judge, least_rise
from routing.types import Outcome, Record, Target

TARGET = Target("a", "support", "a-support", "base", "shared", 2, "a-support@2")
PLAN = RolloutPlan()


def record(
    outcome: Outcome = Outcome.COMPLETED, *, tokens: int = 20, total_s: float = 1.0, **changes: object
) -> Record:
    status = 200 if outcome is Outcome.COMPLETED else 502
    options: dict[str, object] = {"status": status, "replica": "shared-0", "queue_s": 0.0, **changes}
    return Record("id", TARGET, outcome, total_s=total_s, completion_tokens=tokens, **options)  # type: ignore[arg-type]


def side(
    requests: int, *, failed: int = 0, empty: int = 0, mean_s: float = 1.0, spread: float = 0.3, seed: int = 0
) -> Side:
    """A side with so many requests of log-normal length."""
    chance, side = random.Random(seed), Side()
    for i in range(requests):
        if i < failed:
            side.observe(record(Outcome.FAILED))
        else:
            tokens = 1 if i < failed + empty else 20
            side.observe(record(tokens=tokens, total_s=mean_s * chance.lognormvariate(0, spread)))
    return side


def test_equal_sides_go_on() -> None:
    assert judge(PLAN, side(500, failed=5), side(100, failed=1, seed=1)).action is Action.WAIT


def test_a_candidate_that_fails_is_taken_back_before_many_have_suffered() -> None:
    verdicts = {
        failures: judge(PLAN, side(100), side(failures, failed=failures)) for failures in range(1, 10)
    }
    first = min(failures for failures, verdict in verdicts.items() if verdict.action is Action.ROLL_BACK)
    assert 3 <= first <= 5
    assert "errors" in verdicts[first].reason and f"{first} of {first}" in verdicts[first].reason


def test_a_candidate_is_not_blamed_for_what_the_live_version_does_too() -> None:
    assert judge(PLAN, side(200, failed=40), side(50, failed=10, seed=1)).action is Action.WAIT


def test_a_single_failure_proves_nothing() -> None:
    assert judge(PLAN, side(0), side(1, failed=1)).action is Action.WAIT


def test_empty_answers_are_a_regression() -> None:
    verdict = judge(PLAN, side(200), side(60, empty=20))
    assert verdict.action is Action.ROLL_BACK and "empty" in verdict.reason


def test_a_slow_candidate_is_taken_back_once_there_is_enough_to_tell() -> None:
    assert judge(PLAN, side(200), side(40, mean_s=3.0)).action is Action.WAIT
    verdict = judge(PLAN, side(200), side(60, mean_s=3.0))
    assert verdict.action is Action.ROLL_BACK and "latency" in verdict.reason


def test_a_little_slower_is_allowed() -> None:
    assert judge(PLAN, side(200), side(60, mean_s=1.2)).action is Action.WAIT


def test_time_in_the_queue_is_not_the_versions() -> None:
    waited = Side()
    for seconds in range(60):
        waited.observe(record(total_s=100.0 + 0.1 * (seconds % 3), queue_s=99.0))
    assert judge(PLAN, side(100), waited).action is Action.WAIT


def test_a_good_candidate_is_promoted_where_that_was_asked_for() -> None:
    plan = RolloutPlan(promote_after=80)
    assert judge(plan, side(300), side(79, seed=1)).action is Action.WAIT
    assert judge(plan, side(300), side(80, seed=1)).action is Action.PROMOTE
    assert judge(plan, side(300), side(80, failed=40)).action is Action.ROLL_BACK


@pytest.mark.parametrize(
    "nothing",
    [
        record(Outcome.CANCELLED),
        record(Outcome.EXPIRED),
        record(Outcome.REJECTED, replica=None),
        record(Outcome.FAILED, replica=None),
    ],
)
def test_what_never_ran_or_was_left_says_nothing(nothing: Record) -> None:
    seen = Side()
    seen.observe(nothing)
    assert seen.requests == 0


def test_an_equal_candidate_is_hardly_ever_taken_back_although_it_is_judged_after_every_request() -> None:
    chance, wrong = random.Random(7), 0
    for _ in range(200):
        live, candidate = Side(), Side()
        for _ in range(300):
            for seen in (live, live, live, candidate):
                failed = chance.random() < 0.01
                seen.observe(
                    record(Outcome.FAILED) if failed else record(total_s=chance.lognormvariate(0, 0.5))
                )
            if judge(PLAN, live, candidate).action is Action.ROLL_BACK:
                wrong += 1
                break
    assert wrong <= 6  # 3 % of rollouts of 1200 requests


def test_the_interval_of_a_difference_is_newcombes() -> None:
    """Newcombe 1998, table II, example (a): 56/70 against 48/80 gives 0.0524 at 95 %; ours is at 99 %."""
    assert least_rise((56, 70), (48, 80)) == pytest.approx(0.0524 - 0.0450, abs=0.01)
    assert least_rise((0, 0), (0, 0)) == -1.0


def test_requests_that_were_wrong_say_nothing_of_a_version() -> None:
    """One client may send any number of them, to the candidate alone."""
    candidate = side(20, seed=1)
    for status in (400, 200) * 200:  # before the answer, and in the middle of it
        candidate.observe(record(status=status, reason="invalid_request", tokens=0))
    assert (candidate.requests, candidate.empty, candidate.failed) == (20, 0, 0)
    assert judge(PLAN, side(100), candidate).action is Action.WAIT

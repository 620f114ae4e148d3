"""How soon do the first tokens of a replica come?"""

from __future__ import annotations

import math

import pytest

from routing.scheduling.health.first_tokens import EPOCH_S, MAX_SILENCE_S, MIN_EPOCHS, FirstTokens


def epochs(times: FirstTokens, *first_token_s: float, start_s: float = 0.0) -> float:
    """One answer in each epoch; when the next one begins."""
    for number, time_s in enumerate(first_token_s):
        times.note(start_s + number * EPOCH_S, time_s)
    return start_s + len(first_token_s) * EPOCH_S


def test_nothing_is_said_before_enough_epochs_are_over() -> None:
    times = FirstTokens()
    next_s = epochs(times, *[0.1] * MIN_EPOCHS)
    assert times.mean_s is None
    assert times.log_s(next_s) is None
    times.note(next_s, 0.1)
    assert times.mean_s == pytest.approx(0.1)
    assert times.log_s(next_s) == pytest.approx(math.log(0.1))


def test_many_answers_at_once_are_not_enough() -> None:
    times = FirstTokens()
    for _ in range(100 * MIN_EPOCHS):
        times.note(0.0, 0.1)
    times.note(EPOCH_S, 0.1)
    assert times.mean_s is None


def test_the_mean_is_a_geometric_one() -> None:
    times = FirstTokens()
    epochs(times, *[0.1, 10.0] * 100)
    assert times.mean_s == pytest.approx(1.0, rel=0.15)


def test_a_burst_counts_as_much_as_one_answer() -> None:
    """The first twenty answers come in one epoch, one in each of the others."""
    burst, single = FirstTokens(), FirstTokens()
    for _ in range(20):
        burst.note(0.0, 5.0)
    single.note(0.0, 5.0)
    for times in (burst, single):
        epochs(times, *[0.1] * (MIN_EPOCHS + 1), start_s=EPOCH_S)
    assert burst.mean_s == pytest.approx(single.mean_s)


def test_within_an_epoch_the_geometric_mean_counts() -> None:
    times = FirstTokens()
    for number in range(MIN_EPOCHS + 1):
        times.note(number * EPOCH_S, 0.1)
        times.note((number + 0.5) * EPOCH_S, 0.4)
    assert times.mean_s == pytest.approx(0.2)


def test_what_was_is_forgotten_after_a_while() -> None:
    times = FirstTokens()
    next_s = epochs(times, *[9.0] * (MIN_EPOCHS + 1))
    epochs(times, *[0.1] * 120, start_s=next_s)
    assert times.mean_s == pytest.approx(0.1, rel=0.02)


def test_who_has_not_answered_for_long_is_not_compared() -> None:
    times = FirstTokens()
    last_s = epochs(times, *[0.1] * (MIN_EPOCHS + 1)) - EPOCH_S
    assert times.log_s(last_s + MAX_SILENCE_S) is not None
    assert times.log_s(last_s + MAX_SILENCE_S + 0.1) is None
    assert times.mean_s is not None, "operators still see it"


@pytest.mark.parametrize("nonsense", [0.0, -1.0, math.nan])
def test_a_time_that_cannot_be_spoils_nothing(nonsense: float) -> None:
    times = FirstTokens()
    epochs(times, *[nonsense] * (MIN_EPOCHS + 1))
    assert times.mean_s == pytest.approx(0.001)

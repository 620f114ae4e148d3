"""Ctrl-C in mid-step waits for its end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from demo import interruptions


class Ended(Exception):
    """What the handlers here raise."""


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Both signals end a run, as those of the command do."""

    def end(number: int, frame: object) -> None:
        raise Ended

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_step_is_done_before_the_run_ends(number: signal.Signals) -> None:
    done = []
    with pytest.raises(Ended):
        for step in range(3):
            with interruptions.held():
                signal.raise_signal(number)
                done.append(step)
    assert done == [0]


def test_between_steps_a_run_ends_at_once() -> None:
    with interruptions.held():
        pass
    with pytest.raises(Ended):
        signal.raise_signal(signal.SIGINT)


def test_an_error_of_the_step_itself_is_the_one_that_is_raised() -> None:
    with pytest.raises(ValueError), interruptions.held():
        signal.raise_signal(signal.SIGINT)
        raise ValueError


def test_another_thread_which_gets_no_signals_is_left_alone() -> None:
    def step() -> str:
        with interruptions.held():
            return "done"

    with ThreadPoolExecutor(1) as executor:
        assert executor.submit(step).result() == "done"

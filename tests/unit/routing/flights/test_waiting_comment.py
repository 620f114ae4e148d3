"""What a stream is told while its model has to come first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from routing.flights.heartbeat import COMMENT, comment_of
from routing.scheduling.filters import WaitReason
from routing.scheduling.tickets import Ticket
from routing.types import Target
from tests.unit.routing.requests import request


class Forecast:
    def __init__(self, until_s: float | None) -> None:
        self.until_s = until_s

    def until_awake_s(self) -> float | None:
        return self.until_s

    def least_s(self) -> float:
        return 0.0


def waiting(name: str = "support", why: WaitReason = WaitReason.ASLEEP) -> Ticket:
    meant = request()
    target = Target("a", "support", None, "base", "mesh", asked=name)
    return Ticket(replace(meant, target=target), waits_for=why)


@pytest.mark.parametrize(("until_s", "about"), [(4.2, ", about 4 s"), (0.0, ", about 1 s"), (None, "")])
def test_it_is_told_about_how_long_yet_where_that_is_known(until_s: float | None, about: str) -> None:
    expected = f": waiting for model support{about}\n\n"
    assert comment_of(waiting(), Forecast(until_s)) == expected.encode()


def test_no_name_breaks_out_of_the_comment() -> None:
    told = comment_of(waiting('x\n\ndata: {"choices": []}\r\né'), Forecast(None))
    assert told.count(b"\n") == 2 and told.endswith(b"\n\n") and b"\r" not in told and told.isascii()


def test_who_waits_for_something_else_or_runs_gets_a_comment_that_says_nothing() -> None:
    assert comment_of(waiting(why=WaitReason.NO_ROOM), Forecast(4.0)) == COMMENT
    assert comment_of(waiting(), None) == COMMENT
    runs = waiting()
    runs.is_running = True
    assert comment_of(runs, Forecast(4.0)) == COMMENT

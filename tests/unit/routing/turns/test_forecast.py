"""How long until a model would be awake?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from routing.turns.forecast import until_awake_s
from routing.turns.view import TURN_ANSWERS, AwakeModel, Host, TurnSettings

NOW_S = 100.0
SETTINGS = TurnSettings(answer_s=3.0)
COSTS = {"one": 2.0, "two": 2.0, "three": 2.0}
IDLE = AwakeModel("one", 0.0)
TURN_S = 2.0 + TURN_ANSWERS * 3.0


def wait_s(*hosts: Host, model: str = "two", before: tuple[str, ...] = ()) -> float | None:
    return until_awake_s(NOW_S, model, hosts, before, SETTINGS)


def host(*awake: AwakeModel, most: int = 1, coming: str | None = None, coming_s: float = 0.0) -> Host:
    return Host("h-0", most, awake, coming, coming_s, COSTS)


@pytest.mark.parametrize(
    ("at", "expected_s"),
    [
        (host(), 2.0),  # its switch alone
        (host(IDLE), 2.0),
        (host(AwakeModel("two", 0.0)), 0.0),
        (host(coming="two", coming_s=1.5), 1.5),
        (host(replace(IDLE, running=3, drain_s=5.0)), 7.0),
        (
            host(replace(IDLE, since_s=NOW_S - 0.5, running=3, drain_s=0.1)),
            3.5,
        ),  # as long as its switch
        (host(coming="one", coming_s=1.0), 1.0 + TURN_ANSWERS * 3.0 + 2.0),
        (host(AwakeModel("two", 0.0, shut=True, running=1, drain_s=1.0)), 3.0),
    ],
)
def test_it_is_the_time_to_a_place_and_the_switch(at: Host, expected_s: float) -> None:
    assert wait_s(at) == pytest.approx(expected_s)


def test_those_who_wait_longer_go_before() -> None:
    assert wait_s(host(IDLE), before=("three",)) == pytest.approx(TURN_S + 2.0)
    assert wait_s(host(IDLE), before=("two",)) == 2.0, "nobody waits for himself"
    two = (host(IDLE), replace(host(IDLE), name="h-1"))
    assert wait_s(*two, before=("three",)) == 2.0


def test_it_is_unknown_where_a_model_can_come_nowhere() -> None:
    assert wait_s(host(), model="four") is None
    assert wait_s() is None

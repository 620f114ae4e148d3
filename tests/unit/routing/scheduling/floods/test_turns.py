"""When may a tenant run that is held to a share?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from routing.scheduling.floods.turns import AT_ONCE, TURN_S, Turn

SHARE = 3.0


def test_the_first_turn_begins_at_once() -> None:
    assert Turn().begun


def test_a_turn_ends_when_what_was_saved_is_used_up() -> None:
    turn = Turn(saved=TURN_S * SHARE)
    turn.pass_time(TURN_S, SHARE, AT_ONCE * SHARE)
    assert turn.begun, "to the last"
    turn.pass_time(0.1, SHARE, AT_ONCE * SHARE)
    assert not turn.begun


def test_the_next_turn_begins_when_enough_is_saved_again() -> None:
    turn = Turn(saved=0.0, begun=False)
    turn.pass_time(0.9 * TURN_S, SHARE, 0.0)
    assert not turn.begun
    turn.pass_time(0.2 * TURN_S, SHARE, 0.0)
    assert turn.begun


def test_a_turn_lasts_for_as_long_as_no_more_runs_than_the_share() -> None:
    turn = Turn()
    for _ in range(1000):
        turn.pass_time(0.25, SHARE, SHARE)
    assert turn.begun


def test_neither_what_is_saved_nor_what_is_owed_grows_without_end() -> None:
    turn = Turn()
    turn.pass_time(1000.0, SHARE, 0.0)
    assert turn.saved == TURN_S * SHARE
    turn.pass_time(1000.0, SHARE, 50.0)
    assert turn.saved == -TURN_S * SHARE


@given(st.floats(0.5, 20.0), st.lists(st.floats(0.0, 1.0), min_size=50, max_size=50))
def test_over_many_turns_no_more_runs_than_the_share(share: float, idle: list[float]) -> None:
    """What runs is any part of what may, and ends a quarter of a second after its turn."""
    turn, ran_s, passed_s = Turn(), 0.0, 0.0
    for part in idle * 20:
        running = AT_ONCE * share * part if turn.begun else 0.0
        turn.pass_time(0.25, share, running)
        ran_s, passed_s = ran_s + 0.25 * running, passed_s + 0.25
    assert ran_s <= share * passed_s + 3 * TURN_S * share


def test_nobody_waits_longer_for_a_turn_than_it_takes_to_save_two() -> None:
    turn = Turn(saved=-TURN_S * SHARE, begun=False)
    turn.pass_time(2 * TURN_S, SHARE, 0.0)
    assert turn.begun

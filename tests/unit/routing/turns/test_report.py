"""What happened with a model's turn while somebody waited for it?"""

from __future__ import annotations

from routing.turns.report import TurnEvent, TurnsReport


def event(at_s: float, what: str, model: str = "a", pool: str = "mesh") -> TurnEvent:
    return TurnEvent(at_s, pool, "mesh-0", model, None, what, "worth")


def told(report: TurnsReport, from_s: float, to_s: float) -> list[tuple[float, str]]:
    return [(each.at_s, each.what) for each in report.while_waiting("mesh", "a", from_s, to_s)]


def test_what_happened_between_two_moments_is_told_in_order_holds_included() -> None:
    report = TurnsReport((), (event(9, "awake"), event(7, "begins"), event(1, "sleeps")), (event(5, "held"),))
    assert told(report, 4, 9) == [(5, "held"), (7, "begins"), (9, "awake")]


def test_a_switch_that_was_under_way_is_part_of_it_and_one_that_had_ended_is_not() -> None:
    under_way = TurnsReport((), (event(9, "awake"), event(7, "begins")))
    assert told(under_way, 8, 10) == [(7, "begins"), (9, "awake")]
    ended = TurnsReport((), (event(9, "begins"), event(7, "awake"), event(6, "begins")))
    assert told(ended, 8, 10) == [(9, "begins")]


def test_other_models_and_other_pools_are_left_out() -> None:
    report = TurnsReport((), (event(5, "awake", model="b"), event(5, "awake", pool="other")))
    assert told(report, 0, 10) == []

"""What was seen of late: arrivals, tokens, answers, drains, costs; and what it makes of a request's worth."""

from __future__ import annotations

import pytest

from fleet.types import Band
from routing.turns.costs import GUESS_S, Costs
from routing.turns.figures import FIRST_ANSWER_S, FIRST_DRAIN_S, RATE_S, PoolFigures
from routing.turns.worth import BAND_WORTH, HALVED_AT_TOKENS, drain_s, fair_worth


def test_arrivals_and_tokens_count_less_the_older_they_are() -> None:
    figures = PoolFigures()
    for at_s in range(10):
        figures.ended("one", "a", 100, 2.0, float(at_s))
    early, late = figures.rate("one", 10.0), figures.rate("one", 500.0)
    assert 9 / RATE_S < early < 10 / RATE_S
    assert late < early / 10
    assert 800 < figures.served("a", 10.0) < 1000
    assert figures.served("b", 10.0) == 0.0
    figures.keep_tenants(["b"])
    assert figures.served("a", 10.0) == 0.0


def test_answers_are_averaged_and_of_drains_the_longest_counts_for_long() -> None:
    figures = PoolFigures()
    assert (figures.answer_s, figures.longest_drain_s) == (FIRST_ANSWER_S, FIRST_DRAIN_S)
    for _ in range(200):
        figures.ended("one", "a", 1, 8.0, 0.0)
        figures.ended("one", "a", 1, None, 0.0)  # was not completed: says nothing
    assert figures.answer_s == pytest.approx(8.0, rel=0.01)
    figures.drained(40.0)
    for _ in range(10):
        figures.drained(1.0)
    assert 30.0 < figures.longest_drain_s < 40.0


def test_costs_are_those_measured_there_else_elsewhere_else_as_other_models() -> None:
    costs = Costs()
    assert costs.expected("h-0", ["one"]) == {"one": GUESS_S}
    costs.learn("h-0", "one", 4.0)
    costs.learn("h-0", "one", 2.0)
    assert costs.measured_s("h-0", "one") == 3.0
    assert costs.measured_s("h-1", "one") is None
    costs.learn("h-1", "two", 9.0)
    assert costs.expected("h-1", ["one", "two", "three"]) == {"one": 3.0, "two": 9.0, "three": 6.0}


def test_a_switch_costs_what_it_took_from_the_model_that_is_awake_now() -> None:
    costs = Costs()
    costs.learn("h-0", "one", 40.0)  # nothing was awake
    costs.learn("h-0", "one", 1.0, went="alike")
    costs.learn("h-0", "one", 50.0, went="odd")
    assert costs.measured_s("h-0", "one", ["alike"]) == 1.0
    assert costs.measured_s("h-0", "one", ["odd"]) == 50.0
    assert costs.measured_s("h-0", "one", ["alike", "odd"]) == 25.5, "either may go"
    assert costs.measured_s("h-0", "one", ["new"]) == 50.0, "the dearest, where it is not known"
    assert costs.expected("h-0", ["one"], ["alike"]) == {"one": 1.0}
    assert costs.expected("h-1", ["one"], ["alike"]) == {"one": 50.0}


def test_a_request_is_worth_less_the_more_its_tenant_has_had_for_its_weight() -> None:
    assert BAND_WORTH[Band.HIGH] > BAND_WORTH[Band.STANDARD] > BAND_WORTH[Band.LOW]
    fresh = fair_worth(1.0, 1.0, 0.0)
    assert fair_worth(1.0, 1.0, HALVED_AT_TOKENS) == fresh / 2
    assert fair_worth(1.0, 2.0, 2 * HALVED_AT_TOKENS) == 2 * fresh / 2
    assert fair_worth(1.0, 1.0, 99 * HALVED_AT_TOKENS) == pytest.approx(fresh / 100)


def test_more_sequences_take_longer_to_end_but_not_as_many_times_as_long() -> None:
    assert (drain_s(0, 3.0), drain_s(1, 3.0)) == (0.0, 3.0)
    assert 3.0 < drain_s(8, 3.0) < 24.0

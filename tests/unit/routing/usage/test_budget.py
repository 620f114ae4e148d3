"""Does a budget hold, from the first request on and whatever runs at once?"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.money import COST_UNITS
from fleet.types import Budget
from routing.usage.budget import Budgets, Level, Use

NOW_S = datetime(2026, 12, 31, 23, 59, tzinfo=UTC).timestamp()
NEXT_YEAR_S = NOW_S + 60
MONTH = "2026-12"


def budgets(tokens: int = 100, soft: float = 0.8, written: int = 0) -> Budgets:
    """Budgets of one tenant, whose month the ledger has told."""
    made = Budgets({"a": Budget(tokens, soft)})
    made.month(NOW_S)
    made.take_totals(MONTH, {"a": Use(written)}, {})
    return made


def used(made: Budgets, now_s: float = NOW_S) -> int:
    status = made.status("a", now_s)
    assert status is not None
    return status.used


def test_who_has_no_budget_is_never_refused_and_never_told() -> None:
    made = Budgets({})
    assert made.is_known
    assert made.reserve("b", Use(10**12), NOW_S)
    made.release("b", Use(10**12))
    made.count("b", Use(10**12), NOW_S)
    assert (made.status("b", NOW_S), made.newly_reached(NOW_S)) == (None, [])


def test_what_runs_counts_as_expected_and_then_as_it_was() -> None:
    made = budgets()
    assert made.reserve("a", Use(60), NOW_S)
    assert used(made) == 60
    made.count("a", Use(25), NOW_S)
    made.release("a", Use(60))
    assert used(made) == 25


def test_requests_that_come_at_once_cannot_pass_the_limit_together() -> None:
    made = budgets()
    assert [made.reserve("a", Use(40), NOW_S) for _ in range(4)] == [True, True, False, False]
    assert made.reserve("a", Use(20), NOW_S), "what is smaller still fits"


def test_what_the_ledger_has_from_before_counts_from_the_start() -> None:
    made = budgets(written=95)
    assert not made.reserve("a", Use(10), NOW_S)
    assert made.reserve("a", Use(5), NOW_S)


def test_budgets_are_not_known_until_the_ledger_has_told_them() -> None:
    made = Budgets({"a": Budget(100)})
    assert not made.is_known
    made.month(NOW_S)
    made.take_totals(MONTH, {}, {})
    assert made.is_known


def test_what_is_written_is_not_counted_twice() -> None:
    made = budgets(written=10)
    made.count("a", Use(30), NOW_S)
    made.count("a", Use(5), NOW_S)
    made.note_written(MONTH, {"a": Use(30)})
    assert used(made) == 45
    made.take_totals(MONTH, {"a": Use(45)}, {"a": Use(5)})
    assert used(made) == 45
    made.take_totals(MONTH, {"a": Use(60)}, {})
    assert used(made) == 60, "15 by another gateway"


def test_a_new_month_begins_at_nothing_but_what_runs() -> None:
    made = budgets(written=90)
    assert made.reserve("a", Use(10), NOW_S)
    assert used(made, NEXT_YEAR_S) == 10
    made.take_totals(MONTH, {"a": Use(90)}, {})
    assert used(made, NEXT_YEAR_S) == 10, "what is told of the old month comes too late"
    assert made.month(NEXT_YEAR_S) == ("2027-01", "2027-01-01", "2027-02-01")


def test_what_ended_before_the_month_and_is_told_in_it_counts_nothing_in_it() -> None:
    made = budgets(written=90)
    assert used(made, NEXT_YEAR_S) == 0
    made.count("a", Use(40), NOW_S)  # a line of a batch counts once its answer is on disk
    assert used(made, NEXT_YEAR_S) == 0
    made.note_written(MONTH, {"a": Use(40)})
    made.count("a", Use(5), NEXT_YEAR_S)
    made.note_written("2027-01", {"a": Use(5)})
    assert used(made, NEXT_YEAR_S) == 5


@pytest.mark.parametrize("ahead_s", [120, 86_400 * 400])
def test_a_clock_that_was_ahead_and_is_set_back_leaves_the_month_as_the_ledger_has_it(ahead_s: float) -> None:
    made = budgets(written=90)
    assert used(made, NOW_S + ahead_s) == 0
    made.count("a", Use(7), NOW_S + ahead_s)
    assert made.month(NOW_S) == (MONTH, "2026-12-01", "2027-01-01")
    made.count("a", Use(3), NOW_S)
    assert used(made) == 3, "until the ledger has told more"
    made.take_totals(MONTH, {"a": Use(93)}, {"a": Use(3)})
    assert used(made) == 93 and not made.reserve("a", Use(8), NOW_S)


def test_a_month_ends_at_midnight_utc() -> None:
    status = budgets().status("a", NOW_S)
    assert status is not None
    assert status.resets_s == NEXT_YEAR_S
    assert status.answer()["resets_at"] == "2027-01-01T00:00:00Z"


def test_each_limit_is_told_once_a_month() -> None:
    made = budgets(tokens=100, soft=0.5)
    assert made.newly_reached(NOW_S) == []
    made.count("a", Use(50), NOW_S)
    assert [news.level for news in made.newly_reached(NOW_S)] == [Level.SOFT]
    assert made.newly_reached(NOW_S) == []
    made.count("a", Use(60), NOW_S)
    assert [(news.level, news.remaining) for news in made.newly_reached(NOW_S)] == [(Level.SPENT, 0)]
    assert made.newly_reached(NEXT_YEAR_S) == []
    made.count("a", Use(70), NEXT_YEAR_S)
    assert [news.level for news in made.newly_reached(NEXT_YEAR_S)] == [Level.SOFT]


def test_what_was_reached_before_a_restart_is_not_told_again() -> None:
    made = budgets(written=85)
    assert made.newly_reached(NOW_S) == []
    made.count("a", Use(20), NOW_S)
    assert [news.level for news in made.newly_reached(NOW_S)] == [Level.SPENT]


def test_what_is_expected_warns_nobody() -> None:
    made = budgets()
    assert made.reserve("a", Use(100), NOW_S)
    assert made.newly_reached(NOW_S) == []
    status = made.status("a", NOW_S)
    assert status is not None and status.level is Level.BELOW


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.booleans()), max_size=60),
    st.integers(0, 120),
)
def test_the_limit_is_passed_by_no_more_than_what_ran_used_beyond_its_estimate(
    requests: list[tuple[int, int, bool]], written: int
) -> None:
    made = budgets(tokens=200, written=written)
    running: list[tuple[int, int]] = []
    beyond = 0
    for estimate, real, ends_first in requests:
        if ends_first and running:
            expected, spent = running.pop(0)
            made.count("a", Use(spent), NOW_S)
            made.release("a", Use(expected))
        if made.reserve("a", Use(estimate), NOW_S):
            running.append((estimate, real))
            beyond += max(0, real - estimate)
    for expected, spent in running:
        made.count("a", Use(spent), NOW_S)
        made.release("a", Use(expected))
    assert used(made) <= 200 + beyond
    made.take_totals(MONTH, {"a": Use(7)}, {"a": Use(used(made) - written)})
    assert used(made) == 7, "nothing is left reserved or unwritten"


@pytest.mark.parametrize("soft", [0.1, 1.0])
def test_the_soft_limit_is_where_the_operator_put_it(soft: float) -> None:
    made = budgets(tokens=1000, soft=soft)
    made.count("a", Use(round(soft * 1000) - 1), NOW_S)
    assert made.newly_reached(NOW_S) == []
    made.count("a", Use(1), NOW_S)
    assert len(made.newly_reached(NOW_S)) == 1


def in_money() -> Budgets:
    """Budgets of one tenant, of 10 euros."""
    made = Budgets({"a": Budget(monthly_cost=10 * COST_UNITS)}, "EUR")
    made.take_totals(made.month(NOW_S)[0], {}, {})
    return made


def test_a_budget_in_money_counts_costs_and_is_told_in_the_currency() -> None:
    made = in_money()
    assert made.reserve("a", Use(10**9, 10 * COST_UNITS), NOW_S)
    assert not made.reserve("a", Use(0, 1), NOW_S) and made.reserve("a", Use(1, 0), NOW_S)
    made.count("a", Use(15, 2_500_000_000), NOW_S)
    made.release("a", Use(10**9 + 1, 10 * COST_UNITS))
    status = made.status("a", NOW_S)
    assert status is not None and status.answer() == {
        "monthly_cost": "10", "used_cost": "2.5", "remaining_cost": "7.5",
        "level": "below", "resets_at": "2027-01-01T00:00:00Z",
    }  # fmt: skip
    made.count("a", Use(15, 5_500_000_000), NOW_S)
    (news,) = made.newly_reached(NOW_S)
    assert (news.level, news.amount(news.remaining), news.unit) == (Level.SOFT, "2", "EUR")


def test_a_budget_of_the_other_kind_holds_at_once_by_what_was_used_reserved_and_written() -> None:
    made = in_money()
    made.take_totals(MONTH, {"a": Use(40, COST_UNITS)}, {})
    made.count("a", Use(20, COST_UNITS), NOW_S)
    assert made.reserve("a", Use(30, COST_UNITS), NOW_S)
    made.take({"a": Budget(100)}, "EUR")
    assert used(made) == 90
    assert not made.reserve("a", Use(11), NOW_S) and made.reserve("a", Use(10), NOW_S)
    made.take({"a": Budget(monthly_cost=4 * COST_UNITS)}, "EUR")
    assert used(made) == 3 * COST_UNITS
    made.release("a", Use(30, COST_UNITS))
    made.release("a", Use(10))
    assert used(made) == 2 * COST_UNITS


# -- other budgets -----------------------------------------------------------------------------------------


def test_another_budget_counts_what_was_used_under_the_one_before() -> None:
    made = budgets(written=95)
    made.take({"a": Budget(200)})
    assert made.reserve("a", Use(100), NOW_S)
    made.take({"a": Budget(150)})
    assert not made.reserve("a", Use(1), NOW_S)
    made.release("a", Use(100))
    assert made.reserve("a", Use(55), NOW_S)


def test_a_budget_that_is_taken_away_and_given_back_knows_what_is_reserved() -> None:
    made = budgets()
    assert made.reserve("a", Use(60), NOW_S)
    made.take({})
    assert "a" not in made and made.status("a", NOW_S) is None
    made.take({"a": Budget(100)})
    assert not made.reserve("a", Use(50), NOW_S)
    made.take({})
    made.release("a", Use(60))
    made.take({"a": Budget(100)})
    assert made.reserve("a", Use(100), NOW_S)


def test_a_new_budget_is_not_told_what_was_asked_for_others() -> None:
    made = budgets(written=10)
    made.take({"a": Budget(100), "b": Budget(100)})
    month, _, _ = made.month(NOW_S)
    made.take_totals(month, {"a": Use(20)}, {"a": Use(0), "gone": Use(5)})
    status = made.status("b", NOW_S)
    assert status is not None and status.used == 0

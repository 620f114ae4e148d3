"""What may be asked of the ledger, and how they are answered."""

from __future__ import annotations

import csv
import io
import time
from datetime import date

import pytest

from fleet.money import COST_UNITS
from fleet.types import Budget
from routing.admin.usage import UsageAnswer
from routing.usage.budget import Budgets, Use
from routing.usage.query import MAX_ROWS, UsageQuery
from tests.unit.routing.admin.fakes import Desk, error_of

USAGE = "/admin/v1/usage"
MEASURED = (2, 1, 10, 20, 5, 0.25, 1.0, 0.5, 0.1, 2.5, 2, 1_500_000_000)


async def test_usage_is_split_by_what_is_asked_for_and_has_a_total(desk: Desk) -> None:
    desk.book.values = [("acme", "", *MEASURED), ("globex", "support", *MEASURED)]
    path = f"{USAGE}?from=2026-01-01&to=2026-01-31&group_by=adapter,tenant"
    answer = await desk.ask("GET", path, key="operator-key")
    assert answer.status_code == 200
    told = answer.json()
    assert desk.book.asked == [UsageQuery(date(2026, 1, 1), date(2026, 1, 31), ("tenant", "adapter"), None)]
    assert [(line["tenant"], line["adapter"], line["requests"]) for line in told["data"]] == [
        ("acme", None, 2),
        ("globex", "support", 2),
    ]
    assert told["total"]["prompt_tokens"] == 20
    assert (told["total"]["cost"], told["data"][0]["cost"], told["currency"]) == ("3", "1.5", None)
    UsageAnswer.model_validate(told)


async def test_budgets_are_told_of_those_who_have_one(desk: Desk) -> None:
    desk.book.budgets.count("acme", Use(900), time.time())
    for query, names in (("", ["acme"]), ("?tenant=acme", ["acme"]), ("?tenant=globex", [])):
        answer = await desk.ask("GET", USAGE + query, key="operator-key")
        budgets = answer.json()["budgets"]
        assert [each["tenant"] for each in budgets] == names
        assert all(
            (b["used_tokens"], b["remaining_tokens"], b["level"]) == (900, 100, "soft") for b in budgets
        )


async def test_a_budget_in_money_is_told_in_the_currency_and_so_is_csv(desk: Desk) -> None:
    desk.book.budgets = Budgets({"acme": Budget(monthly_cost=10 * COST_UNITS)}, "EUR")
    desk.book.budgets.count("acme", Use(0, 2_500_000_000), time.time())
    desk.book.values = [MEASURED]
    told = (await desk.ask("GET", USAGE, key="operator-key")).json()
    UsageAnswer.model_validate(told)
    (budget,) = told["budgets"]
    assert (budget["monthly_cost"], budget["used_cost"], budget["remaining_cost"]) == ("10", "2.5", "7.5")
    assert "monthly_tokens" not in budget
    text = (await desk.ask("GET", f"{USAGE}?format=csv", key="operator-key")).text
    (found,) = csv.DictReader(io.StringIO(text, newline=""))
    assert (found["cost"], found["currency"]) == ("1.5", "EUR")


@pytest.mark.parametrize(
    ("query", "accept"), [("?format=csv", "*/*"), ("", "text/csv"), ("?format=csv", "application/json")]
)
async def test_it_comes_as_csv_where_that_is_asked_for(desk: Desk, query: str, accept: str) -> None:
    desk.book.values = [MEASURED]
    answer = await desk.ask("GET", USAGE + query, key="operator-key", headers={"accept": accept})
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"].startswith('attachment; filename="usage-20')
    assert answer.headers["vary"] == "Accept"
    (found,) = csv.DictReader(io.StringIO(answer.text, newline=""))
    assert found["requests"] == "2"


async def test_what_the_url_says_counts_more_than_a_header(desk: Desk) -> None:
    answer = await desk.ask("GET", f"{USAGE}?format=json", key="operator-key", headers={"accept": "text/csv"})
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ("from=yesterday", 400, "from"),
        ("from=2026-02-01&to=2026-01-01", 400, "from"),
        ("group_by=user", 400, "group_by"),
        ("format=xml", 400, "format"),
        ("first=2026-01-01", 400, "first"),
        ("nothing=1", 400, "nothing"),
        ("tenant=UPPER", 400, "tenant"),
        ("tenant=nobody", 404, "tenant"),
    ],
)
async def test_what_is_wrong_is_named(desk: Desk, query: str, status: int, param: str) -> None:
    answer = await desk.ask("GET", f"{USAGE}?{query}", key="operator-key")
    assert answer.status_code == status
    assert error_of(answer)["param"] == param
    assert desk.book.asked == []


async def test_an_answer_that_would_be_too_long_is_refused(desk: Desk) -> None:
    desk.book.values = [MEASURED] * (MAX_ROWS + 1)
    answer = await desk.ask("GET", USAGE, key="operator-key")
    assert (answer.status_code, error_of(answer)["param"]) == (400, "group_by")


async def test_while_the_database_is_away_that_is_said(desk: Desk) -> None:
    desk.book.gone = True
    answer = await desk.ask("GET", USAGE, key="operator-key")
    assert (answer.status_code, error_of(answer)["code"]) == (503, "state_unavailable")
    assert 5 <= int(answer.headers["retry-after"]) <= 8

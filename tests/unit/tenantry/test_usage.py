"""`tenantry usage`: what it asks, prints and exits with."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from fleet.money import COST_UNITS
from fleet.types import Budget
from routing.usage.budget import Budgets, Use
from routing.usage.query import UsageQuery
from routing.usage.spreadsheet import COLUMNS
from tenantry.app import app
from tenantry.client import KEY_VARIABLE
from tenantry.running import Connection
from tests.unit.routing.admin import fakes
from tests.unit.routing.admin.fakes import Desk

MEASURED = (1200, 3, 1_500_000, 20, 5, 0.25, 90.0, 0.5, 0.1, 2.5, 1200, 12_500_000_000)
Run = Callable[..., Result]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return fakes.desk(tmp_path)


@pytest.fixture
def run(desk: Desk) -> Run:
    def run(*arguments: str, key: str = "operator-key") -> Result:
        connection = Connection(httpx.ASGITransport(desk.app))
        environment = {KEY_VARIABLE: key, "COLUMNS": "200"}
        return CliRunner().invoke(app, ["usage", *arguments], obj=connection, env=environment)

    return run


def cells(output: str) -> list[list[str]]:
    lines = [line for line in output.splitlines() if "│" in line]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]


def test_usage_is_shown_by_tenant_and_model_with_a_total(run: Run, desk: Desk) -> None:
    desk.book.values = [("acme", "support", *MEASURED), ("globex", "support", *MEASURED)]
    result = run()
    assert result.exit_code == 0, result.output
    assert desk.book.asked[0].group_by == ("tenant", "model")
    times = ["250 ms", "90 s", "500 ms", "100 ms", "2.5 s"]
    shown = cells(result.stdout)
    assert ["acme", "support", "1,200", "1,500,000", "20", "5", *times] in shown
    assert shown[-1][:5] == ["total", "", "2,400", "3,000,000", "40"]
    assert "tokens of 6 requests are partly estimated" in result.stdout


def test_a_single_line_needs_no_total(run: Run, desk: Desk) -> None:
    desk.book.values = [MEASURED]
    result = run("--group-by", "")
    assert [row[0] for row in cells(result.stdout)] == ["1,200"]


def test_options_become_the_query(run: Run, desk: Desk) -> None:
    run("--from", "2026-01-01", "--to", "2026-01-31", "--group-by", "day", "--tenant", "acme")
    assert desk.book.asked == [UsageQuery(date(2026, 1, 1), date(2026, 1, 31), ("day",), "acme", former=True)]


def test_a_budget_is_shown_in_the_colour_of_its_level(run: Run, desk: Desk) -> None:
    desk.book.budgets.count("acme", Use(900), time.time())
    assert "budget of acme: 900 of 1,000 tokens this month (90 %)" in run().stdout


def test_costs_are_a_column_where_there_are_prices(run: Run, desk: Desk) -> None:
    desk.book.values = [("acme", "support", *MEASURED), ("globex", "support", *MEASURED[:-2], 0, 0)]
    assert "12.5" not in run().stdout
    desk.book.budgets = Budgets({"acme": Budget(monthly_cost=100 * COST_UNITS)}, "EUR")
    desk.book.budgets.count("acme", Use(0, 12_500_000_000), time.time())
    result = run()
    assert "EUR" in result.stdout
    assert [row[-1] for row in cells(result.stdout)][-3:] == ["12.5", "", "12.5"]
    assert "budget of acme: 12.5 of 100 EUR this month (12.5 %)" in result.stdout


def test_csv_is_the_gateways(run: Run, desk: Desk) -> None:
    desk.book.values = [("acme", "support", *MEASURED)]
    lines = run("--csv").stdout.splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert lines[1].startswith(",acme,,support,")


def test_json_is_the_gateways(run: Run, desk: Desk) -> None:
    desk.book.values = [("acme", "support", *MEASURED)]
    assert json.loads(run("--json").stdout)["data"][0]["tenant"] == "acme"


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("--from", "yesterday"), 1, "must be a day like"),
        (("--csv", "--group-by", "user"), 1, "`group_by` takes"),
        (("--csv", "--json"), 2, "cannot both"),
    ],
)
def test_what_is_wrong_is_said_with_its_exit_code(
    run: Run, arguments: tuple[str, ...], status: int, says: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == status
    assert says in result.output


def test_a_key_that_is_no_operators_is_refused(run: Run) -> None:
    assert run(key="acme-key").exit_code == 1

"""Are wrong prices and budgets refused, with their reasons, and right ones read exactly?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet import project, read_fleet
from fleet.money import OwnPrices, Price, Prices
from fleet.types import Budget
from fleet.writer import write_fleet
from tests.unit.fleet.files import changed, problems, write

MODELS = {
    "base": {"input": 0.2, "cached_input": 0.05, "output": 0.6},
    "plain": {"input": 1, "output": 0},
    "a-support": {"input": 0.000001, "output": 100_000, "slot_hour": 1.5, "engine_hour": 2},
}
PRICED = changed("prices", {"currency": "EUR", "models": MODELS})
BUDGET = changed("tenants/alpha/budget", {"monthly_cost": 250.125}, PRICED)


def read(folder: Path, data: dict[str, Any]) -> Any:
    return read_fleet(write(folder, data))


def test_prices_are_read_exactly_and_survive_being_written(tmp_path: Path) -> None:
    own = {"factor": 0.9, "models": {"base": {"input": 0.1, "output": 0.3}}}
    loaded = read(tmp_path, changed("tenants/beta/prices", own, BUDGET))
    assert loaded.fleet.prices == Prices(
        "EUR",
        {
            "base": Price(200_000, 50_000, 600_000),
            "plain": Price(1_000_000, 1_000_000, 0),
            "a-support": Price(1, 1, 10**11, 1_500_000, 2_000_000),
        },
    )
    assert loaded.fleet.tenants["beta"].prices == OwnPrices(9_000, {"base": Price(100_000, 100_000, 300_000)})
    assert loaded.fleet.tenants["alpha"].budget == Budget(monthly_cost=250_125_000_000)
    text = write_fleet(loaded.fleet, key_variables={})
    assert read_fleet(write(tmp_path, text)).fleet == loaded.fleet


def test_a_pools_part_has_the_prices_of_its_models_alone(tmp_path: Path) -> None:
    fleet = read(tmp_path, PRICED).fleet
    prices = project(fleet, "whole").prices
    assert prices is not None and set(prices.models) == {"plain"}
    assert project(read(tmp_path, changed("tenants/beta/weight", 1)).fleet, "whole").prices is None


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (-0.1, "must be from 0 to 100 000"),
        (float("nan"), "must be from 0 to 100 000"),
        (float("inf"), "must be from 0 to 100 000"),
        (100_000.1, "must be from 0 to 100 000"),
        (10**400, "must be from 0 to 100 000"),
        (0.0000001, "has more than 6 decimals"),
        ("0.2", "must be a number"),
        (True, "must be a number"),
        (None, "must be a number"),
    ],
)
def test_a_price_that_is_none_is_refused(tmp_path: Path, value: Any, says: str) -> None:
    (found,) = problems(tmp_path, changed("prices/models/base/input", value, PRICED))
    assert (found.path, says in found.message) == ("prices.models.base.input", True), found


@pytest.mark.parametrize(
    ("path", "value", "where", "says"),
    [
        ("prices/models/bsae", {"input": 1, "output": 1}, "prices.models.bsae", "no adapter or base model"),
        ("prices/models/base", {"input": 1}, "prices.models.base", "`output` is missing"),
        ("prices/models/base/cached", 1, "prices.models.base.cached", "unknown key `cached`"),
        ("prices/currency", "€ <b>", "prices.currency", ""),
        (
            "tenants/beta/prices",
            {"models": {"bsae": MODELS["base"]}},
            "tenants.beta.prices.models.bsae",
            "no adapter",
        ),
        ("tenants/beta/prices", {"factor": -1}, "tenants.beta.prices.factor", "must be from 0 to 100"),
        ("tenants/beta/prices", {"factor": 0.12345}, "tenants.beta.prices.factor", "more than 4 decimals"),
        ("tenants/beta/budget", {"monthly_cost": 0}, "tenants.beta.budget", "must be greater than 0"),
        ("tenants/beta/budget", {"monthly_cost": 1e10}, "tenants.beta.budget.monthly_cost", "from 0 to"),
        ("tenants/beta/budget", {"monthly_cost": 1, "monthly_tokens": 1}, "tenants.beta.budget", "either"),
        ("tenants/beta/budget", {"soft": 0.5}, "tenants.beta.budget", "either"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(
    tmp_path: Path, path: str, value: Any, where: str, says: str
) -> None:
    (found,) = problems(tmp_path, changed(path, value, PRICED))
    assert (found.path, says in found.message) == (where, True), found


def test_a_budget_in_money_needs_a_price_for_all_that_it_is_to_bound(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, changed("prices/models", {"base": MODELS["base"]}, BUDGET))
    assert found.path == "tenants.alpha.budget.monthly_cost"
    assert found.message == "`plain` has no price, so requests for it would not count"
    adapters_alone = {name: MODELS[name] for name in ("plain", "a-support")}
    (found,) = problems(tmp_path, changed("prices/models", adapters_alone, BUDGET))
    assert "`base` has no price" in found.message, "its own adapters would have none"
    own = changed("tenants/alpha/prices", {"models": {"base": MODELS["base"]}}, BUDGET)
    assert problems(tmp_path, changed("prices/models", adapters_alone, own)) == []


def test_without_prices_there_is_no_money(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, changed("tenants/beta/budget", {"monthly_cost": 1}))
    assert "the fleet has no prices" in found.message
    (found,) = problems(tmp_path, changed("tenants/beta/prices", {"factor": 0.5}))
    assert (found.path, "no currency" in found.message) == ("tenants.beta.prices", True)


def test_prices_that_are_wrong_blame_no_budget(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, changed("prices/currency", "", BUDGET))
    assert found.path == "prices.currency"

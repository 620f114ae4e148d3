"""Prices as values and as entries of fleet.yaml, both ways. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fleet.money import COST_UNITS, FACTOR_UNITS, PRICE_UNITS, OwnPrices, Price, Prices
from fleet.prices import OwnPricesSection, PriceSection, PricesSection
from fleet.types import Budget


def prices_of(section: PricesSection | None) -> Prices | None:
    """Return the fleet's prices."""
    return None if section is None else Prices(section.currency, _models(section.models))


def own_prices_of(section: OwnPricesSection | None) -> OwnPrices | None:
    """Return a tenant's prices."""
    return None if section is None else OwnPrices(section.factor, _models(section.models))


def written_prices(models: Mapping[str, Price]) -> dict[str, dict[str, float]]:
    """Write prices by model."""
    return {name: _written(price) for name, price in models.items()}


def written_own_prices(prices: OwnPrices) -> dict[str, Any]:
    """Write a tenant's prices."""
    return {"factor": _amount(prices.factor, FACTOR_UNITS), "models": written_prices(prices.models)}


def written_budget(budget: Budget) -> dict[str, Any]:
    """Write a budget."""
    values = asdict(budget)
    if budget.monthly_cost is not None:
        values["monthly_cost"] = _amount(budget.monthly_cost, COST_UNITS)
    return {key: value for key, value in values.items() if value is not None}


def _models(sections: Mapping[str, PriceSection]) -> dict[str, Price]:
    return {name: _price(section) for name, section in sections.items()}


def _price(section: PriceSection) -> Price:
    cached = section.input if section.cached_input is None else section.cached_input
    return Price(section.input, cached, section.output, section.slot_hour, section.engine_hour)


def _written(price: Price) -> dict[str, float]:
    values = asdict(price)
    del values["factor"]  # the tenant's, or 1
    return {key: _amount(units, PRICE_UNITS) for key, units in values.items()}


def _amount(units: int, one: int) -> float:
    """Return the number whose shortest text has these decimals: at most 15 digits, which a float holds."""
    return units // one if units % one == 0 else units / one

"""Turns the prices of a fleet file into values. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from fleet.money import OwnPrices, Price, Prices
from fleet.prices import OwnPricesSection, PriceSection, PricesSection


def prices_of(section: PricesSection | None) -> Prices | None:
    """Return the fleet's prices."""
    return None if section is None else Prices(section.currency, _models(section.models))


def own_prices_of(section: OwnPricesSection | None) -> OwnPrices | None:
    """Return a tenant's prices."""
    return None if section is None else OwnPrices(section.factor, _models(section.models))


def _models(sections: Mapping[str, PriceSection]) -> dict[str, Price]:
    return {name: _price(section) for name, section in sections.items()}


def _price(section: PriceSection) -> Price:
    cached = section.input if section.cached_input is None else section.cached_input
    return Price(section.input, cached, section.output, section.slot_hour, section.engine_hour)

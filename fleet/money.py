"""What does a request cost? Prices, and exact arithmetic on them. Pure; adds up whole numbers, never floats.

A price is kept in millionths of the currency (for a million tokens, or for an hour), a cost in billionths. So
a cost is rounded once, when it is computed, to a billionth; sums of costs are exact, in the database too, and
64 bits hold nine thousand million of the currency.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

PRICE_UNITS = 10**6  # of a price, in one of the currency
COST_UNITS = 10**9  # of a cost
FACTOR_UNITS = 10**4
_HOUR_S = 3600
_WHOLE = _HOUR_S * FACTOR_UNITS * (10**12 // COST_UNITS)  # a token's price has 12 decimals


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs: for a million tokens of each kind, and for an hour of a slot and of an engine."""

    input: int
    cached_input: int  # tokens of the prompt that were in the prefix cache
    output: int
    slot_hour: int = 0
    engine_hour: int = 0
    factor: int = FACTOR_UNITS  # of all of them

    @property
    def counts_time(self) -> bool:
        """Whether a cost is known only once the request has ended."""
        return bool(self.slot_hour or self.engine_hour)

    def cost(
        self, prompt: int, completion: int, cached: int = 0, *, slot_s: float = 0.0, engine_s: float = 0.0
    ) -> int:
        """Return what a request costs; times count to the microsecond, halves are rounded up."""
        cached = min(cached, prompt)
        tokens = (prompt - cached) * self.input + cached * self.cached_input + completion * self.output
        times = round(slot_s * 1e6) * self.slot_hour + round(engine_s * 1e6) * self.engine_hour
        return ((tokens * _HOUR_S + times) * self.factor + _WHOLE // 2) // _WHOLE


@dataclass(frozen=True, slots=True)
class Prices:
    """The prices of a fleet."""

    currency: str
    models: Mapping[str, Price] = field(default_factory=dict)  # of base models and declared adapters


@dataclass(frozen=True, slots=True)
class OwnPrices:
    """What one tenant pays instead of the fleet's prices."""

    factor: int = FACTOR_UNITS  # of the fleet's prices, where it has no price of its own
    models: Mapping[str, Price] = field(default_factory=dict)


def why_not_renamed(before: Prices | None, after: Prices | None) -> list[str]:
    """Say why the currency cannot be another one while the gateway serves; nothing is converted."""
    if before is None or after is None or before.currency == after.currency:
        return []
    return [
        f"prices: currency {before.currency} -> {after.currency}: what was counted so far would be added to "
        "what comes as if it were the same money; save the usage, then change it together with a restart of "
        "the service, best at the beginning of a month"
    ]


def price_of(
    prices: Prices | None, own: OwnPrices | None, adapter: str | None, base_model: str
) -> Price | None:
    """Return what a tenant pays for a model: its own price, else the fleet's times its factor, else None.

    An adapter without a price has that of its base model. `adapter` is a declared one.
    """
    if prices is None:
        return None
    own = own or OwnPrices()
    names = (base_model,) if adapter is None else (adapter, base_model)
    found = next((own.models[name] for name in names if name in own.models), None)
    if found is not None:
        return found
    general = next((prices.models[name] for name in names if name in prices.models), None)
    return None if general is None else replace(general, factor=own.factor)


def written(units: int, one: int = COST_UNITS) -> str:
    """Write an amount as a decimal number, exactly and without an exponent."""
    amount = Decimal(units) / one
    return f"{amount.normalize():f}" if amount else "0"

"""The keys of fleet.yaml for prices and budgets: types, bounds and defaults.

The texts here are the JSON Schema's descriptions, which editors show.
"""

from __future__ import annotations

from pydantic import ConfigDict, Field, model_validator

from fleet.fields import MOST, Amount, Currency, Factor, HourPrice, Name, Section, TokenPrice


class PriceSection(Section):
    """What one model costs, in the fleet's currency."""

    input: TokenPrice = Field(description="A million prompt tokens.")
    output: TokenPrice = Field(description="A million completion tokens.")
    cached_input: TokenPrice | None = Field(
        None, description="A million prompt tokens that were in the prefix cache; default: as `input`."
    )
    slot_hour: HourPrice = Field(0, description="An hour of an adapter's slot.")
    engine_hour: HourPrice = Field(0, description="An hour of an engine.")


class PricesSection(Section):
    """What models cost."""

    currency: Currency = Field(description="Its name, as EUR; shown beside amounts and never converted.")
    models: dict[Name, PriceSection] = Field(
        min_length=1,
        description="Prices of base models and adapters; an adapter without one has its base model's.",
    )


class OwnPricesSection(Section):
    """What one tenant pays instead of the fleet's prices."""

    factor: Factor = Field(
        1, validate_default=True, description="Factor of the fleet's prices, for models without a price here."
    )
    models: dict[Name, PriceSection] = Field({}, description="Prices of this tenant alone, whole ones.")


class BudgetSection(Section):
    """What one tenant may use in a calendar month, UTC: tokens, or money."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["monthly_tokens"]}, {"required": ["monthly_cost"]}]},
    )

    monthly_tokens: int | None = Field(
        None,
        ge=1,
        le=MOST,
        description="Prompt and completion tokens together; beyond them requests get a 429.",
    )
    monthly_cost: Amount | None = Field(
        None, description="Money, in the currency of `prices`; beyond it requests get a 429."
    )
    soft: float = Field(
        0.8, gt=0, le=1, description="Fraction of it at which answers, events and metrics begin to warn."
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> BudgetSection:
        if (self.monthly_tokens is None) == (self.monthly_cost is None):
            raise ValueError("a budget has either monthly_tokens or monthly_cost")
        if self.monthly_cost == 0:
            raise ValueError("monthly_cost must be greater than 0")
        return self

"""Bodies and queries of the routes for tenants and aliases: the keys of a tenant's entry in fleet.yaml.

Types and unknown fields are checked here; bounds, and whether all fits together, by the rules of fleet files.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from fleet import prices, schema
from fleet.entries import flat
from fleet.fields import Alias, Name, Section
from fleet.types import Band, Isolation
from routing.admin.bodies import Body, QueryPart


class ModelFields(Body):
    """What an alias stands for, and which other of the tenant's models answers where that cannot."""

    model: Name = Field(description="An adapter or base model of the fleet.")
    fallback: Alias | None = Field(None, description="Another of the tenant's models; default: none.")


Models = Annotated[
    dict[Alias, Name | ModelFields | None],
    Field(
        max_length=1000,
        description="The tenant's name for a model -> adapter or base model of the fleet, or "
        "{model, fallback}; null removes it.",
        examples=[{"chat": "llama-3-8b"}],
    ),
]
Paths = Annotated[
    list[Annotated[str, Field(max_length=200)]],
    Field(max_length=1000, description="Values set at run time that go back to what fleet.yaml says."),
]


def _told(section: type[Section], name: str) -> Any:
    return Field(None, description=section.model_fields[name].description)


class CapsFields(Body):
    """Limits; null: no such cap."""

    max_concurrency: int | None = _told(schema.CapsSection, "max_concurrency")
    max_concurrency_per_model: int | None = _told(schema.CapsSection, "max_concurrency_per_model")
    max_queued: int | None = _told(schema.CapsSection, "max_queued")
    max_queued_tokens: int | None = _told(schema.CapsSection, "max_queued_tokens")
    requests_per_minute: int | None = _told(schema.CapsSection, "requests_per_minute")
    tokens_per_minute: int | None = _told(schema.CapsSection, "tokens_per_minute")
    queue_timeout_s: float | None = _told(schema.CapsSection, "queue_timeout_s")


class BudgetFields(Body):
    """What the tenant may use in a month: tokens, or money."""

    monthly_tokens: int | None = _told(prices.BudgetSection, "monthly_tokens")
    monthly_cost: float | None = _told(prices.BudgetSection, "monthly_cost")
    soft: float | None = _told(prices.BudgetSection, "soft")


class PriceFields(Body):
    """What one model costs the tenant."""

    input: float = Field(description="A million prompt tokens.")
    output: float = Field(description="A million completion tokens.")
    cached_input: float | None = _told(prices.PriceSection, "cached_input")
    slot_hour: float | None = _told(prices.PriceSection, "slot_hour")
    engine_hour: float | None = _told(prices.PriceSection, "engine_hour")


class PricesFields(Body):
    """What the tenant pays instead of the fleet's prices."""

    factor: float | None = _told(prices.OwnPricesSection, "factor")
    models: dict[Name, PriceFields] | None = _told(prices.OwnPricesSection, "models")


class TenantFields(Body):
    """Settings of a tenant. What is left out stays as it is."""

    models: Models | None = None
    default_model: Alias | None = _told(schema.TenantSection, "default_model")
    priority: Band | None = Field(
        None, strict=False, description=schema.TenantSection.model_fields["priority"].description
    )
    weight: float | None = _told(schema.TenantSection, "weight")
    caps: CapsFields | None = Field(None, description="Limits.")
    isolation: Isolation | None = Field(
        None, strict=False, description=schema.TenantSection.model_fields["isolation"].description
    )
    adapter_sources: list[str] | None = _told(schema.TenantSection, "adapter_sources")
    budget: BudgetFields | None = _told(schema.TenantSection, "budget")
    prices: PricesFields | None = _told(schema.TenantSection, "prices")
    request_limits: dict[Annotated[str, Field(max_length=100)], int] | None = _told(
        schema.TenantSection, "request_limits"
    )
    pools: list[Name] | None = Field(
        None, description="Pools that serve it; default: the only shared one of each of its base models."
    )

    def values(self) -> dict[str, Any]:
        """Return the values that were given, by their paths."""
        given = self.model_dump(mode="json", include=set(TenantFields.model_fields), exclude_unset=True)
        return flat(given)


class NewTenantBody(TenantFields):
    """A tenant to admit."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "new-tenant",
                "like": "example",
                "key": True,
                "models": {"chat": "llama-3-8b"},
            }
        }
    )

    name: Annotated[Name, Field(description="Name of the tenant.", examples=["new-tenant"])]
    like: Name | None = Field(
        None, description="Another tenant whose settings it gets: no key, nothing used, no adapter."
    )
    key: bool = Field(False, description="Make its first key, which calls its models.")


class ChangeTenantBody(TenantFields):
    """Values to set at run time."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"caps": {"requests_per_minute": 120}, "revision": 3}}
    )

    reset: Paths = Field(default_factory=list)
    revision: int | None = Field(
        None, ge=0, description="`revision` as last seen; another one since is a 409. Default: no matter."
    )


class AliasBody(Body):
    """What an alias stands for."""

    model_config = ConfigDict(json_schema_extra={"example": {"model": "support-v7"}})

    model: Annotated[
        Alias, Field(description="An adapter of the tenant's own, or a model that the fleet gives it.")
    ]


class DryRunQuery(QueryPart):
    """Whether anything is changed."""

    dry_run: bool = Field(False, description="Check and tell what would change, and change nothing.")


class RemovalQuery(DryRunQuery):
    """What is known of the tenant to remove."""

    revision: int | None = Field(
        None, ge=0, description="`revision` as last seen; another one since is a 409. Default: no matter."
    )

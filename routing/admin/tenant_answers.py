"""The admin API's answers about tenants and aliases; pure. No key but a new one, and no hash of one."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from fleet.types import Band, Isolation, Tenant
from routing.admin.key_answers import NewKeyAnswer, key_answer
from routing.admin.scheduler_answers import Shape
from routing.catalog.entries import Alias
from routing.lifecycle.tenant_ports import TenantChanged, TenantView, ToldValue, ValueSource


class CapsAnswer(Shape):
    """Limits of one tenant; null: no such cap."""

    max_concurrency: int = Field(description="Sequences in flight, all models together.")
    max_concurrency_per_model: int | None
    max_queued: int = Field(description="Requests that wait.")
    max_queued_tokens: int | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    queue_timeout_s: float = Field(description="Longest wait in the gateway.")


class TenantAnswer(BaseModel):
    """One tenant; no key and no hash of one."""

    name: str = Field(examples=["example"])
    band: Band
    weight: float = Field(description="Share among tenants of its band that wait.")
    isolation: Isolation
    models: dict[str, str] = Field(description="Its name for a model: adapter or base model.")
    fallbacks: dict[str, str] = Field(description="Its name for a model: which other one answers for it.")
    default_model: str | None
    declared_keys: int = Field(description="API keys in fleet.yaml; those made later are at /admin/v1/keys.")
    caps: CapsAnswer
    suspended: bool = Field(description="Its keys are refused.")


class TenantList(BaseModel):
    """Every tenant that the caller may see."""

    object: str = "list"
    data: list[TenantAnswer]


class ValueAnswer(BaseModel):
    """One value of a tenant, and what it comes from."""

    path: str = Field(description="Its keys in a fleet file, by dots.", examples=["caps.requests_per_minute"])
    value: Any
    source: ValueSource = Field(description="Run time wins over fleet.yaml, and that over the default.")
    at: float | None = Field(description="Unix time at which it was set at run time.")
    by: str | None = Field(description="Who set it at run time.")
    declared: Any = Field(description="What fleet.yaml says, where it was set at run time; null: nothing.")


class AliasAnswer(BaseModel):
    """A tenant's name for a model, set at run time."""

    tenant: str = Field(examples=["example"])
    alias: str = Field(examples=["chat"])
    model: str = Field(examples=["support-v7"])
    changed_at: float = Field(description="Unix time.")
    changed_by: str


class AliasList(BaseModel):
    """A tenant's own aliases."""

    object: str = "list"
    data: list[AliasAnswer]


class TenantDetail(BaseModel):
    """One tenant as it counts now, and as it came to be."""

    name: str = Field(examples=["example"])
    state: str = Field(description="active, suspended, removed, or not applied: `problems` says why.")
    declared: bool = Field(description="A tenant of this name is in fleet.yaml.")
    admitted: bool = Field(description="It was admitted at run time.")
    generation: int = Field(description="Tenants of this name that were removed before it.")
    account: str = Field(description="The name under which the ledger counts it.")
    revision: int = Field(description="Grows with each change at run time; 0: there was none.")
    changed_at: float | None = Field(description="Unix time of the last change.")
    changed_by: str | None
    values: list[ValueAnswer]
    problems: list[str] = Field(description="Why its changes are kept and not applied.")
    aliases: list[AliasAnswer] = Field(description="Its own, beside those among the values.")


class TenantChangedAnswer(BaseModel):
    """A change of a tenant, done or as it would be."""

    tenant: TenantDetail
    dry_run: bool = Field(description="Nothing was changed.")
    words: list[str] = Field(description="For people.", examples=[["requests_per_minute 60 -> 120"]])
    changes: dict[str, list[Any]] = Field(description="Path -> before, after.")
    key: NewKeyAnswer | None = Field(description="Its first key, shown in this answer alone.")


def tenant_answer(tenant: Tenant) -> TenantAnswer:
    """Describe a tenant."""
    return TenantAnswer(
        name=tenant.name,
        band=tenant.band,
        weight=tenant.weight,
        isolation=tenant.isolation,
        models=tenant.models,
        fallbacks=dict(tenant.fallbacks),
        default_model=tenant.default_model,
        declared_keys=len(tenant.key_hashes),
        caps=CapsAnswer.model_validate(tenant.caps),
        suspended=tenant.suspended,
    )


def detail_answer(view: TenantView) -> TenantDetail:
    """Describe a tenant with what its values come from."""
    change = view.change
    return TenantDetail(
        name=view.name,
        state=_state(view),
        declared=view.declared,
        admitted=change.admitted,
        generation=change.generation,
        account=view.account,
        revision=change.revision,
        changed_at=change.changed_s if change.revision else None,
        changed_by=change.changed_by if change.revision else None,
        values=[_value(value) for value in view.values],
        problems=list(view.problems),
        aliases=[alias_answer(alias) for alias in view.aliases],
    )


def changed_answer(changed: TenantChanged, *, dry_run: bool) -> TenantChangedAnswer:
    """Describe a change."""
    key = None
    if changed.key is not None:
        secret, made = changed.key
        key = NewKeyAnswer(**key_answer(made, None).model_dump(), key=secret)
    return TenantChangedAnswer(
        tenant=detail_answer(changed.view),
        dry_run=dry_run,
        words=list(changed.words),
        changes={path: list(pair) for path, pair in changed.differences.items()},
        key=key,
    )


def alias_answer(alias: Alias) -> AliasAnswer:
    """Describe an alias."""
    return AliasAnswer(
        tenant=alias.tenant,
        alias=alias.alias,
        model=alias.model,
        changed_at=alias.changed_s,
        changed_by=alias.changed_by,
    )


def _state(view: TenantView) -> str:
    if view.change.removed:
        return "removed"
    if view.tenant is None:
        return "not applied"
    return "suspended" if view.tenant.suspended else "active"


def _value(told: ToldValue) -> ValueAnswer:
    return ValueAnswer(
        path=told.path,
        value=told.value,
        source=told.source,
        at=told.at_s,
        by=told.by,
        declared=told.declared,
    )

"""The route that lists tenants with their models and caps, as fleet.yaml declares them.

A tenant's key sees its own tenant.
"""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from fleet.types import Band, Isolation, Tenant
from routing.admin.access import CallerHere
from routing.admin.scheduler_answers import Shape

router = APIRouter(prefix="/admin/v1/tenants", tags=["tenants"])


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


class TenantList(BaseModel):
    """Every tenant that the caller may see."""

    object: str = "list"
    data: list[TenantAnswer]


@router.get("")
async def list_tenants(caller: CallerHere) -> TenantList:
    """List the tenants with their models and caps. A tenant's key sees its own tenant alone."""
    tenants = [
        tenant
        for tenant in caller.services.management.tenants()
        if caller.is_operator or tenant.name == caller.identity.tenant
    ]
    return TenantList(data=[tenant_answer(tenant) for tenant in sorted(tenants, key=lambda t: t.name)])


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
    )

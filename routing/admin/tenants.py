"""The routes for tenants: list, show, admit, change, suspend, resume, remove.

A tenant's key sees its own tenant in the list; all else is for operators.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi import Path as InPath

from fleet.fields import Name
from routing.admin.access import CallerHere, Operator
from routing.admin.errors import refusals
from routing.admin.tenant_answers import (
    TenantChangedAnswer,
    TenantDetail,
    TenantList,
    changed_answer,
    detail_answer,
    tenant_answer,
)
from routing.admin.tenant_bodies import ChangeTenantBody, DryRunQuery, NewTenantBody, RemovalQuery

router = APIRouter(prefix="/admin/v1/tenants", tags=["tenants"])
TenantName = Annotated[Name, InPath(description="Name of the tenant.", examples=["example"])]
DryRun = Annotated[DryRunQuery, Query()]
CHANGES = refusals(404, 408, 409, 413, 415, 503)


@router.get("")
async def list_tenants(caller: CallerHere) -> TenantList:
    """List the tenants with their models and caps, as they count now. A tenant's key sees its own alone."""
    tenants = [
        tenant
        for tenant in caller.services.management.tenants()
        if caller.is_operator or tenant.name == caller.identity.tenant
    ]
    return TenantList(data=[tenant_answer(tenant) for tenant in sorted(tenants, key=lambda t: t.name)])


@router.get("/{name}", responses=refusals(404))
async def show_tenant(name: TenantName, operator: Operator) -> TenantDetail:
    """Show one tenant, each value with what it comes from; also one that was removed."""
    return detail_answer(operator.services.management.tenancy.show(name))


@router.post("", status_code=201, responses=CHANGES)
async def create_tenant(body: NewTenantBody, query: DryRun, operator: Operator) -> TenantChangedAnswer:
    """Admit a tenant. It counts at once, and after a restart."""
    changed = await operator.services.management.tenancy.create(
        body.name, body.values(), like=body.like, key=body.key, dry_run=query.dry_run
    )
    return changed_answer(changed, dry_run=query.dry_run)


@router.patch("/{name}", responses=CHANGES)
async def change_tenant(
    name: TenantName, body: ChangeTenantBody, query: DryRun, operator: Operator
) -> TenantChangedAnswer:
    """Set values of a tenant; they count from its next request on, and win over fleet.yaml's."""
    changed = await operator.services.management.tenancy.set(
        name, body.values(), reset=body.reset, revision=body.revision, dry_run=query.dry_run
    )
    return changed_answer(changed, dry_run=query.dry_run)


@router.post("/{name}/suspend", responses=refusals(404, 503))
async def suspend_tenant(name: TenantName, query: DryRun, operator: Operator) -> TenantChangedAnswer:
    """Refuse a tenant's keys and what waits of it; what runs ends, and nothing is deleted."""
    changed = await operator.services.management.tenancy.suspend(name, dry_run=query.dry_run)
    return changed_answer(changed, dry_run=query.dry_run)


@router.post("/{name}/resume", responses=refusals(404, 503))
async def resume_tenant(name: TenantName, query: DryRun, operator: Operator) -> TenantChangedAnswer:
    """Take a suspended tenant's keys again."""
    changed = await operator.services.management.tenancy.resume(name, dry_run=query.dry_run)
    return changed_answer(changed, dry_run=query.dry_run)


@router.delete("/{name}", responses=refusals(404, 409, 503))
async def remove_tenant(
    name: TenantName, query: Annotated[RemovalQuery, Query()], operator: Operator
) -> TenantChangedAnswer:
    """Remove a tenant with its keys and adapters; what runs ends, and the ledger keeps what it used."""
    changed = await operator.services.management.tenancy.remove(
        name, revision=query.revision, dry_run=query.dry_run
    )
    return changed_answer(changed, dry_run=query.dry_run)

"""The routes for a tenant's own aliases: list, set, remove. Its `adapters` keys and operators may."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi import Path as InPath

from fleet.fields import Alias
from routing.admin.access import Caller, CallerHere
from routing.admin.bodies import TenantQuery
from routing.admin.errors import refusals
from routing.admin.tenant_answers import AliasAnswer, AliasList, alias_answer
from routing.admin.tenant_bodies import AliasBody
from routing.errors import InvalidRequest

router = APIRouter(prefix="/admin/v1/aliases", tags=["aliases"])
# It may have slashes of its own.
AliasName = Annotated[Alias, InPath(description="The alias.", examples=["chat"])]
Whose = Annotated[TenantQuery, Query()]


@router.get("", responses=refusals(404))
async def list_aliases(query: Whose, caller: CallerHere) -> AliasList:
    """List a tenant's own aliases; those of its entry in fleet.yaml are not among them."""
    found = caller.services.management.aliases.list(_tenant(caller, query))
    return AliasList(data=[alias_answer(alias) for alias in found])


@router.put("/{name:path}", responses=refusals(404, 408, 409, 413, 415, 503))
async def set_alias(name: AliasName, body: AliasBody, query: Whose, caller: CallerHere) -> AliasAnswer:
    """Have an alias stand for an adapter of the tenant's own, or for another model that it may call.

    It counts from the next request on. Names that the fleet gives the tenant cannot be taken.
    """
    return alias_answer(
        await caller.services.management.aliases.put(_tenant(caller, query), name, body.model)
    )


@router.delete("/{name:path}", responses=refusals(404, 503))
async def remove_alias(name: AliasName, query: Whose, caller: CallerHere) -> AliasAnswer:
    """Remove an alias at once. Returns what it stood for."""
    return alias_answer(await caller.services.management.aliases.remove(_tenant(caller, query), name))


def _tenant(caller: Caller, query: TenantQuery) -> str:
    """Return whose aliases are meant. Raises `InvalidRequest`, `NotFound`."""
    owner = caller.owner(query.tenant)
    if owner is None:
        raise InvalidRequest(
            "Name the tenant whose alias it is.", param="tenant", code="missing_required_parameter"
        )
    return caller.known_tenant(owner)

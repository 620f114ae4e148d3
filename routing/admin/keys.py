"""The routes for API keys: list, make, revoke. A tenant's key lists those of its tenant."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi import Path as InPath

from routing.admin.access import CallerHere, Operator
from routing.admin.answers import KeyAnswer, KeyList, NewKeyAnswer, declared_key_answer, key_answer
from routing.admin.bodies import NewKeyBody, TenantQuery
from routing.admin.errors import refusals

router = APIRouter(prefix="/admin/v1/keys", tags=["keys"])

KeyId = Annotated[str, InPath(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="`id` of the key.")]


@router.get("", responses=refusals(404))
async def list_keys(query: Annotated[TenantQuery, Query()], caller: CallerHere) -> KeyList:
    """List keys, revoked and expired ones too, and those of fleet.yaml beside them.

    A tenant's key sees those of its tenant.
    """
    tenant = caller.tenant_meant(query.tenant)
    made, declared = caller.services.management.keys(), caller.services.management.declared_keys()
    return KeyList(
        data=[key_answer(key) for key in made if tenant in (None, key.tenant)],
        declared=[declared_key_answer(key) for key in declared if tenant in (None, key.tenant)],
    )


@router.post("", status_code=201, responses=refusals(404, 408, 413, 415, 503))
async def create_key(body: NewKeyBody, operator: Operator) -> NewKeyAnswer:
    """Make a key. It opens at once, and is shown in this answer alone."""
    tenant = None if body.tenant is None else operator.known_tenant(body.tenant)
    expires_s = None if body.expires_in_s is None else time.time() + body.expires_in_s
    secret, key = await operator.services.management.create_key(
        body.role, tenant, note=body.note, expires_s=expires_s
    )
    return NewKeyAnswer(**key_answer(key).model_dump(), key=secret)


@router.delete("/{id}", responses=refusals(404, 503))
async def revoke_key(id: KeyId, operator: Operator) -> KeyAnswer:
    """Make a key useless at once."""
    return key_answer(await operator.services.management.revoke_key(id))

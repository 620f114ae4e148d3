"""The routes for API keys: list, make, change, revoke. A tenant's key lists those of its tenant."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi import Path as InPath

from fleet.types import KeyLimits
from routing.admin.access import Caller, CallerHere, Operator
from routing.admin.bodies import KeyChangeBody, KeyLimitsBody, NewKeyBody, TenantQuery
from routing.admin.errors import refusals
from routing.admin.key_answers import (
    KeyAnswer,
    KeyList,
    NewKeyAnswer,
    declared_key_answer,
    key_answer,
)
from routing.usage.budget import BudgetStatus

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
        data=[key_answer(key, _budget(caller, key.id)) for key in made if tenant in (None, key.tenant)],
        declared=[
            declared_key_answer(key, _budget(caller, key.fingerprint))
            for key in declared
            if tenant in (None, key.tenant)
        ],
    )


@router.post("", status_code=201, responses=refusals(404, 408, 413, 415, 503))
async def create_key(body: NewKeyBody, operator: Operator) -> NewKeyAnswer:
    """Make a key. It opens at once, and is shown in this answer alone."""
    tenant = None if body.tenant is None else operator.known_tenant(body.tenant)
    expires_s = None if body.expires_in_s is None else time.time() + body.expires_in_s
    limits = None if body.limits == KeyLimitsBody() else KeyLimits(**body.limits.model_dump())
    secret, key = await operator.services.management.create_key(
        body.role, tenant, note=body.note, expires_s=expires_s, limits=limits
    )
    return NewKeyAnswer(**key_answer(key, _budget(operator, key.id)).model_dump(), key=secret)


@router.patch("/{id}", responses=refusals(404, 408, 409, 413, 415, 503))
async def change_key(id: KeyId, body: KeyChangeBody, operator: Operator) -> KeyAnswer:
    """Change limits of a key that calls models. They hold from the next request on.

    A monthly limit counts what the key has used of the month already; that is known after a second.
    """
    limits = body.limits.model_dump(exclude_unset=True)
    key = await operator.services.management.set_key_limits(id, limits)
    return key_answer(key, _budget(operator, key.id))


@router.delete("/{id}", responses=refusals(404, 503))
async def revoke_key(id: KeyId, operator: Operator) -> KeyAnswer:
    """Make a key useless at once."""
    key = await operator.services.management.revoke_key(id)
    return key_answer(key, _budget(operator, key.id))


def _budget(caller: Caller, key: str) -> BudgetStatus | None:
    return caller.services.ledger.key_budgets.status(key, time.time())

"""The route that says whose key a request has, so that a page can offer what that key may do."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from routing.admin.access import CallerHere
from routing.catalog.entries import KeyRole

router = APIRouter(prefix="/admin/v1/whoami", tags=["callers"])


class WhoAmIAnswer(BaseModel):
    """The caller, as the admin API knows it."""

    object: Literal["caller"] = "caller"
    role: KeyRole = Field(description="operator: everything; adapters: what belongs to its tenant.")
    tenant: str | None = Field(description="null: an operator.", examples=["example"])
    user: str | None = Field(description="Whom a proxy has signed in; null: there is a key.")


@router.get("")
async def show_caller(caller: CallerHere) -> WhoAmIAnswer:
    """Show the role and the tenant of the request's key, or of the user whom a proxy has signed in."""
    identity = caller.identity
    return WhoAmIAnswer(role=identity.role, tenant=identity.tenant, user=identity.user)

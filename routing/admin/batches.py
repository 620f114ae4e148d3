"""The route for batches: how far each is. A tenant's key sees its tenant's."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from fleet.fields import Name
from routing.admin.access import CallerHere
from routing.admin.bodies import QueryPart
from routing.admin.errors import refusals

router = APIRouter(prefix="/admin/v1/batches", tags=["batches"])
Status = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]


class BatchesQueryPart(QueryPart):
    """Whose batches, and how many."""

    tenant: Name | None = Field(None, description="Only this tenant's.", examples=["example"])
    limit: int = Field(100, ge=1, le=1000, description="At most so many, the newest first.")


class BatchCounts(BaseModel):
    """Lines of a batch."""

    total: int = Field(description="0 until its file was looked through.")
    completed: int
    failed: int


class BatchProgress(BaseModel):
    """One batch. Nothing of what its lines say is told."""

    id: str = Field(examples=["batch_0123456789abcdef0123456789abcdef"])
    tenant: str = Field(description="Its account: the name, and a number where others had it before.")
    endpoint: str = Field(examples=["/v1/chat/completions"])
    status: Status
    created_at: int = Field(description="Unix time.")
    expires_at: int
    request_counts: BatchCounts
    reason: str | None = Field(description="Why it failed; null: it did not.")


class BatchList(BaseModel):
    """Batches, the newest first."""

    object: Literal["list"] = "list"
    data: list[BatchProgress]


@router.get("", responses=refusals(404, 503))
async def list_batches(query: Annotated[BatchesQueryPart, Query()], caller: CallerHere) -> BatchList:
    """List batches, the newest first, with how many of their lines have an answer."""
    meant, account = query.tenant or caller.identity.tenant, None
    if meant is not None:
        account = caller.services.management.tenancy.account(caller.known_tenant(meant))
    found = await caller.services.batches.progress(account, query.limit)
    return BatchList(data=[_shown(batch) for batch in found])


def _shown(batch: dict[str, Any]) -> BatchProgress:
    mistakes = (batch["errors"] or {"data": []})["data"]
    counts = BatchCounts(**batch["request_counts"])
    told = {name: batch[name] for name in ("id", "tenant", "endpoint", "status", "created_at", "expires_at")}
    return BatchProgress(**told, request_counts=counts, reason=mistakes[0]["message"] if mistakes else None)

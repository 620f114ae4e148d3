"""The route that lists events: what happened to tenants, aliases, adapters, rollouts, keys and replicas."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from fleet.fields import Name
from routing.admin.access import CallerHere
from routing.admin.answers import EventList, event_answer
from routing.admin.errors import refusals

router = APIRouter(prefix="/admin/v1/events", tags=["events"])


class EventQuery(BaseModel):
    """Which events."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(100, ge=1, le=1000, description="At most this number.")
    before: int | None = Field(
        None, ge=1, le=2**63 - 1, description="`id` of the last event seen, to go on behind it."
    )
    tenant: Name | None = Field(None, description="Only events of this tenant.", examples=["example"])
    since: float | None = Field(None, ge=0, le=1e12, description="Only events since this Unix time.")


@router.get("", responses=refusals(404, 503))
async def list_events(query: Annotated[EventQuery, Query()], caller: CallerHere) -> EventList:
    """List what happened to tenants, aliases, adapters, rollouts, keys and replicas, the newest first.

    A tenant's own key sees what concerns its tenant.
    """
    tenant = caller.owner(query.tenant)
    events = await caller.services.management.events(
        query.limit, query.before, tenant=tenant, since_s=query.since, former=caller.is_operator
    )
    return EventList(data=[event_answer(event) for event in events])

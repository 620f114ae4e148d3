"""The route that lists events: what happened to adapters, rollouts, keys and replicas."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from routing.admin.access import Operator
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


@router.get("", responses=refusals(503))
async def list_events(query: Annotated[EventQuery, Query()], operator: Operator) -> EventList:
    """List what happened to adapters, rollouts, keys and replicas, the newest first. Operators only."""
    events = await operator.services.management.events(query.limit, query.before)
    return EventList(data=[event_answer(event) for event in events])

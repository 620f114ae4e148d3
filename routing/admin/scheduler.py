"""The route for the scheduler's state and its last decisions with their reasons. Operators only."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from fleet.fields import Name
from routing.admin.access import Operator
from routing.admin.bodies import QueryPart
from routing.admin.errors import refusals
from routing.admin.scheduler_answers import SchedulerAnswer, scheduler_answer
from routing.scheduling.decisions import KEPT

router = APIRouter(prefix="/admin/v1/scheduler", tags=["scheduler"])


class SchedulerQuery(QueryPart):
    """Which decisions are shown; the state is always shown whole."""

    decisions: int = Field(
        100, ge=0, le=KEPT, description=f"At most this number of decisions; the last {KEPT} are kept."
    )
    tenant: Name | None = Field(
        None, description="Only decisions about requests of this tenant.", examples=["example"]
    )
    request: str | None = Field(
        None, min_length=1, max_length=128, description="Only decisions about this request (`x-request-id`)."
    )


@router.get("", responses=refusals(404))
async def show_scheduler(query: Annotated[SchedulerQuery, Query()], operator: Operator) -> SchedulerAnswer:
    """Show queues, tenants' counters, leases, health and limits of every pool, and the last decisions."""
    tenant = None if query.tenant is None else operator.known_tenant(query.tenant)
    report = operator.services.management.scheduler()
    found = (
        decision
        for decision in report.decisions
        if (tenant is None or decision.tenant == tenant)
        and (query.request is None or decision.request_id == query.request)
    )
    return scheduler_answer(report, islice(found, query.decisions))

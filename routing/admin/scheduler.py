"""The route for the scheduler's state and its last decisions with their reasons. Operators only."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from fleet.fields import Name
from routing.admin.access import Operator
from routing.admin.bodies import QueryPart
from routing.admin.errors import refusals
from routing.admin.scheduler_answers import (
    SchedulerAnswer,
    TurnOfRequest,
    scheduler_answer,
    wait_for_a_turn,
)
from routing.scheduling.decisions import KEPT, Decision

CLOCKS_S = 0.05  # by which two clocks may differ that are read one after the other
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
    """Show queues, tenants' counters, leases, health and limits of every pool, and the last decisions.

    With `request`, the turn that it waited for too.
    """
    tenant = None if query.tenant is None else operator.known_tenant(query.tenant)
    report = operator.services.management.scheduler()
    found = [
        decision
        for decision in report.decisions
        if (tenant is None or decision.tenant == tenant)
        and (query.request is None or decision.request_id == query.request)
    ]
    turns = _turns(operator, found, report.now_s) if query.request is not None else []
    return scheduler_answer(report, found[: query.decisions], turns)


def _turns(operator: Operator, decisions: Sequence[Decision], now_s: float) -> list[TurnOfRequest]:
    """Tell which turn one request waited for, if it did; `now_s` is monotonic."""
    found = wait_for_a_turn(decisions, now_s)
    if found is None:
        return []
    queued, until_s = found
    unix_s = time.time()
    report, ahead_s = operator.services.management.models.report(), unix_s - now_s
    from_s, to_s = queued.at_s + ahead_s, until_s + ahead_s + CLOCKS_S
    events = report.while_waiting(queued.pool, queued.base_model, from_s, to_s)
    return [TurnOfRequest.model_validate({"ago_s": max(0.0, unix_s - e.at_s), **asdict(e)}) for e in events]

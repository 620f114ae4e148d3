"""The scheduler's state and last decisions as an answer of the admin API; pure.

Pools are shown as `routing.scheduling.report` declares them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from routing.scheduling.decisions import Action, Decision
from routing.scheduling.report import PoolReport, SchedulerReport

# Microseconds are more than any clock here is good for, and nobody wants to read sixteen digits.
Rounded = Annotated[float, AfterValidator(lambda value: round(value, 6))]


class Shape(BaseModel):
    """A part of the answer."""

    model_config = ConfigDict(from_attributes=True)


class DecisionAnswer(BaseModel):
    """One decision about one request."""

    ago_s: Rounded = Field(description="How long ago.")
    action: Action = Field(
        description="granted a replica, queued, rejected before it was queued, expired in the queue; "
        "draining: a slot is being drained for it."
    )
    reason: str = Field(
        description="granted: what spoke for the replica. queued: why it waits. rejected, expired: the "
        "code that the client got. draining: whose slot it is.",
        examples=["no_slot"],
    )
    request_id: str
    tenant: str = Field(examples=["example"])
    model: str = Field(description="As the tenant calls it.", examples=["support"])
    pool: str = Field(examples=["shared"])
    replica: str | None = Field(description="Where it was granted, or where a slot is drained.")
    waited_s: Rounded = Field(description="How long it had waited by then.")


class SchedulerAnswer(BaseModel):
    """Everything the scheduler of this gateway holds."""

    pools: list[PoolReport]
    decisions: list[DecisionAnswer] = Field(
        description="The newest first, of those that were asked for and are still remembered."
    )


def decision_answer(decision: Decision, now_s: float) -> DecisionAnswer:
    """Describe a decision as it is seen at this monotonic time."""
    return DecisionAnswer(
        ago_s=now_s - decision.at_s,
        action=decision.action,
        reason=decision.reason,
        request_id=decision.request_id,
        tenant=decision.tenant,
        model=decision.model,
        pool=decision.pool,
        replica=decision.replica,
        waited_s=decision.waited_s,
    )


def scheduler_answer(report: SchedulerReport, decisions: Iterable[Decision]) -> SchedulerAnswer:
    """Describe the scheduler's state, and these decisions."""
    return SchedulerAnswer(
        pools=list(report.pools),
        decisions=[decision_answer(decision, report.now_s) for decision in decisions],
    )

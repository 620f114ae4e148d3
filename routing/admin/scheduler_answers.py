"""The scheduler's state and last decisions as an answer of the admin API; pure.

Pools are shown as `routing.scheduling.report` declares them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from routing.scheduling.decisions import Action, Decision
from routing.scheduling.filters import WaitReason
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
    base_model: str = Field(description="What serves it, by itself or with an adapter.", examples=["llama-3"])
    pool: str = Field(examples=["shared"])
    replica: str | None = Field(description="Where it was granted, or where a slot is drained.")
    waited_s: Rounded = Field(description="How long it had waited by then.")


class TurnOfRequest(Shape):
    """What happened with the turn that a request waited for."""

    ago_s: Rounded = Field(description="How long ago.")
    host: str = Field(description="Empty: `held`, which is said of no host.", examples=["mesh-0"])
    model: str = Field(description="The base model whose turn it is about.", examples=["llama-3-8b"])
    instead_of: str | None = Field(description="The model that goes for it.")
    what: str = Field(
        description="`held`: why it does not come, from then on; the others as in `/admin/v1/models`.",
        examples=["held"],
    )
    why: str = Field(description="Of a failure, the engine's or the host's words.", examples=["young"])
    took_s: Rounded = Field(description="From the order until it took requests, where it came awake.")
    way: str = Field(description="How it came awake, as its host says.", examples=["cold"])


class SchedulerAnswer(BaseModel):
    """Everything the scheduler of this gateway holds."""

    pools: list[PoolReport]
    decisions: list[DecisionAnswer] = Field(
        description="The newest first, of those that were asked for and are still remembered."
    )
    turns: list[TurnOfRequest] = Field(
        description="Where one `request` is asked for that waited for a model on disk: that model's turn, "
        "the oldest first."
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
        base_model=decision.base_model,
        pool=decision.pool,
        replica=decision.replica,
        waited_s=decision.waited_s,
    )


def scheduler_answer(
    report: SchedulerReport, decisions: Iterable[Decision], turns: Iterable[TurnOfRequest] = ()
) -> SchedulerAnswer:
    """Describe the scheduler's state, these decisions, and the turn that they waited for."""
    return SchedulerAnswer(
        pools=list(report.pools),
        decisions=[decision_answer(decision, report.now_s) for decision in decisions],
        turns=list(turns),
    )


def wait_for_a_turn(decisions: Sequence[Decision], now_s: float) -> tuple[Decision, float] | None:
    """Return the decision by which a request began to wait for its model's turn, and when that wait ended.

    `decisions` are its own, the newest first; times are monotonic. None where it waited for none.
    """
    queued = next((d for d in reversed(decisions) if d.reason == WaitReason.ASLEEP), None)
    if queued is None:
        return None
    after = (d.at_s for d in reversed(decisions) if d.at_s >= queued.at_s and d.action is not Action.QUEUED)
    return queued, next(after, now_s)

"""The scheduler's state and last decisions as an answer of the admin API; pure.

Fields have the names of `routing.scheduling.report`, and are read from its values; a replica is shown as
`routing.scheduling.replica_figures` declares it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fleet.types import Band
from routing.scheduling.decisions import Action, Decision
from routing.scheduling.replica_figures import ReplicaReport
from routing.scheduling.report import SchedulerReport

# Microseconds are more than any clock here is good for, and nobody wants to read sixteen digits.
Rounded = Annotated[float, AfterValidator(lambda value: round(value, 6))]


class Shape(BaseModel):
    """A part of the answer."""

    model_config = ConfigDict(from_attributes=True)


class TenantService(Shape):
    """One tenant that has something in a pool."""

    name: str = Field(examples=["example"])
    band: Band = Field(description="Higher bands are served first.")
    weight: Rounded = Field(description="Share among the tenants of its band.")
    service_tokens: Rounded = Field(
        description="Virtual counter: service it had, by weight, in prompt tokens' worth. Who has least is "
        "next; only differences mean anything."
    )
    queued: int = Field(description="Requests that wait.")
    users: int = Field(description="Users of whom requests wait; 0: since the queue began none was named.")
    tickets: int = Field(description="Requests that wait or run.")
    slots: int = Field(description="Slots it holds on these replicas.")
    floods: bool = Field(description="It asks for far more than others, so that these are kept some room.")
    mean_completion_tokens: Rounded = Field(description="Of its requests lately; what the next is taken for.")


class LaneAnswer(Shape):
    """What waits for one adapter, or for the base model."""

    engine_model: str = Field(
        description="The engine's name of the adapter's version, or the base model.",
        examples=["example/support@1a2b3c4d5e6f7890"],
    )
    queued: int
    oldest_s: Rounded = Field(description="How long the first of them has waited.")
    held: str = Field(description="Why that one had to wait, when it came.", examples=["no_slot"])


class PoolAnswer(Shape):
    """One base model of a pool; a pool with several base models is listed once for each."""

    name: str = Field(examples=["shared"])
    base_model: str = Field(description="What these replicas serve.", examples=["llama-3-8b"])
    ttft_slo_s: float | None = Field(description="Objective: arrival to first token; null: none.")
    itl_slo_s: float | None = Field(description="Objective: between two tokens of a stream; null: none.")
    queued_by_band: dict[str, int] = Field(
        description="Requests that wait, by band.", examples=[{"high": 0, "standard": 12, "low": 3}]
    )
    work_per_s: Rounded | None = Field(
        description="Work done per second while somebody waits, in prompt tokens' worth; waits are "
        "forecast from it. null: nobody has waited yet."
    )
    slots_per_s: Rounded | None = Field(
        description="Slots that pass to a waiting adapter per second; null: nobody has waited for one yet."
    )
    replicas: list[ReplicaReport]
    tenants: list[TenantService] = Field(description="Those that have something waiting or running here now.")
    lanes: list[LaneAnswer] = Field(description="What waits, the longest waiting first.")


class DecisionAnswer(BaseModel):
    """One decision about one request."""

    ago_s: Rounded = Field(description="How long ago.")
    action: Action = Field(
        description="granted a replica, queued, rejected before it was queued, expired in the queue; "
        "clearing: a slot is being cleared for it."
    )
    reason: str = Field(
        description="granted: what spoke for the replica. queued: why it waits. rejected, expired: the "
        "code that the client got. clearing: whose slot it is.",
        examples=["no_slot"],
    )
    request_id: str
    tenant: str = Field(examples=["example"])
    model: str = Field(description="As the tenant calls it.", examples=["support"])
    pool: str = Field(examples=["shared"])
    replica: str | None = Field(description="Where it was granted, or where a slot is cleared.")
    waited_s: Rounded = Field(description="How long it had waited by then.")


class SchedulerAnswer(BaseModel):
    """Everything the scheduler of this gateway holds."""

    pools: list[PoolAnswer]
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
        pools=[PoolAnswer.model_validate(pool) for pool in report.pools],
        decisions=[decision_answer(decision, report.now_s) for decision in decisions],
    )

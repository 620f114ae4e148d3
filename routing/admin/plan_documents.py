"""What the admin API takes and shows of plans. Of a plan only what is drawn is kept; bounds are strict."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MAX_MODELS, MAX_POOLS, MAX_HOURS = 1000, 500, 24 * 31
Text = Annotated[str, StringConstraints(max_length=2000)]
Named = Annotated[str, StringConstraints(max_length=200)]
Figure = Annotated[float, Field(ge=0, le=1e15)]
Count = Annotated[int, Field(ge=0, le=10**9)]
Bytes = Annotated[int, Field(ge=0, le=10**15)]
Spread = Annotated[list[Figure], Field(min_length=3, max_length=3)]  # mean, least, most over simulated runs
Part = Annotated[float, Field(ge=0, le=1)]
Texts = Annotated[list[Text], Field(max_length=1000)]
Advice = Literal["stay", "consolidate", "split", "rearrange"]


class Drawn(BaseModel):
    """A part of a plan; what is not named here is left out."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class PlanDevices(Drawn):
    """How many devices."""

    now: Count | None = Field(description="In use today; null: no fleet was named.")
    planned: Count


class PlanWay(Drawn):
    """What another way to serve the same models would need."""

    way: Text
    devices: Count | None = Field(description="null: it cannot be; `why_not` says why.")
    money_per_hour: Figure | None
    why_not: Text


class PlanFirstTokens(Drawn):
    """First tokens of one model in another plan, simulated, s."""

    first_token_p50_s: Spread | None
    first_token_p99_s: Spread | None


class PlanModel(Drawn):
    """How one model is to be served, and what its tenants see then."""

    model: Named
    pool: Named
    served: Text
    why: Text
    requests_per_day: Figure
    objective_s: Figure | None
    missed: Text | None = Field(
        description="How far it is from its objective; null: it meets it, or has none."
    )
    in_time: Part | None
    first_token_p50_s: Spread | None = Field(description="s, simulated: mean, least and most of the runs.")
    first_token_p99_s: Spread | None
    in_the_second_plan: PlanFirstTokens | None


class PlanHeld(Drawn):
    """What a model that is awake holds of a device, bytes."""

    model: Named
    weights_bytes: Bytes
    cache_bytes: Bytes
    other_bytes: int = Field(ge=-(10**15), le=10**15, description="Slots, graphs and activations.")


class PlanMemory(Drawn):
    """What is in the memory of one device of a pool while its largest models are awake."""

    device_bytes: Bytes
    awake: Annotated[list[PlanHeld], Field(max_length=200)]
    asleep_bytes: Bytes


class PlanPool(Drawn):
    """One pool of a plan."""

    pool: Named
    strategy: Named
    models: Annotated[list[Named], Field(max_length=200)] = Field(description="Base models.")
    hosts: Count
    awake: Count
    device: Named
    profile: Named | None = Field(description="Of the MIG slice that each host is.")
    busy: Spread | None = Field(description="Part of the time that engines step, in the busiest part.")
    switching: Spread | None
    switches_per_h: Spread | None
    memory: PlanMemory
    hours: Annotated[list[Figure], Field(max_length=MAX_HOURS)] = Field(
        description="How busy each device is with full batches, hour by hour of the demand."
    )


class PlanAnswer(Drawn):
    """The answer of `tenantry plan`, as far as it is drawn."""

    source: Text = Field(description="Where the demand is from.")
    duration_s: Figure
    meets_objectives: bool
    devices: PlanDevices
    money_per_hour: Figure | None
    ways: Annotated[list[PlanWay], Field(max_length=20)]
    models: Annotated[list[PlanModel], Field(max_length=MAX_MODELS)]
    models_left_out: Count = 0
    pools: Annotated[list[PlanPool], Field(max_length=MAX_POOLS)]
    would_change: Texts
    not_known: Texts


class LookModel(Drawn):
    """A model, as planned and as measured."""

    model: Named
    requests: Count
    requests_per_day: Figure
    planned_requests_per_day: Figure | None
    first_token_p50_s: Figure | None = Field(description="s, of streams; null: none was measured.")
    first_token_p99_s: Figure | None
    planned_p50_s: Figure | None
    planned_p99_s: Figure | None
    objective_s: Figure | None
    in_time: Part | None
    is_late: bool = Field(description="It misses its objective, by more than chance.")


class LookPool(Drawn):
    """A pool of the present fleet, as measured in its busiest hour and as a pool of this name was planned."""

    pool: Named
    busy: Figure = Field(description="Part of its hosts' time in which engines ran.")
    planned_busy: Figure | None
    switching: Figure
    planned_switching: Figure | None


class LookDevices(Drawn):
    """How many devices."""

    now: Count | None
    anew: Count = Field(description="Of a plan that was made from what was measured.")


class LookAnswer(Drawn):
    """What `tenantry plan --watch` saw last."""

    from_s: Figure = Field(description="Unix time from which it measured.")
    to_s: Figure
    wish: Advice = Field(description="What this look alone would rather have.")
    advice: Advice = Field(description="What two looks in a row wished last.")
    said: Text
    devices: LookDevices
    models: Annotated[list[LookModel], Field(max_length=MAX_MODELS)]
    models_left_out: Count = 0
    pools: Annotated[list[LookPool], Field(max_length=MAX_POOLS)]
    differs: Texts = Field(description="What is far from the plan, each one sentence.")


class PublishedPlan(Drawn):
    """A plan that was published."""

    at: float = Field(description="Unix time, s.")
    actor: str = Field(examples=["key 1a2b3c4d"])
    answer: PlanAnswer


class PublishedLook(Drawn):
    """The last look at it."""

    at: float
    actor: str
    answer: LookAnswer


class PlanKept(BaseModel):
    """What is kept of plans."""

    object: Literal["plan"] = "plan"
    plan: PublishedPlan | None = Field(description="null: none was published.")
    look: PublishedLook | None = Field(description="null: nobody has watched it yet.")

"""What do operators see of the scheduler? A copy of its state at one moment; pure."""

from __future__ import annotations

from dataclasses import dataclass

from routing.scheduling.decisions import Decision
from routing.scheduling.replica_figures import ReplicaReport


@dataclass(frozen=True, slots=True)
class TenantReport:
    """One tenant that has something waiting or running."""

    name: str
    band: str
    weight: float
    service_tokens: float  # virtual counter: prompt tokens by weight; only differences mean anything
    queued: int
    users: int  # that wait, as far as they are told apart; 0: no waiting request names one
    tickets: int  # waiting or running
    slots: int  # it holds
    floods: bool  # it asks for far more than others, so some room is kept from it
    mean_completion_tokens: float


@dataclass(frozen=True, slots=True)
class LaneReport:
    """What waits for one adapter or base model."""

    engine_model: str
    queued: int
    oldest_s: float  # how long its first request has waited
    held: str  # why that one had to wait: a `WaitReason`


@dataclass(frozen=True, slots=True)
class PoolReport:
    """One base model of a pool: the replicas that serve it, and the tenants that use them."""

    name: str  # of the pool
    base_model: str
    ttft_slo_s: float | None
    itl_slo_s: float | None
    queued_by_band: dict[str, int]
    work_per_s: float | None  # work done while requests wait, in prompt tokens' worth
    slots_per_s: float | None  # slots given to requests that waited
    replicas: tuple[ReplicaReport, ...]
    tenants: tuple[TenantReport, ...]
    lanes: tuple[LaneReport, ...]  # the longest waiting first


@dataclass(frozen=True, slots=True)
class SchedulerReport:
    """Everything the scheduler of one gateway holds."""

    now_s: float  # monotonic, as the decisions' `at_s`
    pools: tuple[PoolReport, ...]
    decisions: tuple[Decision, ...]  # the newest first

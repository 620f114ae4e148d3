"""What do operators see of the scheduler? A copy of its state at one moment; pure."""

from __future__ import annotations

from dataclasses import dataclass

from routing.scheduling.decisions import Decision
from routing.scheduling.health.health import HealthSnapshot
from routing.scheduling.state import Engine


@dataclass(frozen=True, slots=True)
class LeaseReport:
    """An adapter that holds a slot because requests of it run."""

    adapter: str  # the engine's name of the version
    tenant: str
    sequences: int
    held_s: float


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """One replica as the scheduler sees it."""

    name: str
    ready: bool
    draining: bool
    failed: bool  # its engine does not start, or does not pass its self-test
    reason: str  # why it is not ready, in its engine's words; for operators
    trusted: bool
    sequences: int
    capacity: int  # sequences it may have in flight now
    max_sequences: int  # what its engine runs at once
    tokens: int  # in flight, as expected
    kv_tokens: int  # what its KV cache holds; 0: not known
    itl_s: float | None  # measured between two tokens; None: no objective asks for it, or no stream yet
    slots: int
    free_slots: int
    leases: tuple[LeaseReport, ...]
    pinned: tuple[str, ...]
    resident: tuple[str, ...]  # shadow of the engine's memory, least recently used first
    clearing_for: str | None  # adapter that a slot drains for
    clearing_victim: str | None  # adapter that loses it
    health: HealthSnapshot


@dataclass(frozen=True, slots=True)
class TenantReport:
    """One tenant that has something waiting or running."""

    name: str
    band: str
    weight: float
    service_tokens: float  # virtual counter: prompt tokens by weight; only differences mean anything
    queued: int
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


def replica_report(engine: Engine, now_s: float) -> ReplicaReport:
    """Copy the state of an engine and of its replica."""
    drain = engine.slot_drain
    return ReplicaReport(
        name=engine.name,
        ready=engine.ready,
        draining=engine.replica.draining,
        failed=engine.failed,
        reason=engine.reason,
        trusted=engine.trusted,
        sequences=engine.sequences,
        capacity=engine.capacity,
        max_sequences=engine.max_sequences,
        tokens=engine.tokens,
        kv_tokens=engine.kv_tokens,
        itl_s=engine.limit.itl_s if engine.limit else None,
        slots=engine.slots,
        free_slots=engine.free_slots,
        leases=tuple(
            LeaseReport(adapter, lease.tenant, lease.sequences, now_s - lease.since_s)
            for adapter, lease in engine.leases.items()
        ),
        pinned=tuple(sorted(engine.pinned)),
        resident=tuple(engine.resident),
        clearing_for=drain.adapter if drain else None,
        clearing_victim=drain.evicted if drain else None,
        health=engine.health.snapshot(now_s),
    )

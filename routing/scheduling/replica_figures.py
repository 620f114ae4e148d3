"""Which figures does a replica have? Each is declared here, once: its name, what it means, how it is read.

Pure: values that are copied from an engine's state when somebody asks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from operator import attrgetter
from typing import Any

from routing.scheduling.figure import Gauge, figure, rounded
from routing.scheduling.health.health import HealthSnapshot
from routing.scheduling.state import Engine


class ReplicaState(StrEnum):
    """Whether a replica gets work, and why not."""

    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"
    AWAY = "away"
    NOT_READY = "not_ready"
    NOT_TRUSTED = "not_trusted"

    @classmethod
    def of(cls, engine: Engine) -> ReplicaState:
        """Return the state of the replica in which an engine runs."""
        if engine.replica.draining:
            return cls.DRAINING
        if not engine.ready:
            if engine.failed:
                return cls.FAILED
            return cls.AWAY if engine.is_away else cls.NOT_READY
        return cls.READY if engine.trusted else cls.NOT_TRUSTED


@dataclass(frozen=True, slots=True)
class LeaseReport:
    """An adapter that holds a slot because requests of it run."""

    adapter: str = figure("The engine's name of the version.", example="example/support@1a2b3c4d5e6f7890")
    tenant: str = figure("Whose request took the slot.", example="example")
    sequences: int = figure("In flight.")
    leased_s: float = figure("How long it has leased the slot.")


@dataclass(frozen=True, slots=True)
class ReplicaFigures:
    """One replica's figures, the only place where one is declared.

    What shows replicas has them all: the answers for operators, the live snapshot, the console's types. One
    that names a gauge is on the metrics page too.
    """

    name: str = figure(example="shared-0")
    base_model: str = figure("What its engine serves.", example="llama-3-8b")
    state: ReplicaState = figure(
        "`ready`: it gets work. `draining`: an operator wants it empty, whether it answers or not. "
        "`failed`: its engine does not start, or does not pass its self-test; it is tried again. "
        "`away`: it is not there, and its pool needs no replica of so high a number now. "
        "`not_ready`: it does not answer, or has not started yet. `not_trusted`: its circuit breaker is "
        "open, since requests failed.",
        read=ReplicaState.of,
    )
    ready: bool = figure(
        "Its engine answers and has been told of its adapters.",
        Gauge("tenantry_replica_ready", "1 where the replica answers; absent between its model's turns."),
    )
    draining: bool = figure(
        "An operator wants it empty: it gets no new work.",
        Gauge("tenantry_replica_draining", "1 where an operator has drained it: no new work."),
        read=lambda engine: engine.replica.draining,
    )
    failed: bool = figure("Its engine does not start, or does not pass its self-test.")
    reason: str = figure("Why its engine is not ready, in its own words; empty: it is.")
    trusted: bool = figure("Its circuit breaker lets requests through.")
    sequences: int = figure("Sequences in flight, of all models.", Gauge("tenantry_replica_in_flight"))
    capacity: int = figure(
        "Sequences it may have in flight now (K_R), after objective, slow start and outliers.",
        Gauge("tenantry_replica_capacity"),
    )
    max_sequences: int = figure("What its engine runs at once (`max_num_seqs`).")
    tokens: int = figure(
        "Tokens in flight: prompts, and completions as they are expected.",
        Gauge("tenantry_replica_reserved_tokens"),
    )
    kv_tokens: int = figure(
        "What its KV cache holds; 0: it has not said.",
        Gauge(
            "tenantry_replica_kv_cache_tokens",
            "Tokens that its KV cache holds; absent where not known.",
            lambda tokens: tokens or None,
        ),
    )
    itl_s: float | None = figure(
        "Measured time between two tokens of a stream; null: the pool has no objective for it, or no "
        "stream has run.",
        Gauge(
            "tenantry_replica_inter_token_latency_seconds",
            "Mean time between two tokens in the last second with a stream; pools with `slo.itl_s`.",
        ),
        read=lambda engine: engine.limit and engine.limit.itl_s,
    )
    outdated: bool = figure(
        "Its engine runs with other settings than its base model has in the fleet; a restart of the pool "
        "gives it these.",
        Gauge("tenantry_replica_outdated", "1 where the engine runs with other settings than the fleet has."),
        read=attrgetter("is_outdated"),
    )
    slots: int = figure("Slots: adapters it runs at once (`max_loras`).", Gauge("tenantry_replica_slots"))
    free_slots: int = figure("Slots that no adapter holds, neither running nor pinned.")
    slot_drains_for: str | None = figure(
        "Adapter that a slot drains for; null: none does.",
        read=lambda engine: engine.slot_drain and engine.slot_drain.adapter,
    )
    slot_evicted: str | None = figure(
        "Adapter that gets nothing new here, so that its slot comes free; null: it is free, or none is "
        "promised.",
        Gauge(
            "tenantry_replica_draining_slots",
            "Slots being drained for an adapter that waits.",
            lambda adapter: int(adapter is not None),
        ),
        read=lambda engine: engine.slot_drain and engine.slot_drain.evicted,
    )

    def by_name(self) -> dict[str, Any]:
        """Return the figures alone, for a view that has them and more."""
        return {name: getattr(self, name) for name in _READERS}


@dataclass(frozen=True, slots=True)
class ReplicaReport(ReplicaFigures):
    """One replica as the scheduler sees it: its figures, and the adapters it holds."""

    leases: tuple[LeaseReport, ...] = figure(
        "Adapters that hold a slot because requests of them run.",
        Gauge("tenantry_replica_leased_slots", "Slots leased by adapters in flight.", len),
        Gauge(
            "tenantry_replica_oldest_lease_seconds",
            "How long the oldest lease has run; 0: none does.",
            lambda leases: max((lease.leased_s for lease in leases), default=0.0),
        ),
    )
    pinned: tuple[str, ...] = figure(
        "Adapters that hold a slot whether they run or not.",
        Gauge("tenantry_replica_pinned_slots", "Slots that adapters hold for good.", len),
    )
    resident: tuple[str, ...] = figure(
        "Adapters that are in its memory as the gateway believes, least recently used first.",
        Gauge(
            "tenantry_replica_resident_adapters",
            "Adapters in the engine's host memory, as the gateway believes.",
            len,
        ),
    )
    health: HealthSnapshot = figure()


_READERS = {f.name: f.metadata["read"] or attrgetter(f.name) for f in fields(ReplicaFigures)}


def replica_figures(engine: Engine) -> ReplicaFigures:
    """Read the figures of an engine and of the replica in which it runs."""
    return rounded(ReplicaFigures(**{name: read(engine) for name, read in _READERS.items()}))


def replica_report(engine: Engine, now_s: float) -> ReplicaReport:
    """Copy the state of an engine and of the replica in which it runs."""
    return ReplicaReport(
        **replica_figures(engine).by_name(),
        leases=tuple(
            rounded(LeaseReport(adapter, lease.tenant, lease.sequences, now_s - lease.since_s))
            for adapter, lease in engine.leases.items()
        ),
        pinned=tuple(sorted(engine.pinned)),
        resident=tuple(engine.resident),
        health=engine.health.snapshot(now_s),
    )

"""May this replica take this request now? Each filter answers one reason for no. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from routing.scheduling.state import ReplicaState
from routing.types import Request

Filter = Callable[[ReplicaState, Request], bool]


def is_ready(replica: ReplicaState, request: Request) -> bool:
    """The replica answers, holds the base model, and has not failed this very request."""
    return (
        replica.ready
        and replica.base_model == request.target.base_model
        and replica.name not in request.failed_on
    )


def has_room(replica: ReplicaState, request: Request) -> bool:
    """The engine would run the sequences at once; a request wider than the engine runs alone."""
    return replica.sequences == 0 or replica.sequences + request.sequences <= replica.max_sequences


def knows_adapter(replica: ReplicaState, request: Request) -> bool:
    """The engine has confirmed that it may serve this version; a new one is told it within a second."""
    adapter = request.target.adapter_id
    return adapter is None or adapter in replica.adapters


def has_slot(replica: ReplicaState, request: Request) -> bool:
    """The adapter holds a slot already, or one is free.

    vLLM skips a request whose adapter is not among the `max_loras` running ones, without aging
    (v1/core/sched/scheduler.py), so a request must never be sent to wait there.
    """
    adapter = request.target.adapter_id
    held = adapter is None or adapter in replica.leases or adapter in replica.pinned
    return held or replica.free_slots > 0


def respects_clearing(replica: ReplicaState, request: Request) -> bool:
    """A slot being cleared is not refilled by its victim, nor taken by a third adapter."""
    clearing, adapter = replica.clearing, request.target.adapter_id
    if clearing is None or adapter is None or adapter == clearing.waiting:
        return True
    if adapter == clearing.victim:
        return False
    return adapter in replica.leases or adapter in replica.pinned or replica.free_slots > 1


ELIGIBLE: Sequence[Filter] = (is_ready, knows_adapter, has_room, has_slot, respects_clearing)

"""May this replica take this request now? Each filter answers one reason for no. Pure."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from routing.scheduling.state import SPARE_LOAD, ReplicaState
from routing.types import Request

Filter = Callable[[ReplicaState, Request], bool]


class Hold(StrEnum):
    """Why a request waits: what the replica that came closest lacks. In that order."""

    NOT_READY = "not_ready"  # the engines that may serve it start, restart or do not answer
    NOT_TRUSTED = "not_trusted"  # requests have failed there; its circuit breaker is open
    ADAPTER_UNKNOWN = "adapter_unknown"  # no engine has been told of this version yet
    NO_ROOM = "no_room"  # as many sequences or tokens are in flight as may be
    ROOM_RESERVED = "room_reserved"  # its tenant floods; the rest of the batch is kept for others
    NO_SLOT = "no_slot"  # every slot is held by another adapter
    SLOT_RESERVED = "slot_reserved"  # its tenant floods; the free slots are kept for others
    SLOT_CLEARING = "slot_clearing"  # its slot is being given to an adapter that has waited longer
    SPARES_READ = "spares_read"  # another replica has the adapter in memory, and will soon have a slot
    BEHIND = "behind"  # others of its own line wait before it


def could_serve(replica: ReplicaState, request: Request) -> bool:
    """The replica takes the request as soon as its engine is ready, however long that is."""
    return not replica.draining and replica.name not in request.failed_on


def is_ready(replica: ReplicaState, request: Request) -> bool:
    """The replica takes work, and has not failed this very request."""
    return replica.accepts and replica.name not in request.failed_on


def is_trusted(replica: ReplicaState, request: Request) -> bool:
    """Its circuit breaker lets a request through."""
    return replica.trusted


def knows_adapter(replica: ReplicaState, request: Request) -> bool:
    """The engine has confirmed that it may serve this version; a new one is told it within a second."""
    adapter = request.target.adapter_id
    return adapter is None or adapter in replica.adapters


def has_room(replica: ReplicaState, request: Request) -> bool:
    """The engine would run the sequences at once, at its pace and within its KV cache."""
    return replica.has_room(request)


def has_slot(replica: ReplicaState, request: Request) -> bool:
    """The adapter holds a slot already, or one is free.

    vLLM skips a request whose adapter is not among the `max_loras` running ones, without aging
    (v1/core/sched/scheduler.py), so a request must never be sent to wait there.
    """
    adapter = request.target.adapter_id
    return adapter is None or replica.holds(adapter) or replica.free_slots > 0


def leaves_room(replica: ReplicaState, request: Request) -> bool:
    """A tenant that floods fills a replica up to a part only, beyond its fair share."""
    return _leaves_room(replica, request.target.tenant, request.sequences)


def leaves_a_slot(replica: ReplicaState, request: Request) -> bool:
    """A tenant that floods takes a part of a replica's slots only, beyond its fair share."""
    adapter = request.target.adapter_id
    if adapter is None or _leaves_a_slot(replica, request.target.tenant):
        return True
    return replica.holds(adapter) or replica.promised == adapter


def leaves_to(replica: ReplicaState, tenant: str, *, takes_slot: bool) -> bool:
    """Whether anything of a tenant may pass those two; a slot that it would take is promised to nobody."""
    return _leaves_room(replica, tenant, 1) and (not takes_slot or _leaves_a_slot(replica, tenant))


def _leaves_room(replica: ReplicaState, tenant: str, sequences: int) -> bool:
    shares = replica.shares
    if shares is None or tenant not in shares.flooding or replica.sequences == 0:
        return True
    if replica.sequences + sequences <= max(SPARE_LOAD, shares.may_fill(tenant)) * replica.capacity:
        return True
    return not shares.keeps_room_from(tenant)


def _leaves_a_slot(replica: ReplicaState, tenant: str) -> bool:
    shares = replica.shares
    if shares is None or tenant not in shares.flooding:
        return True
    if replica.slots - replica.free_slots + 1 <= shares.may_fill(tenant) * replica.slots:
        return True
    return not shares.keeps_slot_from(tenant)


def respects_clearing(replica: ReplicaState, request: Request) -> bool:
    """A slot being cleared is not refilled by its victim, nor taken by a third adapter."""
    clearing, adapter = replica.clearing, request.target.adapter_id
    if clearing is None or adapter is None or adapter == clearing.waiting:
        return True
    if adapter == clearing.victim:
        return False
    return replica.holds(adapter) or replica.free_slots > 1 or replica.promised is None


ELIGIBLE: tuple[tuple[Filter, Hold], ...] = (
    (is_ready, Hold.NOT_READY),
    (is_trusted, Hold.NOT_TRUSTED),
    (knows_adapter, Hold.ADAPTER_UNKNOWN),
    (has_room, Hold.NO_ROOM),
    (leaves_room, Hold.ROOM_RESERVED),
    (has_slot, Hold.NO_SLOT),
    (leaves_a_slot, Hold.SLOT_RESERVED),
    (respects_clearing, Hold.SLOT_CLEARING),
)

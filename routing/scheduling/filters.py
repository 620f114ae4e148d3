"""May this engine take this request now? Each filter answers one reason for no. Pure."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from routing.scheduling.state import SPARE_LOAD, Engine
from routing.types import Request

Filter = Callable[[Engine, Request], bool]


class Hold(StrEnum):
    """Why a request waits: what the engine that came closest lacks. In that order."""

    NOT_READY = "not_ready"  # the engines that may serve it start, restart or do not answer
    NOT_TRUSTED = "not_trusted"  # requests have failed there; its circuit breaker is open
    ADAPTER_UNKNOWN = "adapter_unknown"  # no engine has been told of this version yet
    NO_ROOM = "no_room"  # as many sequences or tokens are in flight as may be
    ROOM_RESERVED = "room_reserved"  # its tenant floods; the rest of the batch is kept for others
    NO_SLOT = "no_slot"  # every slot is held by another adapter
    SLOT_RESERVED = "slot_reserved"  # its tenant floods; the free slots are kept for others
    SLOT_CLEARING = "slot_clearing"  # its slot is being given to an adapter that has waited longer
    SPARES_READ = "spares_read"  # another engine has the adapter in memory, and will soon have a slot
    BEHIND = "behind"  # others of its own line wait before it


def could_serve(engine: Engine, request: Request) -> bool:
    """The engine takes the request as soon as it is ready, however long that is."""
    return not engine.replica.draining and engine.name not in request.failed_on


def is_ready(engine: Engine, request: Request) -> bool:
    """The engine takes work, and has not failed this very request."""
    return engine.accepts and engine.name not in request.failed_on


def is_trusted(engine: Engine, request: Request) -> bool:
    """Its circuit breaker lets a request through."""
    return engine.trusted


def knows_adapter(engine: Engine, request: Request) -> bool:
    """The engine has confirmed that it may serve this version; a new one is told it within a second."""
    adapter = request.target.adapter_id
    return adapter is None or adapter in engine.adapters


def has_room(engine: Engine, request: Request) -> bool:
    """The engine would run the sequences at once, at its pace and within its KV cache."""
    return engine.has_room(request)


def has_slot(engine: Engine, request: Request) -> bool:
    """The adapter holds a slot already, or one is free.

    vLLM skips a request whose adapter is not among the `max_loras` running ones, without aging
    (v1/core/sched/scheduler.py), so a request must never be sent to wait there.
    """
    adapter = request.target.adapter_id
    return adapter is None or engine.holds(adapter) or engine.free_slots > 0


def leaves_room(engine: Engine, request: Request) -> bool:
    """A tenant that floods fills an engine up to a part only, beyond its fair share."""
    return _leaves_room(engine, request.target.tenant, request.sequences)


def leaves_a_slot(engine: Engine, request: Request) -> bool:
    """A tenant that floods takes a part of an engine's slots only, beyond its fair share."""
    adapter = request.target.adapter_id
    if adapter is None or _leaves_a_slot(engine, request.target.tenant):
        return True
    return engine.holds(adapter) or engine.promised == adapter


def leaves_to(engine: Engine, tenant: str, *, takes_slot: bool) -> bool:
    """Whether anything of a tenant may pass those two; a slot that it would take is promised to nobody."""
    return _leaves_room(engine, tenant, 1) and (not takes_slot or _leaves_a_slot(engine, tenant))


def _leaves_room(engine: Engine, tenant: str, sequences: int) -> bool:
    shares = engine.shares
    if shares is None or tenant not in shares.flooding or engine.sequences == 0:
        return True
    if engine.sequences + sequences <= max(SPARE_LOAD, shares.may_fill(tenant)) * engine.capacity:
        return True
    return not shares.keeps_room_from(tenant)


def _leaves_a_slot(engine: Engine, tenant: str) -> bool:
    shares = engine.shares
    if shares is None or tenant not in shares.flooding:
        return True
    if engine.slots - engine.free_slots + 1 <= shares.may_fill(tenant) * engine.slots:
        return True
    return not shares.keeps_slot_from(tenant)


def respects_clearing(engine: Engine, request: Request) -> bool:
    """A slot being cleared is not refilled by its victim, nor taken by a third adapter."""
    clearing, adapter = engine.clearing, request.target.adapter_id
    if clearing is None or adapter is None or adapter == clearing.waiting:
        return True
    if adapter == clearing.victim:
        return False
    return engine.holds(adapter) or engine.free_slots > 1 or engine.promised is None


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

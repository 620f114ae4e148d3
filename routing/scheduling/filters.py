"""May this engine take this request? Each filter answers one reason for no. Pure.

The question has four answers, each of which includes the one before:

1. `could_serve`: ever. Where no engine could, the request is refused, else it waits.
2. `takes_work`: the engine is ready. Slots are drained where this holds; its circuit breaker is not asked,
   since a slot takes seconds to come free.
3. `may_take`: its circuit breaker lets requests through too. Worth waiting for, or asking a second time.
4. `ELIGIBLE`, all of it: it can run the request at once.

The engine alone, whatever the request, is asked with `Engine.accepts` (ready, awake, not drained) and
`has_place`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from routing.scheduling.state import Engine
from routing.scheduling.view import View
from routing.types import Request

KV_FULL = 0.9  # of the KV cache; beyond it vLLM begins to preempt, and a preempted request starts anew

Filter = Callable[[Engine, Request, View], bool]


class WaitReason(StrEnum):
    """Why a request waits: what the engine that came closest lacks. In that order."""

    ASLEEP = "asleep"  # its model is awake nowhere: it is on disk, comes, or its turn is over
    FROM_ZERO = "from_zero"  # the pool had no replica since nobody asked; the first one comes
    NOT_READY = "not_ready"  # the engines that may serve it start, restart or do not answer
    NOT_TRUSTED = "not_trusted"  # requests have failed there; its circuit breaker is open
    ADAPTER_UNKNOWN = "adapter_unknown"  # no engine has been told of this version yet
    NO_ROOM = "no_room"  # as many sequences or tokens are in flight as may be
    ROOM_RESERVED = "room_reserved"  # its tenant floods; the rest of the batch is kept for others
    NO_SLOT = "no_slot"  # every slot is held by another adapter
    SLOT_RESERVED = "slot_reserved"  # its tenant floods; the free slots are kept for others
    SLOT_DRAINING = "slot_draining"  # its slot is promised to an adapter that has waited longer
    SPARES_READ = "spares_read"  # another engine has the adapter in memory, and will soon have a slot
    BEHIND = "behind"  # others of its own flow wait before it


# -- the answers -------------------------------------------------------------------------------------------


def could_serve(engine: Engine, request: Request) -> bool:
    """The engine can serve the request once it is ready, however long that takes."""
    replica = engine.replica
    return not (replica.draining or replica.barred) and engine.name not in request.failed_on


def takes_work(engine: Engine, request: Request, view: View | None = None) -> bool:
    """The engine is ready and awake, its replica not drained, and it has not failed this very request."""
    return engine.accepts and engine.name not in request.failed_on


def may_take(engine: Engine, request: Request) -> bool:
    """The engine takes work, and its circuit breaker lets requests through."""
    return engine.trusted and takes_work(engine, request)


def has_place(engine: Engine) -> bool:
    """The engine may be given something, if it is the right thing."""
    return engine.accepts and engine.trusted and engine.sequences < engine.capacity


# -- the filters -------------------------------------------------------------------------------------------


def is_trusted(engine: Engine, request: Request, view: View) -> bool:
    """Its circuit breaker lets requests through."""
    return engine.trusted


def knows_adapter(engine: Engine, request: Request, view: View) -> bool:
    """The engine has confirmed that it may serve this version; a new one is told it within a second."""
    adapter = request.target.adapter_id
    return adapter is None or adapter in engine.adapters


def has_room(engine: Engine, request: Request, view: View) -> bool:
    """The engine could run the request now. A request wider than its capacity fits an empty engine."""
    running = engine.sequences
    if running == 0:
        return True
    if running + request.sequences > engine.capacity:
        return False
    return engine.kv_tokens == 0 or engine.tokens + request.prompt_tokens <= KV_FULL * engine.kv_tokens


def has_slot(engine: Engine, request: Request, view: View) -> bool:
    """The adapter holds a slot already, or one is free.

    vLLM skips a request whose adapter is not among the `max_loras` running ones, without aging
    (v1/core/sched/scheduler.py), so a request must never be sent to wait there.
    """
    adapter = request.target.adapter_id
    return adapter is None or engine.holds(adapter) or engine.free_slots > 0


def leaves_room(engine: Engine, request: Request, view: View) -> bool:
    """Beyond its fair share, a tenant that floods fills only a part of an engine's batch."""
    return _leaves_room(engine, request.target.tenant, request.sequences, view)


def leaves_a_slot(engine: Engine, request: Request, view: View) -> bool:
    """Beyond its fair share, a tenant that floods takes only a part of an engine's slots."""
    adapter = request.target.adapter_id
    if adapter is None or _leaves_a_slot(engine, request.target.tenant, view):
        return True
    return engine.holds(adapter) or promised_to(engine, view) == adapter


def respects_promise(engine: Engine, request: Request, view: View) -> bool:
    """A slot that drains is refilled neither by the adapter that loses it nor by a third one."""
    drain, adapter = engine.slot_drain, request.target.adapter_id
    if drain is None or adapter is None or adapter == drain.adapter:
        return True
    if adapter == drain.evicted:
        return False
    return engine.holds(adapter) or engine.free_slots > 1 or promised_to(engine, view) is None


ELIGIBLE: tuple[tuple[Filter, WaitReason], ...] = (
    (takes_work, WaitReason.NOT_READY),
    (is_trusted, WaitReason.NOT_TRUSTED),
    (knows_adapter, WaitReason.ADAPTER_UNKNOWN),
    (has_room, WaitReason.NO_ROOM),
    (leaves_room, WaitReason.ROOM_RESERVED),
    (has_slot, WaitReason.NO_SLOT),
    (leaves_a_slot, WaitReason.SLOT_RESERVED),
    (respects_promise, WaitReason.SLOT_DRAINING),
)


# -- what they ask -----------------------------------------------------------------------------------------


def promised_to(engine: Engine, view: View) -> str | None:
    """Return the adapter that the engine's next free slot is promised to.

    Where adapters of one tenant that floods take turns, only the slot that drains is promised, and not one
    that comes free before it.
    """
    drain = engine.slot_drain
    if drain is None:
        return None
    lease = engine.leases.get(drain.evicted or "")
    takes_turns = lease is not None and lease.tenant == drain.tenant
    return None if takes_turns and view.floods.keeps_slot_from(drain.tenant) else drain.adapter


def may_pass_bounds(engine: Engine, tenant: str, view: View, *, takes_slot: bool) -> bool:
    """Whether anything of a tenant could pass `leaves_room`, and also `leaves_a_slot` if it takes a slot."""
    return _leaves_room(engine, tenant, 1, view) and (not takes_slot or _leaves_a_slot(engine, tenant, view))


def _leaves_room(engine: Engine, tenant: str, sequences: int, view: View) -> bool:
    floods = view.floods
    if tenant not in floods.flooding or engine.sequences == 0:
        return True
    if engine.sequences + sequences <= floods.may_fill(tenant) * engine.capacity:
        return True
    return not floods.keeps_room_from(tenant)


def _leaves_a_slot(engine: Engine, tenant: str, view: View) -> bool:
    floods = view.floods
    if tenant not in floods.flooding:
        return True
    if engine.slots - engine.free_slots + 1 <= floods.may_fill(tenant) * engine.slots:
        return True
    return not floods.keeps_slot_from(tenant)

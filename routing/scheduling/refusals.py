"""Which error does a client get when its request cannot run, or has waited in vain? Pure.

What clients are told of engines is the same for all; the engine's own words are for operators.
"""

from __future__ import annotations

from collections.abc import Sequence

from routing.errors import (
    AccountSuspended,
    ModelMoved,
    ModelRetired,
    QueueTimeout,
    TenantRemoved,
    Unavailable,
)
from routing.scheduling.filters import could_serve
from routing.scheduling.state import Engine
from routing.types import Request

RETRY_AFTER_NO_REPLICA_S = 5.0  # an engine restarts in tens of seconds; asking every 5 s costs little
RETRY_AFTER_MOVED_S = 0.5  # at once, and not all together
RETRY_AFTER_NO_ENGINE_S = 30.0  # one that fails to start is tried again within a minute
_NOT_READY = "the engine that serves this model is not ready"
_DOES_NOT_START = (
    "the engine that serves this model does not start; its operators can see why, and it is tried again"
)


def no_replica(request: Request | None = None) -> Unavailable:
    """No replica could ever serve the request; where replicas failed on it, it is told so."""
    failed = "The engine failed on this request, and no other" if request and request.failed_on else "No"
    return Unavailable(
        f"{failed} replica that serves this model takes this request now. Try again shortly.",
        code="no_replica_ready",
        retry_after_s=RETRY_AFTER_NO_REPLICA_S,
    )


def shutting_down() -> Unavailable:
    """The gateway takes no new requests, and none that waits."""
    return Unavailable(
        "The gateway is shutting down.", code="shutting_down", retry_after_s=RETRY_AFTER_NO_REPLICA_S
    )


def tenant_removed() -> TenantRemoved:
    """The caller's tenant was removed while its request waited."""
    return TenantRemoved("The owner of this API key was removed from the service.")


def suspended() -> AccountSuspended:
    """The caller's tenant was suspended while its request waited."""
    return AccountSuspended()


def moved() -> ModelMoved:
    """The tenant was given another pool while its request waited."""
    return ModelMoved(
        "The model was moved to other engines while the request waited. Send it again.",
        retry_after_s=RETRY_AFTER_MOVED_S,
    )


def no_pool() -> ModelRetired:
    """The tenant's pool was taken away while its request waited, and no other one serves the model."""
    return ModelRetired("The model was taken out of service while the request waited.")


def does_not_start() -> Unavailable:
    """No version of the model is ready, and no engine starts that could make one so."""
    return Unavailable(
        f"The model is not ready yet: {_DOES_NOT_START}.",
        code="adapter_unavailable",
        retry_after_s=RETRY_AFTER_NO_ENGINE_S,
    )


def refuse_if_failed(engines: Sequence[Engine]) -> None:
    """Raise `Unavailable` where each of some engines fails to start.

    For a model of which no version is ready: it cannot wait, and what it waits for is an engine.
    """
    if _fail(engines):
        raise does_not_start()


def expired(request: Request, due_s: float, engines: Sequence[Engine]) -> QueueTimeout:
    """The request has waited in vain until `due_s`: for a place on an engine, or for a ready engine."""
    waited = f"The request waited {due_s - request.arrived_s:g} s"
    able = [engine for engine in engines if could_serve(engine, request)]
    if any(engine.accepts for engine in able):
        return QueueTimeout(
            f"{waited} for a free replica, the longest this tenant allows.", retry_after_s=1.0
        )
    if any(engine.may_wake for engine in able):
        return QueueTimeout(
            f"{waited}, the longest this tenant allows: the model is not loaded yet.",
            retry_after_s=RETRY_AFTER_NO_REPLICA_S,
        )
    failed = _fail(able)
    return QueueTimeout(
        f"{waited}, the longest this tenant allows: {_DOES_NOT_START if failed else _NOT_READY}.",
        retry_after_s=RETRY_AFTER_NO_ENGINE_S if failed else RETRY_AFTER_NO_REPLICA_S,
    )


def _fail(engines: Sequence[Engine]) -> bool:
    """Whether each of some engines fails to start, but for those that are away and need not come."""
    there = [engine for engine in engines if not engine.is_away]
    return bool(there) and all(engine.failed for engine in there)

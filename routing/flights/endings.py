"""How a flight ends that is ended from outside, and as what its end counts. Pure."""

from __future__ import annotations

from enum import StrEnum

from routing.errors import (
    AccountSuspended,
    EngineTimeout,
    InvalidRequest,
    ModelMoved,
    QueueTimeout,
    RequestError,
    TenantRemoved,
    Unavailable,
)
from routing.types import Outcome

CLIENT_CLOSED_REQUEST = 499  # nginx's status for it; only ever logged and counted


class Abort(StrEnum):
    """Why a flight is ended from outside."""

    CLIENT_GONE = "client_gone"
    CLIENT_STALLED = "client_stalled"  # reads nothing, but stays
    ENGINE_TIMEOUT = "engine_timeout"
    SHUTTING_DOWN = "shutting_down"


OWN_FAULT = RequestError("The gateway met an error of its own.")
ABORTED: dict[Abort, tuple[Outcome, RequestError | None]] = {
    Abort.CLIENT_GONE: (Outcome.CANCELLED, None),
    Abort.CLIENT_STALLED: (Outcome.CANCELLED, None),
    Abort.ENGINE_TIMEOUT: (
        Outcome.FAILED,
        EngineTimeout("The engine did not finish in time.", retry_after_s=1.0),
    ),
    Abort.SHUTTING_DOWN: (
        Outcome.FAILED,
        Unavailable(
            "The service shut down before the answer was complete.", code="shutting_down", retry_after_s=5.0
        ),
    ),
}


def outcome_of(error: RequestError) -> Outcome:
    """What the engine refuses was served its refusal; what the queue refuses is no fault; all else is."""
    if isinstance(error, InvalidRequest):
        return Outcome.COMPLETED
    if isinstance(error, QueueTimeout):
        return Outcome.EXPIRED
    if isinstance(error, AccountSuspended | ModelMoved | TenantRemoved):
        return Outcome.REJECTED
    return Outcome.FAILED

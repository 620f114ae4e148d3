"""Which decisions were made lately, and why? A short memory for operators. Pure: no clock, no log."""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import NamedTuple

from routing.types import Request

KEPT = 512


class Action(StrEnum):
    """A kind of decision about a request."""

    GRANTED = "granted"
    QUEUED = "queued"
    REJECTED = "rejected"
    EXPIRED = "expired"
    DRAINING = "draining"  # a slot drains for it
    FALLBACK = "fallback"  # another model is asked in the place of its own


class Decision(NamedTuple):
    """One decision. A tuple, since one is made for every request."""

    at_s: float  # monotonic
    action: Action
    reason: str
    request_id: str
    tenant: str
    model: str
    pool: str
    replica: str | None
    waited_s: float
    base_model: str


class Decisions:
    """The last `KEPT` decisions, the newest last."""

    def __init__(self) -> None:
        self._kept: deque[Decision] = deque(maxlen=KEPT)

    def add(
        self,
        at_s: float,
        request: Request,
        action: Action,
        reason: str,
        replica: str | None = None,
        waited_s: float = 0.0,
    ) -> None:
        """Remember a decision about a request; the oldest one is forgotten."""
        target = request.target
        whose = target.tenant, target.model, target.pool
        told = Decision(at_s, action, reason, request.id, *whose, replica, waited_s, target.base_model)
        self._kept.append(told)

    def last(self, count: int = KEPT) -> list[Decision]:
        """List the newest first."""
        return list(self._kept)[: -count - 1 : -1]

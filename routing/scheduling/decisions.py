"""What was decided lately, and why? A short memory for operators. Pure: no clock, no log."""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import NamedTuple

KEPT = 512


class Action(StrEnum):
    """What can be decided about a request."""

    GRANTED = "granted"
    QUEUED = "queued"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CLEARING = "clearing"  # a slot is being cleared for it


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


class Decisions:
    """The last `KEPT` decisions, the newest last."""

    def __init__(self) -> None:
        self._kept: deque[Decision] = deque(maxlen=KEPT)

    def note(self, decision: Decision) -> None:
        """Remember a decision; the oldest is forgotten."""
        self._kept.append(decision)

    def last(self, count: int = KEPT) -> list[Decision]:
        """List the newest first."""
        return list(self._kept)[: -count - 1 : -1]

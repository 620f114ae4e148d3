"""What a gateway keeps of plans: the one that was published last, and the last look at it. Values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PlanKind(StrEnum):
    """What a document is."""

    PLAN = "plan"  # the answer of `tenantry plan`
    LOOK = "look"  # what `tenantry plan --watch` saw last


@dataclass(frozen=True, slots=True)
class PlanDocument:
    """A document, as it was checked when it came."""

    kind: PlanKind
    at_s: float  # Unix time at which it came
    actor: str
    text: str  # JSON


@dataclass(frozen=True, slots=True)
class PlanFigures:
    """What the last look says in figures."""

    devices_now: int | None  # None: not known
    devices_anew: int  # of a plan that was made anew
    advice: str  # `stay` while the fleet is right
    at_s: float  # Unix time of the look

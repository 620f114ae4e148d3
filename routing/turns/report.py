"""What do operators see of turns? Copies of values; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class ModelState(StrEnum):
    """The state of a model at a host."""

    UNKNOWN = "unknown"  # its host does not answer
    ABSENT = "absent"  # its files are not here: they are fetched, or were refused
    ON_DISK = "on_disk"
    WAKING = "waking"
    AWAKE = "awake"
    DRAINING = "draining"  # its turn is over; what it runs ends
    FAILED = "failed"  # it did not come awake; it is tried again after a pause
    QUARANTINED = "quarantined"  # it did not come awake three times; an operator must wake it


@dataclass(frozen=True, slots=True)
class Absence:
    """Why a model's files are not here."""

    words: str
    for_good: bool  # nothing is under way: somebody must act


NOTHING_KNOWN = Absence("", for_good=False)


@dataclass(frozen=True, slots=True)
class ModelAtHost:
    """One model at one host."""

    pool: str
    host: str
    model: str
    state: ModelState
    since_s: float  # seconds ago
    running: int  # sequences
    waiting: int  # requests for the model, at whichever host
    oldest_s: float  # how long the first of them has waited
    pinned: bool
    held: str  # why it does not come, where requests wait; else empty
    cost_s: float | None  # from the order to the first request, as measured; None: not yet
    way: str  # how it came last
    took_s: Mapping[str, float]  # by way, as its host measured it
    memory_bytes: int  # as measured; 0: not yet
    awake_s: float  # in all since the gateway's start
    reason: str  # why it failed, in the engine's or the host's words


@dataclass(frozen=True, slots=True)
class TurnEvent:
    """One thing that was decided or has happened, for the timeline."""

    at_s: float  # Unix time
    pool: str
    host: str
    model: str  # that comes, or goes for nobody
    instead_of: str | None
    what: str  # `begins`, `awake`, `failed`, `sleeps`
    why: str
    took_s: float = 0.0
    way: str = ""


@dataclass(frozen=True, slots=True)
class TurnsReport:
    """All pools whose models take turns."""

    models: tuple[ModelAtHost, ...]
    events: tuple[TurnEvent, ...]  # the newest first


@dataclass(frozen=True, slots=True)
class WakeForecast:
    """What waking a model would do now."""

    model: str
    pool: str
    host: str | None  # None: it can come nowhere now
    instead_of: str | None
    wait_s: float | None  # until it is awake, as expected; None: unknown
    why: str
    affected: Mapping[str, int]  # requests that wait for, or run on, the model that goes

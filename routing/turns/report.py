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
    ASLEEP = "asleep"  # its engine sleeps, and has freed its device
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
    resting: Mapping[str, str]  # ways to it that are not taken now, since they have failed -> why


@dataclass(frozen=True, slots=True)
class TurnEvent:
    """One thing that was decided or has happened, for the timeline."""

    at_s: float  # Unix time
    pool: str
    host: str
    model: str  # that comes; where none comes, that it is about
    instead_of: str | None
    what: str  # `drains`, `goes_on`, `begins`, `awake`, `failed`, `sleeps`; of holds: `held`
    why: str
    took_s: float = 0.0
    way: str = ""


@dataclass(frozen=True, slots=True)
class TurnsReport:
    """All pools whose models take turns."""

    models: tuple[ModelAtHost, ...]
    events: tuple[TurnEvent, ...]  # the newest first
    holds: tuple[TurnEvent, ...] = ()  # why models had to wait, whenever that changed; the newest first

    def while_waiting(self, pool: str, model: str, from_s: float, to_s: float) -> list[TurnEvent]:
        """Tell what happened with a model's turn between two Unix times, the oldest first.

        A switch to it that was under way at the first one is part of it.
        """
        found = (e for e in (*self.events, *self.holds) if (e.pool, e.model) == (pool, model))
        mine = sorted(found, key=lambda event: event.at_s)
        begins_s = from_s
        for event in mine:
            if event.at_s < from_s:
                begins_s = event.at_s if event.what == "begins" else from_s
        return [event for event in mine if begins_s <= event.at_s <= to_s]


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

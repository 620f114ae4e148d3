"""The state of an engine and the reason of its last failure. A value that travels as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class EngineState(StrEnum):
    """The state of an engine."""

    STARTING = "starting"
    READY = "ready"  # it has passed its self-test
    FAILED = "failed"  # its last start, or its self-test, failed; it is tried again until one passes
    SILENT = "silent"  # it has passed, and gives no sign of life
    DRAINING = "draining"  # it was told to end
    STOPPED = "stopped"  # it runs nothing, and starts once it is told to: at a shared host, it is on disk


@dataclass(frozen=True, slots=True)
class Place:
    """What an engine has of a host that several base models share."""

    awake: int = 1  # base models that the host may have awake at once, now
    memory_bytes: int = 0  # that this one takes while it is awake, measured; 0: not measured yet
    way: str = ""  # how it came awake last; empty: it has not yet
    took_s: Mapping[str, float] = field(default_factory=dict)  # way -> seconds that it took last, until ready
    failed_starts: int = 0  # since the last one that did not fail
    asleep: int = 0  # the level at which its engine sleeps; 0: it does not
    asleep_bytes: int = 0  # that it takes of the device while it sleeps, measured
    resting: Mapping[str, str] = field(default_factory=dict)  # way that is not taken now -> why
    source: str = (
        ""  # where its last engine's files are, as it was told; empty: where its host knew them to be
    )

    @classmethod
    def from_json(cls, value: Any) -> Place | None:
        """Parse the JSON object; None stands for a host of one model. Raises as `EngineHealth.from_json`."""
        if value is None:
            return None
        took_s = {str(way): float(seconds) for way, seconds in dict(value["took_s"]).items()}
        return cls(
            int(value["awake"]),
            int(value["memory_bytes"]),
            str(value["way"]),
            took_s,
            int(value["failed_starts"]),
            int(value.get("asleep", 0)),
            int(value.get("asleep_bytes", 0)),
            {str(way): str(why) for way, why in dict(value.get("resting", {})).items()},
            str(value.get("source", "")),
        )


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """One engine's report on itself. Texts are for operators: they may name files of its machine."""

    state: EngineState
    reason: str = ""  # why it is not ready, in the engine's or the compiler's own words
    worker: str = ""  # random, made when the engine's worker process starts
    deaths: int = 0  # engines of this worker that died after they had passed their self-test
    last_death: str = ""  # the last one's own words
    machine_to_blame: bool = False  # no adapter can have caused the last one: no compiler, no disk
    starts: int = 0  # engines of this worker that passed their self-test
    place: Place | None = None  # None: it has its host alone

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {"ready": self.state is EngineState.READY, **asdict(self)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> EngineHealth:
        """Parse the JSON object; the state is required. Raises `KeyError`, `TypeError` or `ValueError`."""
        return cls(
            EngineState(value["state"]),
            str(value.get("reason", "")),
            str(value.get("worker", "")),
            int(value.get("deaths", 0)),
            str(value.get("last_death", "")),
            bool(value.get("machine_to_blame", False)),
            int(value.get("starts", 0)),
            Place.from_json(value.get("place")),
        )

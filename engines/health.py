"""The state of an engine and the reason of its last failure. A value that travels as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class EngineState(StrEnum):
    """The state of an engine."""

    STARTING = "starting"
    READY = "ready"  # it has passed its self-test
    FAILED = "failed"  # its last start, or its self-test, failed; it is tried again until one passes
    SILENT = "silent"  # it has passed, and gives no sign of life
    DRAINING = "draining"  # it was told to end
    STOPPED = "stopped"  # it was told to stop, and starts once it is told to


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
        )

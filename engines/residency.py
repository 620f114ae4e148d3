"""The adapters that the gateway wants in an engine, and those that are there. Values that travel as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from engines.settings import digest_of
from fleet.types import BaseModel


@dataclass(frozen=True, slots=True)
class EngineAdapter:
    """One version of an adapter as an engine knows it."""

    id: str  # vLLM's `lora_name`; differs for every content, so no cache of the engine can be stale
    digest: str  # of its files, by which the engine's host has them or gets them
    pinned: bool = False  # holds a slot for good
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DesiredAdapters:
    """Every adapter an engine may serve, most wanted first; others are removed once unused."""

    revision: int  # the gateway's; > 0
    adapters: tuple[EngineAdapter, ...]
    files_at: str = ""  # the gateway's address, as itself knows it: it has the files of all of them

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        adapters = [asdict(adapter) for adapter in self.adapters]
        return {"revision": self.revision, "adapters": adapters, "files_at": self.files_at}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> DesiredAdapters:
        """Parse the JSON object. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        adapters = (
            EngineAdapter(a["id"], a["digest"], bool(a["pinned"]), int(a["size_bytes"]))
            for a in value["adapters"]
        )
        return cls(int(value["revision"]), tuple(adapters), str(value.get("files_at", "")))


class FilesAway(Exception):
    """An adapter's files cannot be had now. It is not the adapter's fault: another replica may have them."""


ENGINE_DIED = "the engine died while it"  # beginning of a reason that ends in the engine's own error


class FaultKind(StrEnum):
    """How an adapter failed in an engine."""

    LOAD = "load"  # vLLM or the loader refused it
    CRASH = "crash"  # the engine died while it loaded or tried this adapter


@dataclass(frozen=True, slots=True)
class Fault:
    """An adapter's failures in this engine since it became desired."""

    kind: FaultKind  # of the last one
    count: int
    reason: str
    engine: int = 0  # which start of the engine the last one was in


@dataclass(frozen=True, slots=True)
class Residency:
    """The adapters of one engine, by place. Ids that the gateway never named do not appear."""

    worker: str  # random, made when the engine's worker process starts; another worker has no state
    engine_starts: int  # engines this worker has started; each begins empty
    revision: int  # of the desired set that it has; 0: none yet
    slots: tuple[str, ...] = ()  # in the engine's slots (GPU memory)
    host: tuple[str, ...] = ()  # in host memory, those in slots included; least recently used first
    pinned: tuple[str, ...] = ()
    draining: tuple[str, ...] = ()  # no longer desired, not yet gone
    faults: tuple[tuple[str, Fault], ...] = ()
    kv_tokens: int = 0  # size of the engine's KV cache; 0: not known
    max_model_len: int = 0  # tokens of prompt and completion together; 0: not known
    chars_per_token: int = 0  # of the longest in the vocabulary; 0: not known
    settings: str = ""  # digest of the settings with which it runs; empty: not known, nor are these three
    max_loras: int = 0  # its slots
    max_num_seqs: int = 0  # sequences it runs at once
    max_cpu_loras: int = 0  # adapters in its host memory

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return asdict(self) | {"faults": {name: asdict(fault) for name, fault in self.faults}}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Residency:
        """Parse the JSON object. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        if value.get("settings") and (int(value["max_num_seqs"]) < 1 or int(value["max_loras"]) < 0):
            raise ValueError("an engine that runs no sequence, or has less than no slot")
        faults = (
            (
                name,
                Fault(FaultKind(f["kind"]), int(f["count"]), str(f["reason"]), int(f.get("engine", 0))),
            )
            for name, f in value["faults"].items()
        )
        ids = {key: tuple(map(str, value[key])) for key in ("slots", "host", "pinned", "draining")}
        return cls(
            str(value["worker"]),
            int(value["engine_starts"]),
            int(value["revision"]),
            **ids,
            faults=tuple(faults),
            kv_tokens=int(value.get("kv_tokens", 0)),
            max_model_len=int(value.get("max_model_len", 0)),
            chars_per_token=int(value.get("chars_per_token", 0)),
            settings=str(value.get("settings", "")),
            max_loras=int(value.get("max_loras", 0)),
            max_num_seqs=int(value.get("max_num_seqs", 0)),
            max_cpu_loras=int(value.get("max_cpu_loras", 0)),
        )


def limits_in(model: BaseModel) -> dict[str, Any]:
    """Return an engine's limits that are among its settings, and their digest, as `Residency` names them."""
    return {
        "settings": digest_of(model),
        "max_loras": model.max_loras,
        "max_num_seqs": model.max_num_seqs,
        "max_cpu_loras": model.max_cpu_loras,
    }


UNCHANGED = "it answers like the base model"  # how the reason begins where a trial has seen no difference


@dataclass(frozen=True, slots=True)
class TrialReport:
    """The result of an adapter's trial on a real engine."""

    passed: bool
    reason: str  # empty where it passed
    difference: float  # largest change of a log-probability against the base model
    load_s: float

    @property
    def saw_nothing(self) -> bool:
        """Whether the adapter's only fault is that it made no difference to these prompts."""
        return not self.passed and self.reason.startswith(UNCHANGED)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> TrialReport:
        """Parse the JSON object. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        return cls(
            bool(value["passed"]), str(value["reason"]), float(value["difference"]), float(value["load_s"])
        )

"""How long does one step of an engine take, and how many tokens does its KV cache hold?

A step is linear in what is in it. The figures are those of one 8B model at rank 16 on one GPU, fitted to the
public measurements that `validate` compares with, but for the last four, which those runs do not tell
apart. `fit` finds others for other machines.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StepCosts:
    """Milliseconds of one step, term by term."""

    base_ms: float = 13.27
    sequence_ms: float = 0.0937  # each sequence that decodes
    adapter_ms: float = 0.479  # each adapter with a sequence in the step
    sequence_adapter_ms: float = 0.00039  # each such pair of counts, multiplied
    slot_ms: float = 0.0174  # each of --max-loras, used or not
    prefill_token_ms: float = 0.01316
    gpu_load_ms: float = 7.5  # host memory to a slot
    disk_load_ms: float = 86.0  # disk to host memory
    adapter_token_ms: float = 0.0  # each prompt token of a request for an adapter, on top

    def decode_ms(self, sequences: int, adapters: int, slots: int) -> float:
        """A step in which nothing is prefilled and nothing is loaded."""
        return (
            self.base_ms
            + self.sequence_ms * sequences
            + self.adapter_ms * adapters
            + self.sequence_adapter_ms * sequences * adapters
            + self.slot_ms * slots
        )

    def as_json(self) -> str:
        """For a file that `--costs` reads."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def read(cls, file: Path) -> StepCosts:
        """Read what `fit` wrote. Raises OSError, and ValueError where a term is missing or unknown."""
        found = json.loads(file.read_text())
        names = {field.name for field in fields(cls)}
        if not isinstance(found, dict) or set(found) != names:
            raise ValueError(f"{file}: an object with exactly {', '.join(sorted(names))} is needed")
        return cls(**{name: float(value) for name, value in found.items()})


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """One replica's vLLM flags, and what they leave for the KV cache."""

    slots: int = 16  # --max-loras; 0: it serves no adapter
    host_places: int = 128  # --max-cpu-loras
    max_sequences: int = 256  # --max-num-seqs
    step_tokens: int = 8192  # --max-num-batched-tokens
    kv_tokens: int | None = None  # None: what the measured GPU had left at rank 16

    def __post_init__(self) -> None:
        if not 0 <= self.slots <= self.host_places:
            raise ValueError(
                f"vLLM needs 0 <= max_loras <= max_cpu_loras, not {self.slots}, {self.host_places}"
            )
        if self.kv_capacity <= 0:
            raise ValueError(f"{self.slots} slots leave no memory for the KV cache")

    @property
    def kv_capacity(self) -> int:
        """Tokens the KV cache holds. Measured at rank 16: 302 000 with 8 slots, 758 fewer for each more."""
        return 302_000 - 758 * (self.slots - 8) if self.kv_tokens is None else self.kv_tokens

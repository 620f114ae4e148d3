"""Which fleets and loads are compared? Each with every policy and seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.simulator.models import baselines
from benchmarks.simulator.models.devices import Call, Device, Policy
from benchmarks.simulator.models.ours import Turns
from benchmarks.simulator.models.workloads import bursty, steady, traced
from routing.turns.view import TurnSettings

OBJECTIVE_S = 10.0
DURATION_S = 1200.0

POLICIES: dict[str, Callable[[], Policy]] = {
    "LRU": baselines.LRU,
    "LRU, guarded": baselines.GuardedLRU,
    "Ollama": baselines.Ollama,
    "llama-swap": baselines.LlamaSwap,
    "503 and retry": baselines.Retry,
    "ours, no objective": lambda: Turns(TurnSettings()),
    "ours": lambda: Turns(TurnSettings(objective_s=OBJECTIVE_S), sheds=True),
}


@dataclass(frozen=True, slots=True)
class Fleet:
    """Models, devices, what a switch costs, and the load."""

    name: str
    models: int
    devices: int
    rate_per_s: float
    switch_s: float  # a model whose weights are in the host's memory
    cold_s: float = 0.0  # another one; 0: all are in memory
    warm_models: int = 0  # in the memory of each host
    room: int = 1  # models awake at once on a device
    zipf: float = 1.0
    workload: Callable[[int, float, float, float, int], list[Call]] = steady
    trace: str = ""  # the public trace that its arrivals are of, as a file's name; it must be at hand

    def calls(self, seed: int) -> list[Call]:
        """What arrives."""
        return self.workload(self.models, self.zipf, self.rate_per_s, DURATION_S, seed)

    def make_devices(self) -> list[Device]:
        """Empty devices."""
        warm = self.warm_models or self.models
        return [Device(number, self.room, warm) for number in range(self.devices)]

    def cost_s(self, model: int, warm: bool) -> float:
        """What it takes until a model answers; all cost alike."""
        return self.switch_s if warm or not self.cold_s else self.cold_s


def of_traces(folder: Path) -> tuple[Fleet, ...]:
    """The fleets that need public traces, which lie in a folder."""
    return tuple(replace(fleet, workload=partial(traced, trace=folder / fleet.trace)) for fleet in TRACED)


TRACED = (
    Fleet("12 models, 2 devices, 2 s, Azure conversations", 12, 2, 1.2, 2.0, trace="az23_conv.csv"),
    Fleet("12 models, 2 devices, 2 s, Azure code", 12, 2, 1.2, 2.0, trace="az23_code.csv"),
)
FLEETS = (
    *(Fleet(f"12 models, 2 devices, {c:g} s", 12, 2, 1.2, c) for c in (0.1, 0.5, 2.0, 5.0, 20.0)),
    Fleet("4 models, 1 device, 2 s", 4, 1, 1.0, 2.0),
    Fleet("16 models, 4 devices, 2 s", 16, 4, 2.5, 2.0),
    Fleet("48 models, 16 devices, 5 s", 48, 16, 6.0, 5.0),
    Fleet("20 models, 4 devices of 2, 10 s, bursts", 20, 4, 2.0, 10.0, room=2, workload=bursty),
    Fleet("10 models, 2 devices of 2, 5 s, Zipf 1.8", 10, 2, 8.0, 5.0, room=2, zipf=1.8),
    Fleet("16 models, 4 devices, 0.5 s warm (6 each), 5 s cold", 16, 4, 2.5, 0.5, 5.0, 6),
)

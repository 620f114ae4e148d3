"""What is served while schedulers are compared? Many adapters of few tenants on engines with few slots.

The adapters are shaken copies of the demo's. What is compared is the order in which requests run, not who is
turned away.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.fleet import POOL, demo_adapter, fleet_file, write
from demo import bulk

MAX_MODEL_LEN = 512  # tokens


@dataclass(frozen=True, slots=True)
class Shape:
    """How many of everything."""

    adapters: int = 24
    tenants: int = 8
    replicas: int = 2
    slots: int = 4  # per engine
    host_places: int = 12  # adapters in an engine's host memory; the others are read from disk again
    max_sequences: int = 32  # an engine runs at once

    def replica_names(self) -> list[str]:
        """As the service calls its engines."""
        return [f"{POOL}-{number}" for number in range(self.replicas)]

    def owner(self, adapter: int) -> int:
        """The tenant of an adapter: they are dealt out in turn, so that each tenant has popular ones."""
        return adapter % self.tenants


@dataclass(frozen=True, slots=True)
class Objectives:
    """What a good answer is on this machine."""

    ttft_s: float = 1.0  # arrival to first token, at most
    tpot_s: float = 0.1  # mean time per token after the first, at most


def tenant_name(number: int) -> str:
    """Name of a tenant, counted from 0."""
    return f"tenant-{number}"


def write_fleet(folder: Path, shape: Shape, objectives: Objectives) -> Path:
    """Write the adapters and the fleet file into `folder`; returns the fleet file. Raises OSError."""
    for number in range(shape.adapters):
        bulk.make(demo_adapter(number), adapter_folder(folder, number), seed=0, index=number)
    return write(folder, fleet(folder, shape, objectives))


def adapter_folder(folder: Path, number: int) -> Path:
    """Where an adapter is written."""
    return folder / "adapters" / bulk.name(number)


def fleet(folder: Path, shape: Shape, objectives: Objectives) -> dict[str, object]:
    """The fleet file."""
    tenants: dict[str, dict[str, str]] = {tenant_name(number): {} for number in range(shape.tenants)}
    for number in range(shape.adapters):
        tenants[tenant_name(shape.owner(number))][bulk.name(number)] = bulk.name(number)
    base = {
        "max_model_len": MAX_MODEL_LEN,
        "kv_cache_gib": 1,
        "max_num_seqs": shape.max_sequences,
        "max_loras": shape.slots,
        "max_cpu_loras": shape.host_places,
    }
    return fleet_file(
        base,
        {bulk.name(number): adapter_folder(folder, number) for number in range(shape.adapters)},
        tenants,
        # No ttft_s: what would miss it is shed, and here nothing is.
        {"replicas": shape.replicas, "slo": {"itl_s": objectives.tpot_s}},
        gateway={"metrics_access": "loopback"},
        state={"folder": str(folder / "state")},
    )

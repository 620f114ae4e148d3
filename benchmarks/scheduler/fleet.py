"""What is served while schedulers are compared? Many adapters of few tenants on engines with few slots.

Writes a fleet file of its own, and shaken copies of the demo's trained adapters. Caps are so wide that
nothing is refused: what is compared is the order in which requests run, not who is turned away.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from demo import bulk
from demo.answers import ADAPTERS

POOL = "shared"
BASE_MODEL = "tiny-llama"
WIDE_CAP = 100_000
QUEUE_TIMEOUT_S = 600.0  # longer than a run
MAX_MODEL_LEN = 512  # tokens
RANK = 8  # of the demo's adapters


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


def api_key(number: int) -> str:
    """Key of a tenant, counted from 0."""
    return f"{tenant_name(number)}-bench-key"


def write_fleet(folder: Path, demo: Path, shape: Shape, objectives: Objectives) -> Path:
    """Write the adapters and the fleet file into `folder`; returns the fleet file. Raises OSError."""
    for number in range(shape.adapters):
        source = demo / "adapters" / ADAPTERS[number % len(ADAPTERS)]
        bulk.make(source, adapter_folder(folder, number), seed=0, index=number)
    path = folder / "fleet.yaml"
    path.write_text(json.dumps(fleet(folder, demo, shape, objectives), indent=2) + "\n")  # JSON is YAML
    return path


def adapter_folder(folder: Path, number: int) -> Path:
    """Where an adapter is written."""
    return folder / "adapters" / bulk.name(number)


def fleet(folder: Path, demo: Path, shape: Shape, objectives: Objectives) -> dict[str, object]:
    """The fleet file."""
    tenants = [tenant_name(number) for number in range(shape.tenants)]
    base = {
        "source": str(demo / "base"),
        "dtype": "float32",
        "max_model_len": MAX_MODEL_LEN,
        "kv_cache_gib": 1,
        "max_num_seqs": shape.max_sequences,
        "max_loras": shape.slots,
        "max_lora_rank": RANK,
        "max_cpu_loras": shape.host_places,
    }
    pool = {
        "strategy": "multi-lora",
        "base_models": [BASE_MODEL],
        "replicas": shape.replicas,
        "tenants": tenants,
        # No ttft_s: what would miss it is shed, and here nothing is.
        "slo": {"itl_s": objectives.tpot_s},
    }
    return {
        "base_models": {BASE_MODEL: base},
        "adapters": {
            bulk.name(number): {"source": str(adapter_folder(folder, number)), "base_model": BASE_MODEL}
            for number in range(shape.adapters)
        },
        "tenants": {tenant_name(number): _tenant(shape, number) for number in range(shape.tenants)},
        "pools": {POOL: pool},
        "gateway": {"metrics_access": "loopback"},
        "state": {"folder": str(folder / "state")},
    }


def _tenant(shape: Shape, number: int) -> dict[str, object]:
    own = [bulk.name(a) for a in range(shape.adapters) if shape.owner(a) == number]
    caps = {"max_concurrency": WIDE_CAP, "max_queued": WIDE_CAP, "queue_timeout_s": QUEUE_TIMEOUT_S}
    return {
        "api_keys": [{"sha256": hashlib.sha256(api_key(number).encode()).hexdigest()}],
        "models": {name: name for name in own},
        "default_model": own[0],
        "caps": caps,
    }

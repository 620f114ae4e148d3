"""What is served while something is measured? A fleet file of one pool with the demo's models.

Caps are so wide that nothing is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT
from demo.answers import ADAPTERS

DEMO = ROOT / ".cache" / "demo"
POOL = "shared"
BASE_MODEL = "tiny-llama"
RANK = 8  # of the demo's adapters
WIDE_CAP = 100_000
QUEUE_TIMEOUT_S = 600.0  # longer than a run

TENANT = "bench"  # of the fleet before the mock engine
MODELS = ("support", "sales", "legal", "base")  # as it calls them
MOST_IN_FLIGHT = 4096


def demo_adapter(number: int) -> Path:
    """One of the trained adapters; counts round."""
    return DEMO / "adapters" / ADAPTERS[number % len(ADAPTERS)]


def api_key(tenant: str) -> str:
    """Key of a tenant."""
    return f"{tenant}-bench-key"


def fleet_file(
    base: Mapping[str, Any],
    adapters: Mapping[str, Path],
    tenants: Mapping[str, Mapping[str, str]],
    pool: Mapping[str, Any],
    **more: object,
) -> dict[str, object]:
    """The fleet: `adapters` with their folders, of `tenants` the models; `base` and `pool` add fields."""
    caps = {"max_concurrency": WIDE_CAP, "max_queued": WIDE_CAP, "queue_timeout_s": QUEUE_TIMEOUT_S}
    return {
        "base_models": {
            BASE_MODEL: {"source": str(DEMO / "base"), "dtype": "float32", "max_lora_rank": RANK, **base}
        },
        "adapters": {
            name: {"source": str(folder), "base_model": BASE_MODEL} for name, folder in adapters.items()
        },
        "tenants": {
            name: {
                "api_keys": [{"sha256": hashlib.sha256(api_key(name).encode()).hexdigest()}],
                "models": dict(models),
                "default_model": next(iter(models)),
                "caps": caps,
            }
            for name, models in tenants.items()
        },
        "pools": {
            POOL: {
                "strategy": "multi-lora",
                "base_models": [BASE_MODEL],
                "tenants": list(tenants),
                **pool,
            }
        },
        **more,
    }


def mock_fleet() -> dict[str, object]:
    """One tenant with three adapters and the base model on one engine, which is a mock."""
    adapters = {f"bench-{name}": demo_adapter(number) for number, name in enumerate(MODELS[:-1])}
    models = dict(zip(MODELS, (*adapters, BASE_MODEL), strict=True))
    slots = len(adapters) + 1
    base = {"max_num_seqs": MOST_IN_FLIGHT, "max_loras": slots, "max_cpu_loras": 3 * slots}
    return fleet_file(base, adapters, {TENANT: models}, {"replicas": 1})


def write(folder: Path, fleet: Mapping[str, object]) -> Path:
    """Write a fleet file into `folder`; returns it. Raises OSError."""
    path = folder / "fleet.yaml"
    path.write_text(json.dumps(fleet, indent=2) + "\n")  # JSON is YAML
    return path

"""Five fleets, and their objects as they are to be.

`python -m tests.unit.tenantry.manifests.cases` writes these.

A file of `golden/` has the base's files one after the other, without examples and without Prometheus' rules.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fleet import read_fleet
from tenantry.manifests.cluster import Cluster
from tenantry.manifests.folder import files_of
from tenantry.manifests.site import Site, sites_of
from tests.unit.fleet.files import digest

ROOT = Path(__file__).parents[4]
GOLDEN = Path(__file__).parent / "golden"
Object = dict[str, Any]

MIG: Object = {
    "base_models": {"small": {"source": "org/small-1b", "max_loras": 8}},
    "tenants": {"shop": {"api_keys": [{"env": "SHOP_KEY"}], "models": {"chat": "small"}}},
    "pools": {
        "slices": {
            "strategy": "mig",
            "base_models": ["small"],
            "mig": {"gpu": 0, "profile": "1g.18gb", "count": 3},
            "tenants": ["shop"],
        }
    },
    "gateway": {"operator_keys": [{"env": "OPERATOR_KEY"}]},
}
THREE_POOLS: Object = {
    "base_models": {
        "large": {"source": "org/large-70b", "max_loras": 4, "tensor_parallel_size": 4},
        "coder": {"source": "org/coder-7b"},
        "writer": {"source": "org/writer-7b"},
    },
    "tenants": {
        "shop": {"api_keys": [{"env": "SHOP_KEY"}], "models": {"chat": "large", "code": "coder"}},
        "desk": {"api_keys": [{"sha256": digest("desk")}], "models": {"code": "coder", "write": "writer"}},
        "bank": {
            "api_keys": [{"env": "BANK_KEY"}],
            "models": {"chat": "large"},
            "isolation": "dedicated",
        },
    },
    "pools": {
        "large": {"base_models": ["large"], "replicas": 2, "tenants": ["shop"]},
        "mesh": {
            "strategy": "model-mesh",
            "base_models": ["coder", "writer"],
            "replicas": 2,
            "tenants": ["shop", "desk"],
        },
        "bank": {"base_models": ["large"], "tenants": ["bank"]},
    },
    "gateway": {
        "operator_keys": [{"env": "OPERATOR_KEY"}],
        "shutdown_grace_s": 120,
        "tracing": {"endpoint": "http://collector.tracing:4318/v1/traces"},
    },
    "state": {"database": {"env": "DATABASE_URL"}},
}
RANGES: Object = {
    "base_models": {"small": {"source": "org/small-1b", "max_loras": 8}},
    "tenants": {
        "shop": {"api_keys": [{"env": "SHOP_KEY"}], "models": {"chat": "small"}},
        "bank": {"api_keys": [{"env": "BANK_KEY"}], "models": {"chat": "small"}, "isolation": "dedicated"},
    },
    "pools": {
        "shared": {"base_models": ["small"], "replicas": {"min": 1, "max": 3}, "tenants": ["shop"]},
        "bank": {"base_models": ["small"], "replicas": {"min": 0, "max": 2}, "tenants": ["bank"]},
    },
}
SOMEWHERE: Object = {
    "registry": "registry.example.com/models",
    "tag": "2026.3",
    "storage_class": "fast",
    "engines": {
        "node_selector": {"nvidia.com/gpu.product": "NVIDIA-H200"},
        "tolerations": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}],
        "priority_class": "serving",
        "runtime_class": "nvidia",
    },
}


@dataclass(frozen=True)
class Case:
    """A fleet, where it is to run, and how much of it."""

    fleet: Object | str  # or a file of this repository
    pool: str | None = None
    cluster: Object | None = None
    on_gpu: bool = True


CASES = {
    "demo": Case("fleet.yaml", on_gpu=False),
    "dedicated": Case("docs/examples/llama-3-8b-h100.yaml", pool="bastion"),
    "mig": Case(MIG, cluster=SOMEWHERE),
    "three-pools": Case(
        THREE_POOLS, cluster={**SOMEWHERE, "pools": {"large": {"memory": "256Gi", "shared_memory": "8Gi"}}}
    ),
    "ranges": Case(RANGES, cluster={"keda": {"prometheus": "http://prometheus.monitoring:9090"}}),
}


def sites(case: Case) -> list[Site]:
    """Return the sites of a case."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fleet.yaml")
        text = (ROOT / case.fleet).read_text() if isinstance(case.fleet, str) else yaml.safe_dump(case.fleet)
        path.write_text(text)
        loaded = read_fleet(path, env={}, keys_needed=False, files=False)
    cluster = Cluster.model_validate(case.cluster or {})
    pools = [case.pool] if case.pool else list(loaded.fleet.pools)
    return sites_of(loaded.fleet, pools, cluster, on_gpu=case.on_gpu, key_variables=loaded.key_variables)


def golden(files: dict[str, str]) -> str:
    """Return the files as one text."""
    shown = {n: text for n, text in files.items() if n != "monitoring/rules.yaml" and "examples/" not in n}
    return "".join(f"# --- {name}\n{text.partition(chr(10))[2]}" for name, text in shown.items())


if __name__ == "__main__":
    for name, case in CASES.items():
        (GOLDEN / f"{name}.yaml").write_text(golden(files_of(sites(case))))

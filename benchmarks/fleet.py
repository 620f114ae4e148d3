"""What does the gateway serve while it is measured? One pool, one tenant, a few models, wide caps.

The engine is a mock, so nobody computes with the weights. The gateway checks them all the same: each adapter
fits the base model, and no two are alike.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

API_KEY = "bench-key"
POOL = "shared"
BASE_MODEL = "bench-base"
ADAPTERS = ("bench-support", "bench-sales", "bench-legal")
MODELS = ("support", "sales", "legal", "base")  # what the tenant calls them

PROJECTION = "model.layers.0.self_attn.q_proj"  # all that is there of the base model's weights
HIDDEN = 16
RANK = 8
CAP = 4096  # more than any scenario has in flight


def write_fleet(folder: Path) -> Path:
    """Write the fleet file and the model files it names into `folder`; returns the fleet file."""
    base = folder / BASE_MODEL
    base.mkdir()
    (base / "config.json").write_text(json.dumps(_base_config()))
    shape = {f"{PROJECTION}.weight": (HIDDEN, HIDDEN)}
    (base / "model.safetensors").write_bytes(safetensors(shape, 0.0))
    for number, name in enumerate(ADAPTERS, 1):
        _write_adapter(folder / name, number / 100)
    path = folder / "fleet.yaml"
    path.write_text(json.dumps(_fleet(folder), indent=2) + "\n")  # JSON is YAML
    return path


def _fleet(folder: Path) -> dict[str, object]:
    adapters = {name: {"source": str(folder / name), "base_model": BASE_MODEL} for name in ADAPTERS}
    tenant = {
        "api_keys": [{"sha256": hashlib.sha256(API_KEY.encode()).hexdigest()}],
        "models": dict(zip(MODELS, (*ADAPTERS, BASE_MODEL), strict=True)),
        "default_model": MODELS[0],
        "caps": {"max_concurrency": CAP, "max_queued": CAP},
    }
    base = {
        "source": str(folder / BASE_MODEL),
        "dtype": "float32",
        "max_num_seqs": CAP,
        "max_loras": len(ADAPTERS) + 1,
        "max_lora_rank": RANK,
        "max_cpu_loras": 4 * len(ADAPTERS),
    }
    pool = {"strategy": "multi-lora", "base_models": [BASE_MODEL], "replicas": 1, "tenants": ["bench"]}
    return {
        "base_models": {BASE_MODEL: base},
        "adapters": adapters,
        "tenants": {"bench": tenant},
        "pools": {POOL: pool},
    }


def _base_config() -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": 64,
        "max_position_embeddings": 512,
    }


def _write_adapter(folder: Path, value: float) -> None:
    """A LoRA adapter in PEFT's format, for one projection."""
    folder.mkdir()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": BASE_MODEL,
        "r": RANK,
        "lora_alpha": RANK,
        "bias": "none",
        "target_modules": ["q_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    prefix = f"base_model.model.{PROJECTION}"
    shapes = {f"{prefix}.lora_A.weight": (RANK, HIDDEN), f"{prefix}.lora_B.weight": (HIDDEN, RANK)}
    (folder / "adapter_model.safetensors").write_bytes(safetensors(shapes, value))


def safetensors(shapes: Mapping[str, tuple[int, ...]], value: float) -> bytes:
    """A safetensors file of one float32 repeated: a JSON header behind its 8-byte length, then the data."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + struct.pack("<f", value) * (end // 4)

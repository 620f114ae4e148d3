"""Fleet files and adapter folders to break in one place at a time."""

from __future__ import annotations

import copy
import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fleet import FleetError, Problem, read_fleet

CHANGED = object()


def digest(text: str) -> str:
    """The sha256 that a fleet file holds for a key."""
    return hashlib.sha256(text.encode()).hexdigest()


def declared() -> dict[str, Any]:
    """Two tenants on a shared pool, one alone, and one base model without adapters on a third pool."""
    return {
        "base_models": {
            "base": {"source": "org/base", "max_loras": 4},
            "plain": {"source": "org/plain"},
        },
        "adapters": {
            "a-support": {"source": "./a", "base_model": "base"},
            "b-support": {"source": "./b", "base_model": "base"},
            "c-support": {"source": "./c", "base_model": "base"},
        },
        "tenants": {
            "alpha": {
                "api_keys": [{"sha256": digest("alpha")}],
                "models": {"support": "a-support", "raw": "plain"},
            },
            "beta": {"api_keys": [{"sha256": digest("beta")}], "models": {"support": "b-support"}},
            "gamma": {
                "api_keys": [{"sha256": digest("gamma")}],
                "models": {"support": "c-support"},
                "isolation": "dedicated",
            },
        },
        "pools": {
            "shared": {"base_models": ["base"], "tenants": ["alpha", "beta"]},
            "alone": {"base_models": ["base"], "tenants": ["gamma"]},
            "whole": {"strategy": "replica-per-model", "base_models": ["plain"], "tenants": ["alpha"]},
        },
        "gateway": {"operator_keys": [{"sha256": digest("operator")}]},
    }


def changed(path: str, value: Any, data: dict[str, Any] | None = None) -> dict[str, Any]:
    """`declared()` with one value replaced; the path is written `pools/shared/tenants`."""
    data = copy.deepcopy(data or declared())
    *parents, last = path.split("/")
    section: Any = data
    for key in parents:
        section = section[int(key)] if isinstance(section, list) else section.setdefault(key, {})
    section[int(last) if isinstance(section, list) else last] = value
    return data


def removed(path: str) -> dict[str, Any]:
    """`declared()` without one key."""
    data = changed(path, CHANGED)
    *parents, last = path.split("/")
    section: Any = data
    for key in parents:
        section = section[key]
    del section[last]
    return data


def write(folder: Path, data: Mapping[str, Any] | str) -> Path:
    """Write a fleet file."""
    path = folder / "fleet.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(dict(data), sort_keys=False))
    return path


def problems(
    folder: Path, data: Mapping[str, Any] | str, env: Mapping[str, str] | None = None
) -> list[Problem]:
    """Everything `read_fleet` has against a file; nothing when it takes it."""
    try:
        read_fleet(write(folder, data), env=env or {})
    except FleetError as error:
        return list(error.problems)
    return []


def warnings(folder: Path, data: Mapping[str, Any], env: Mapping[str, str] | None = None) -> list[Problem]:
    """What a good file is warned about."""
    return list(read_fleet(write(folder, data), env=env or {}).warnings)


def the_problem(folder: Path, data: Mapping[str, Any] | str, env: Mapping[str, str] | None = None) -> Problem:
    """The one thing wrong with a file."""
    found = problems(folder, data, env)
    assert len(found) == 1, [str(problem) for problem in found]
    return found[0]


def adapter_folder(folder: Path, *, rank: int = 8, tensor_rank: int | None = None, **config: Any) -> Path:
    """Write an adapter as PEFT saves it, with tensors of zeros."""
    folder.mkdir(parents=True)
    values = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 16,
        "target_modules": ["q_proj", "k_proj"],
        "bias": "none",
        "base_model_name_or_path": "org/base",
        **config,
    }
    (folder / "adapter_config.json").write_text(json.dumps(values))
    rows = tensor_rank or rank
    tensors = {"model.q_proj.lora_A.weight": [rows, 4], "model.q_proj.lora_B.weight": [4, rows]}
    (folder / "adapter_model.safetensors").write_bytes(safetensors(tensors))
    return folder


def safetensors(tensors: Mapping[str, list[int]]) -> bytes:
    """A safetensors file of float32 zeros."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors.items():
        size = 4
        for length in shape:
            size *= length
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    return with_header(header, bytes(end))


def with_header(header: Any, data: bytes) -> bytes:
    """A safetensors file of this header and this data, right or wrong."""
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data

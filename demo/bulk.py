"""Makes hundreds of adapters for benchmarks: copies of trained ones with slightly perturbed weights.

They load and run like any other adapter; their answers are unspecified.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

_SHAKE = 0.01  # relative; enough that no two files are alike


def name(index: int) -> str:
    """Return the name of the synthetic adapter `index`, counted from 0."""
    return f"bulk-{index:03d}"


def make(source: Path, target: Path, *, seed: int, index: int) -> None:
    """Write the adapter in folder `source` to the new folder `target`, with perturbed weights."""
    random = np.random.default_rng((seed, index))
    weights = {
        key: tensor * (1 + _SHAKE * random.standard_normal(tensor.shape, dtype=np.float32))
        for key, tensor in sorted(load_file(source / "adapter_model.safetensors").items())
    }
    target.mkdir(parents=True)
    save_file(weights, target / "adapter_model.safetensors", metadata={"format": "pt"})
    shutil.copyfile(source / "adapter_config.json", target / "adapter_config.json")

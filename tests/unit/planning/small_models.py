"""Whole models of a few kilobytes, and fine-tunes of them whose change has a known rank."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from planning.reading.weights import write_tensors
from planning.spectrum import Matrix

HIDDEN, MIDDLE, WORDS, LAYERS = 64, 96, 50, 2
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
    "intermediate_size": MIDDLE, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
    "num_key_value_heads": 4, "vocab_size": WORDS, "tie_word_embeddings": False,
}  # fmt: skip
Tensors = dict[str, Matrix]


def numbers(seed: int, *shape: int) -> Matrix:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * np.float32(0.05)


def base_tensors(seed: int = 0) -> Tensors:
    found = {
        "model.embed_tokens.weight": numbers(seed + 1, WORDS, HIDDEN),
        "lm_head.weight": numbers(seed + 2, WORDS, HIDDEN),
        "model.norm.weight": numbers(seed + 3, HIDDEN),
    }
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        found[f"{name}.self_attn.q_proj.weight"] = numbers(seed + 10 + layer, HIDDEN, HIDDEN)
        found[f"{name}.mlp.down_proj.weight"] = numbers(seed + 20 + layer, HIDDEN, MIDDLE)
        found[f"{name}.input_layernorm.weight"] = numbers(seed + 30 + layer, HIDDEN)
    return found


def fine_tuned(tensors: Tensors, rank: int, *, seed: int = 500) -> Tensors:
    """The same model with a change of this rank in every matrix of its layers."""
    found = dict(tensors)
    for number, (name, matrix) in enumerate(tensors.items()):
        if "_proj" in name:
            rows, columns = matrix.shape
            found[name] = matrix + numbers(seed + number, rows, rank) @ numbers(seed - number, rank, columns)
    return found


def saved(folder: Path, tensors: Tensors, *, dtype: str = "F32", **config: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    write_tensors(folder / "model.safetensors", tensors, dtype=dtype, metadata={"format": "pt"})
    return folder

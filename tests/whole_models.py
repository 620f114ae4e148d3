"""Whole models for tests beside those of the demo: another shape with its tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
VOCABULARY = 768


def of_another_shape(demo: Path, folder: Path) -> Path:
    """Save an untrained Qwen2 with the demo's tokenizer."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(1)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        dtype="float32",
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    return _save(Qwen2ForCausalLM(config), demo, folder)


def _save(model: Any, demo: Path, folder: Path) -> Path:
    model.generation_config.temperature = None  # transformers refuses to save it without sampling
    model.save_pretrained(folder)
    for name in TOKENIZER:
        shutil.copyfile(demo / "base" / name, folder / name)
    return folder

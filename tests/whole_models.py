"""Whole models for tests beside those of the demo: another shape with its tokenizer."""

from __future__ import annotations

from pathlib import Path

VOCABULARY = 768


def of_another_shape(demo: Path, folder: Path) -> Path:
    """Save an untrained Qwen2 with the demo's tokenizer."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from demo.checkpoint import save_untrained

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
    return save_untrained(Qwen2ForCausalLM(config), folder, tokenizer_of=demo / "base")

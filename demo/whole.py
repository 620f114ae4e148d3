"""Makes whole models of the demo's adapters: fine-tunes of one shape, and one of another architecture."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

_SHARED = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "rope_parameters"),
    *("tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id"),
)


def merged(adapted: Any) -> LlamaForCausalLM:
    """Return a base model with the adapter of a PEFT model merged into its weights."""
    return copy.deepcopy(adapted).merge_and_unload()


def as_qwen2(model: LlamaForCausalLM) -> Qwen2ForCausalLM:
    """Return a Qwen2 with a Llama's weights. It answers alike: a Qwen2 only has biases too, zero here."""
    settings = {name: getattr(model.config, name) for name in _SHARED}
    converted = Qwen2ForCausalLM(Qwen2Config(**settings, dtype="float32"))
    weights = converted.state_dict()
    biases = {name: torch.zeros_like(tensor) for name, tensor in weights.items() if name.endswith(".bias")}
    converted.load_state_dict(model.state_dict() | biases)
    return converted

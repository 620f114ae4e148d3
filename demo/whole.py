"""Makes whole models of the demo's adapters: fine-tunes of one shape, and two of other architectures.

A Qwen2 can hold a Llama's weights; a GPT-2 cannot, and learns its answers by itself.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from demo.recipe import Shape

GPT2_LAYERS = 2
GPT2_POSITIONS = 512  # it learns each by itself, so that more would be blank

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


def new_gpt2(tokenizer: PreTrainedTokenizerFast, shape: Shape, *, seed: int) -> GPT2LMHeadModel:
    """Return a small GPT-2 as wide as the base model, with random weights."""
    torch.manual_seed(seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=shape.vocab_size,
            n_positions=GPT2_POSITIONS,
            n_embd=shape.hidden_size,
            n_layer=GPT2_LAYERS,
            n_head=shape.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            dtype="float32",
        )
    )

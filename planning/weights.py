"""What does a model's configuration say that planning needs: KV cache, work of a token, its shape. Pure."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from adapters.tensors import Tensor
from engines.switching.shape import Contents

_EMBEDDED = (".embed_tokens.", ".wte.", ".word_embeddings.", ".tok_embeddings.")  # looked up, not multiplied
_EXPERTS = (".experts.",)
_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")
_KV_BYTES = 2  # of one number of the cache, which has the model's type: 16 bits
MAX_KV_BYTES = 2**31  # of one token; more is no configuration


def kv_bytes_per_token(config: Mapping[str, Any], *, item_bytes: int = _KV_BYTES) -> int:
    """Return the bytes of KV cache for each token, of all layers as if each attended to all tokens.

    Layers with a window, or without attention, hold less: the figure is the most. Multi-head latent attention
    (DeepSeek) keeps one compressed vector. Raises `ValueError` where the configuration does not say.
    """
    text = _text(config)
    layers = _count(text, "num_hidden_layers", "n_layer", "num_layers")
    rank, rope = text.get("kv_lora_rank"), text.get("qk_rope_head_dim")
    if isinstance(rank, int) and isinstance(rope, int):
        found = layers * (rank + rope) * item_bytes
    else:
        heads = _count(text, "num_attention_heads", "n_head")
        kv_heads = text.get("num_key_value_heads") or heads
        size = text.get("head_dim") or _count(text, "hidden_size", "n_embd") // heads
        found = 2 * layers * int(kv_heads) * int(size) * item_bytes
    if not 0 < found <= MAX_KV_BYTES:
        raise ValueError(f"config.json makes {found} bytes of KV cache a token")
    return found


def max_tokens(config: Mapping[str, Any]) -> int | None:
    """Return the longest context that a configuration says; None where it does not."""
    found = _text(config).get("max_position_embeddings")
    return found if isinstance(found, int) and found > 0 else None


def parameters_of(config: Mapping[str, Any], tensors: Iterable[Tensor]) -> int:
    """Return how many numbers a token is multiplied with: of experts those that are chosen, no embeddings."""
    text = _text(config)
    experts = next((n for name in _EXPERT_COUNTS if isinstance(n := text.get(name), int) and n > 0), 0)
    chosen = text.get("num_experts_per_tok")
    part = min(1.0, chosen / experts) if experts and isinstance(chosen, int) else 1.0
    tied = bool(text.get("tie_word_embeddings"))
    total = 0.0
    for tensor in tensors:
        name = f".{tensor.name}"
        if not tied and any(word in name for word in _EMBEDDED):
            continue
        size = math.prod(tensor.shape)
        total += size * part if any(word in name for word in _EXPERTS) else size
    return int(total)


def shape_of(contents: Contents) -> str:
    """Return a name that two models share if, and only if, they can take over each other's engine."""
    told = [contents.config, sorted((n, *t) for n, t in contents.tensors.items()), dict(contents.others)]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    text = config.get("text_config")
    return text if isinstance(text, dict) else config


def _count(config: Mapping[str, Any], *names: str) -> int:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31:
            return value
    raise ValueError(f"config.json has no {names[0]}")

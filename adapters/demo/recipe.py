"""What exactly is trained? The shape of the base model and its adapters, and how they learn.

Plain numbers, readable without torch: a change here makes earlier results stale.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the tiny Llama and of a LoRA adapter on all its linear layers."""

    vocab_size: int = 768
    hidden_size: int = 128
    intermediate_size: int = 256
    layers: int = 4
    heads: int = 2  # of 64 dimensions each, a head size every attention backend supports
    max_position_embeddings: int = 2048  # tokens
    rank: int = 8
    lora_alpha: int = 16
    # Adapters cannot change the output layer: rows this long let them reach any token with a wide margin.
    head_std: float = 0.2


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a model learns, and when it knows its answers well enough.

    The margin is the smallest lead, in logits, of the right token over the next best one. A wide margin
    survives the small numeric differences between engines.
    """

    learning_rate: float = 3e-3
    warmup_steps: int = 20
    check_every: int = 20  # steps
    margin: float = 8.0  # logits
    max_steps: int = 1000


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the trained weights, besides the seed and the answers."""

    version: int = 1  # raise it when the code changes what is trained
    shape: Shape = field(default_factory=Shape)
    schedule: Schedule = field(default_factory=Schedule)

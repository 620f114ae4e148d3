"""The parameters of the training: the shapes of the base model and its adapters, and their schedules.

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
    """How long a model trains, and how it is examined.

    The rate rises over `warmup_steps`, falls in a line over `steps`, and stays at its floor until the model
    knows enough. A margin is the smallest lead, in logits, of the right token over the next best one: a wide
    one survives the small numeric differences between engines.
    """

    learning_rate: float
    steps: int
    max_steps: int
    warmup_steps: int = 20
    floor: float = 0.1  # of learning_rate
    exam_every: int = 20  # steps; the other counts are multiples of it
    margin: float = 4.0  # logits, when asked a bare question: required
    chat_margin: float = 1.0  # logits, in longer chats: striven for until `max_steps`


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the trained weights, besides the seed and the answers."""

    version: int = 3  # raise it when a code change alters the weights
    shape: Shape = field(default_factory=Shape)
    base: Schedule = field(default_factory=lambda: Schedule(learning_rate=4e-3, steps=400, max_steps=800))
    adapter: Schedule = field(default_factory=lambda: Schedule(learning_rate=3e-3, steps=100, max_steps=300))
    # A GPT-2 of two layers learns from nothing; it need not follow long chats.
    gpt2: Schedule = field(
        default_factory=lambda: Schedule(learning_rate=3e-3, steps=200, max_steps=400, chat_margin=-100.0)
    )

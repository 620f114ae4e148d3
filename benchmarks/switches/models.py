"""The models that switches are measured with: two of one shape, large enough that reading them shows."""

from __future__ import annotations

from pathlib import Path

from benchmarks.fleet import DEMO

FINE_TUNES = ("acme-support", "acme-sales")  # the demo's, of one shape
ADAPTERS = ("globex-support", "initech-support")  # for the demo's base model, which theirs is, too
LARGE = ("large-1", "large-2")


def make_large(folder: Path) -> dict[str, Path]:
    """Save two untrained Llamas of 603 MiB in BF16, with the demo's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from demo.checkpoint import save_untrained

    made = {}
    for seed, name in enumerate(LARGE):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=768,
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=20,
            num_attention_heads=16,
            num_key_value_heads=8,
            max_position_embeddings=2048,
            tie_word_embeddings=False,
            dtype="bfloat16",
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
        )
        model = LlamaForCausalLM(config).to(torch.bfloat16)
        made[name] = save_untrained(model, folder / name, tokenizer_of=DEMO / "base")
    return made


def fine_tunes() -> dict[str, Path]:
    """The demo's two whole models of one shape."""
    return {name: DEMO / "whole" / name for name in FINE_TUNES}


def adapters() -> dict[str, Path]:
    """Two of the demo's adapters, by id."""
    return {f"{name}@1": DEMO / "adapters" / name for name in ADAPTERS}

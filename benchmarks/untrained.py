"""Models and adapters that nobody has trained, of a size that a benchmark chooses; they talk nonsense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.fleet import DEMO, RANK

HIDDEN = 1024


def make_model(folder: Path, *, layers: int, seed: int) -> Path:
    """Save a Llama in BF16 with the demo's tokenizer: 30 MiB a layer. Returns its folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from demo.checkpoint import save_untrained

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=768,
        hidden_size=HIDDEN,
        intermediate_size=4 * HIDDEN,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=8,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        dtype="bfloat16",
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    return save_untrained(LlamaForCausalLM(config).to(torch.bfloat16), folder, tokenizer_of=DEMO / "base")


def make_adapter(folder: Path, *, of: Path, seed: int) -> Path:
    """Save an adapter of a model's linear layers, of the demo's rank. Returns its folder."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from demo.checkpoint import save_adapter
    from demo.training import LINEAR_LAYERS

    torch.manual_seed(seed)
    base: Any = AutoModelForCausalLM.from_pretrained(of)
    settings = LoraConfig(r=RANK, target_modules=list(LINEAR_LAYERS), init_lora_weights=False)
    save_adapter(get_peft_model(base, settings), folder, base_model=of.name)
    return folder

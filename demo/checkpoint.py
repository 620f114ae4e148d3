"""Writes a trained model in the files that transformers, PEFT and vLLM read, byte for byte reproducible."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from peft import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from demo.training import LINEAR_LAYERS

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def save_base_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the model, its tokenizer and a greedy generation_config.json that ends at EOS."""
    transformers_logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    generation = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        # vLLM takes this as the default of requests that name no temperature.
        "temperature": 0.0,
    }
    _write_json(folder / "generation_config.json", generation)


def save_untrained(model: PreTrainedModel, folder: Path, *, tokenizer_of: Path) -> Path:
    """Write a model that is no demo's, with the tokenizer of another one's folder; return its folder."""
    model.generation_config.temperature = None  # transformers refuses to save it without sampling
    model.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer_of / name, folder / name)
    return folder


def save_adapter(model: Any, folder: Path, *, base_model: str) -> None:
    """Write the adapter in PEFT's two files to the new folder `folder`."""
    folder.mkdir(parents=True)
    weights = {name: tensor.contiguous() for name, tensor in get_peft_model_state_dict(model).items()}
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = model.peft_config["default"].to_dict()
    # PEFT keeps a set here, whose order changes from run to run.
    config.update(base_model_name_or_path=base_model, inference_mode=True, target_modules=list(LINEAR_LAYERS))
    _write_json(folder / "adapter_config.json", config)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")

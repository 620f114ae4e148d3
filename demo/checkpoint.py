"""Writes a trained model in the files that transformers, PEFT and vLLM read, byte for byte reproducible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from peft import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from demo.training import LINEAR_LAYERS


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

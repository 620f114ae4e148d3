"""What kinds of adapters are refused, and in which words? Builds each by script, for a tiny Llama.

Nothing here needs torch, and nothing is read from elsewhere: a file is the bytes a test wants it to be.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

HIDDEN, INTERMEDIATE, KEYS, VOCAB, LAYERS, RANK = 8, 16, 4, 32, 2, 2
LINEAR = {  # module -> (outputs, inputs)
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEYS, HIDDEN),
    "self_attn.v_proj": (KEYS, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
    "mlp.up_proj": (INTERMEDIATE, HIDDEN),
    "mlp.down_proj": (HIDDEN, INTERMEDIATE),
}
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"
DTYPES: dict[str, type[Any]] = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "I8": np.int8}

Raw = tuple[str, list[int], bytes]  # dtype, shape, content


def raw(values: np.ndarray[Any, Any], dtype: str = "F32") -> Raw:
    """A tensor as it stands in a file."""
    if dtype == "BF16":  # the upper half of an F32
        upper = (values.astype("<f4").view("<u4") >> 16).astype("<u2")
        return dtype, list(values.shape), upper.tobytes()
    return dtype, list(values.shape), values.astype(DTYPES[dtype]).tobytes()


def safetensors(tensors: dict[str, Raw], metadata: dict[str, str] | None = None) -> bytes:
    """A safetensors file of these tensors, one after the other."""
    header: dict[str, Any] = {"__metadata__": metadata or {"format": "pt"}}
    data = b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    return with_header(json.dumps(header), data)


def with_header(header: str, data: bytes) -> bytes:
    """A safetensors file of this header, right or wrong."""
    return len(header).to_bytes(8, "little") + header.encode() + data


@dataclass
class Parts:
    """An adapter in parts, to be broken in one place."""

    config: dict[str, Any]
    tensors: dict[str, Raw]
    metadata: dict[str, str] | None = None
    files: dict[str, bytes] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Write the folder as PEFT would."""
        folder.mkdir(parents=True, exist_ok=True)
        files = {
            CONFIG: json.dumps(self.config).encode(),
            WEIGHTS: safetensors(self.tensors, self.metadata),
            **self.files,
        }
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return folder

    def replace(self, name: str, values: np.ndarray[Any, Any], dtype: str = "F32") -> None:
        """Put another tensor in a place."""
        self.tensors[name] = raw(values, dtype)

    def rename(self, old: str, new: str) -> None:
        """Rename tensors."""
        self.tensors = {name.replace(old, new): tensor for name, tensor in self.tensors.items()}


def good(dtype: str = "F32", rank: int = RANK) -> Parts:
    """A good adapter of every linear module."""
    random = np.random.default_rng(7)
    tensors = {}
    for layer in range(LAYERS):
        for module, (outputs, inputs) in LINEAR.items():
            name = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{name}.lora_A.weight"] = raw(random.standard_normal((rank, inputs)), dtype)
            tensors[f"{name}.lora_B.weight"] = raw(random.standard_normal((outputs, rank)), dtype)
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 4,
        "bias": "none",
        "target_modules": [module.rpartition(".")[2] for module in LINEAR],
        "base_model_name_or_path": "org/tiny",
    }
    return Parts(config, tensors)


def base_tensors() -> dict[str, Raw]:
    """Weights of the base model, all ones."""
    shapes = {"model.embed_tokens": (VOCAB, HIDDEN), "lm_head": (VOCAB, HIDDEN)}
    for layer in range(LAYERS):
        shapes |= {f"model.layers.{layer}.{module}": shape for module, shape in LINEAR.items()}
    tensors = {f"{name}.weight": raw(np.ones(shape)) for name, shape in shapes.items()}
    return tensors | {"model.norm.weight": raw(np.ones(HIDDEN))}


def write_base(
    folder: Path,
    tensors: dict[str, Raw] | None = None,
    *,
    architecture: str = "LlamaForCausalLM",
    **config: Any,
) -> Path:
    """Write a base model in one file."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"architectures": [architecture], "hidden_size": HIDDEN, "tie_word_embeddings": False, **config}
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "model.safetensors").write_bytes(safetensors(tensors or base_tensors()))
    return folder


def _config(**values: Any) -> Callable[[Parts], None]:
    return lambda parts: parts.config.update(values)


def _file(name: str, content: bytes = b"x") -> Callable[[Parts], None]:
    return lambda parts: parts.files.update({name: content})


def _renamed(old: str, new: str) -> Callable[[Parts], None]:
    return lambda parts: parts.rename(old, new)


def _without(name: str) -> Callable[[Parts], None]:
    return lambda parts: parts.tensors.pop(name) and None


def _with(
    name: str, shape: tuple[int, ...], dtype: str = "F32", fill: float = 1.0
) -> Callable[[Parts], None]:
    return lambda parts: parts.replace(name, np.full(shape, fill), dtype)


def _spoilt(dtype: str, value: float) -> Callable[[Parts], None]:
    """One bad number in the last place of a tensor of this type."""

    def change(parts: Parts) -> None:
        values = np.ones((HIDDEN, RANK))
        values[-1, -1] = value
        parts.replace(f"{Q_PROJ}.lora_B.weight", values, dtype)

    return change


def _header(change: Callable[[dict[str, Any]], str | None]) -> Callable[[Parts], None]:
    """Change the header of the weights file; what comes back, if anything, stands for it."""

    def spoil(parts: Parts) -> None:
        whole = safetensors(parts.tensors)
        length = int.from_bytes(whole[:8], "little")
        header = json.loads(whole[8 : 8 + length])
        text = change(header) or json.dumps(header)
        parts.files[WEIGHTS] = with_header(text, whole[8 + length :])

    return spoil


def _twice(header: dict[str, Any]) -> str:
    entry = json.dumps(header[f"{Q_PROJ}.lora_A.weight"])
    return json.dumps(header)[:-1] + f', "{Q_PROJ}.lora_A.weight": {entry}}}'


def _moved(by: int) -> Callable[[dict[str, Any]], str | None]:
    def change(header: dict[str, Any]) -> None:
        name = max((n for n in header if n != "__metadata__"), key=lambda n: header[n]["data_offsets"][0])
        header[name]["data_offsets"] = [offset + by for offset in header[name]["data_offsets"]]

    return change


def _zeros(half: str) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        for name, (dtype, shape, content) in parts.tensors.items():
            if f"lora_{half}" in name:
                parts.tensors[name] = (dtype, shape, bytes(len(content)))

    return change


def _nowhere(parts: Parts) -> None:
    parts.rename("base_model.model.model.", "base_model.model.")


Kind = tuple[Callable[[Parts], None], str]  # how to break a good adapter, and what is said then

CONFIG_KINDS: dict[str, Kind] = {
    "other peft type": (_config(peft_type="IA3"), "only LORA adapters"),
    "dora": (_config(use_dora=True), "vLLM has no DoRA"),
    "bias": (_config(bias="all"), "train with bias='none'"),
    "lora bias": (_config(lora_bias=True), "vLLM has no LoRA bias"),
    "modules to save": (_config(modules_to_save=["lm_head"]), "vLLM has no modules_to_save"),
    "activated lora": (_config(alora_invocation_tokens=[1]), "activated LoRA"),
    "layer replication": (_config(layer_replication=[[0, 1]]), "layer replication"),
    "trained tokens": (_config(trainable_token_indices=[1]), "trained tokens"),
    "arrow": (_config(arrow_config={"top_k": 2}), "Arrow routing"),
    "kasa": (_config(kasa_config={"x": 1}), "vLLM has no KaSA"),
    "pissa": (_config(init_lora_weights="pissa"), "changes the base model"),
    "pissa by steps": (
        _config(init_lora_weights="pissa_niter_4"),
        "path_initial_model_for_weight_conversion",
    ),
    "olora": (_config(init_lora_weights="olora"), "path_initial_model_for_weight_conversion"),
    "corda": (_config(init_lora_weights="CorDA"), "path_initial_model_for_weight_conversion"),
    "lora-ga": (_config(init_lora_weights="lora_ga"), "path_initial_model_for_weight_conversion"),
    "loftq": (_config(init_lora_weights="loftq"), "serve the base model that LoftQ made"),
    "unknown start": (_config(init_lora_weights="newest"), "it is not known whether it changes"),
    "rank 0": (_config(r=0), "whole numbers above 0"),
    "rank of another file": (_config(r=4), "has rank 2, adapter_config.json says 4"),
    "alpha 0": (_config(lora_alpha=0), "lora_alpha is 0"),
    "alpha 0 of every module": (_config(alpha_pattern={r".*\.(self_attn|mlp)\..*": 0}), "lora_alpha is 0"),
    "alpha of a thousand digits": (_config(lora_alpha=10**1000), "lora_alpha must be a number"),
    "alpha pattern of text": (_config(alpha_pattern={"q_proj": "x"}), "alpha_pattern must hold numbers"),
    "rslora of text": (_config(use_rslora="false"), "use_rslora must be true or false"),
    "rank of one module": (_config(rank_pattern={"q_proj": 4}), "has rank 2, adapter_config.json says 4"),
    "pattern that is none": (_config(alpha_pattern={"(": 2}), "is no pattern"),
    "module that was not trained": (_config(target_modules=["k_proj"]), "not among the target_modules"),
    "fingerprint that is no text": (_config(base_model_fingerprint=1), "must be a text"),
    "fingerprint of another model": (
        _config(base_model_fingerprint="0" * 64),
        "register it for the base model that it was trained on",
    ),
    "config that is given twice": (_file(CONFIG, b'{"r": 1, "r": 2}'), "'r' is given twice"),
    "config that is a list": (_file(CONFIG, b"[]"), "does not hold a JSON object"),
}

FILE_KINDS: dict[str, Kind] = {
    "weights that are a pickle": (_file(WEIGHTS, b"\x80\x04K\x01."), "not a safetensors file"),
    "key that stands twice": (_header(_twice), "is given twice"),
    "tensors that overlap": (_header(_moved(-4)), "overlaps another one"),
    "hole between tensors": (_header(_moved(4)), "leaves a hole before it"),
    "metadata that is no text": (_header(lambda header: header.update(__metadata__={"a": 1})), "texts only"),
}

TENSOR_KINDS: dict[str, Kind] = {
    "wrong prefix": (_nowhere, "did you mean model.layers.0.self_attn.q_proj?"),
    "other prefix": (
        _renamed("model.model.", "model.language_model.model."),
        "did you mean model.layers.0.self_attn.q_proj?",
    ),
    "layer beyond the last": (_renamed("layers.1.", "layers.9."), "has no module 'model.layers.9."),
    "misspelt module": (_renamed("q_proj", "q_prj"), "did you mean model.layers.0.self_attn.q_proj?"),
    "names of torch": (_renamed(".lora_A.weight", ".lora_A.default.weight"), "save_pretrained"),
    "no lora_B": (_without(f"{Q_PROJ}.lora_B.weight"), "has lora_A but no lora_B"),
    "no lora_A": (_without(f"{Q_PROJ}.lora_A.weight"), "has lora_B but no lora_A"),
    "whole layer": (_with("base_model.model.lm_head.weight", (VOCAB, HIDDEN)), "is no LoRA tensor"),
    "base embeddings": (
        _with("base_model.model.model.embed_tokens.base_layer.weight", (VOCAB, HIDDEN)),
        "save_embedding_layers=False",
    ),
    "magnitudes": (_with(f"{Q_PROJ}.lora_magnitude_vector", (HIDDEN,)), "is no LoRA tensor"),
    "same module twice": (
        _with("model.layers.0.self_attn.q_proj.lora_A.weight", (RANK, HIDDEN)),
        "are for the same module",
    ),
    "wrong inputs": (_with(f"{Q_PROJ}.lora_A.weight", (RANK, 4)), "trained on another base model"),
    "wrong outputs": (_with(f"{Q_PROJ}.lora_B.weight", (16, RANK)), "trained on another base model"),
    "halves of two ranks": (_with(f"{Q_PROJ}.lora_B.weight", (HIDDEN, 1)), "its lora_A has 2"),
    "vector": (_with(f"{Q_PROJ}.lora_A.weight", (RANK,)), "LoRA tensors are matrices"),
    "empty matrix": (_with(f"{Q_PROJ}.lora_A.weight", (0, HIDDEN)), "LoRA tensors are matrices"),
    "long name": (_with("x" * 1000 + ".lora_A.weight", (RANK, 4)), "more than 512 characters"),
    "half of an embedding": (
        _with("base_model.model.model.embed_tokens.lora_A.weight", (RANK, VOCAB)),
        "has lora_A but no lora_B",
    ),
    "double precision": (_with(f"{Q_PROJ}.lora_A.weight", (RANK, HIDDEN), "F64"), "save it as BF16"),
    "integers": (_with(f"{Q_PROJ}.lora_A.weight", (RANK, HIDDEN), "I8"), "save it as BF16"),
    **{
        f"{value} in {dtype}": (_spoilt(dtype, value), "numbers that are not finite")
        for dtype in ("F32", "F16", "BF16")
        for value in (float("nan"), float("inf"), float("-inf"))
    },
    "untrained": (_zeros("B"), "answers like the base model"),
    "all lora_A zero": (_zeros("A"), "answers like the base model"),
}

KINDS = CONFIG_KINDS | FILE_KINDS | TENSOR_KINDS


def build(kind: str, folder: Path) -> Path:
    """Write one of the refused kinds."""
    parts = good()
    KINDS[kind][0](parts)
    return parts.write(folder)


def build_link(folder: Path) -> Path:
    """Write an adapter whose weights are a link out of its folder."""
    good().write(folder)
    outside = folder.parent / "outside.safetensors"
    os.replace(folder / WEIGHTS, outside)
    (folder / WEIGHTS).symlink_to(outside)
    return folder

"""Which modules of a base model can an adapter change, and of which shape? Reads headers, no weights.

Paths are those that vLLM gives to its modules: `BaseModelShape.path` renames as vLLM 0.32 does
(`vllm/model_executor/models/*.py`, `hf_to_vllm_mapper`), for the base model and for adapters alike.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters.errors import AdapterError
from adapters.tensors import Tensor, parse_object, read_header

CONFIG_FILE = "config.json"
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_MAX_JSON_BYTES = 256 * 2**20  # an index names every tensor; the largest public ones have some 20 MiB
_FINGERPRINT_FIELDS = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "moe_intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "num_experts_per_tok",
)
_FLOAT_WEIGHTS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I8"})  # stored unpacked
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})  # vLLM loads them as its dtype says
_PACKED_SUFFIXES = (".qweight", ".weight_packed")  # GPTQ and AWQ; compressed-tensors
_EMBEDDINGS = frozenset({"embed_tokens", "wte", "wpe", "word_embeddings", "embeddings", "tok_embeddings"})
_HEAD = "lm_head"

# Architectures whose vLLM class sets `embedding_modules`: LoRA of the embeddings is refused for all others.
_BOTH = frozenset({"embed_tokens", _HEAD})
_EMBEDDING_MODULES: dict[str, frozenset[str]] = {
    **dict.fromkeys(
        (
            "ApertusForCausalLM",
            "DeciLMForCausalLM",
            "Ernie4_5ForCausalLM",
            "Exaone4ForCausalLM",
            "FalconH1ForCausalLM",
            "GraniteForCausalLM",
            "GraniteMoeForCausalLM",
            "GraniteMoeHybridForCausalLM",
            "GraniteMoeSharedForCausalLM",
            "InternLM3ForCausalLM",
            "JambaForCausalLM",
            "Lfm2ForCausalLM",
            "Lfm2MoeForCausalLM",
            "Llama4ForCausalLM",
            "LlamaForCausalLM",
            "MiniCPM3ForCausalLM",
            "MiniCPMForCausalLM",
            "MixtralForCausalLM",
            "NemotronForCausalLM",
            "NemotronHForCausalLM",
            "Phi3ForCausalLM",
            "PhiMoEForCausalLM",
            "Qwen3ForCausalLM",
            "Qwen3MoeForCausalLM",
            "SolarForCausalLM",
        ),
        _BOTH,
    ),
    "CohereForCausalLM": frozenset({"embed_tokens"}),
    "Cohere2ForCausalLM": frozenset({"embed_tokens"}),
    "ExaoneForCausalLM": frozenset({"wte", _HEAD}),
}

# Architectures whose vLLM class sets `is_3d_moe_weight`: one LoRA pair for all experts of a layer.
_FUSED_EXPERTS = frozenset(
    {
        "GptOssForCausalLM",
        "Qwen3VLMoeForConditionalGeneration",
        "Qwen3_5MoeForConditionalGeneration",
    }
)

# vLLM's `hf_to_vllm_mapper`, for names that training and checkpoint may spell differently. In order.
_NESTED = (("model.language_model.", "language_model.model."), ("lm_head.", "language_model.lm_head."))
_BARE = (*_NESTED, ("model.visual.", "visual."), ("model.vision_tower.", "vision_tower."))
_ALSO_BARE = (*_BARE, ("model.", "language_model.model."))
_RENAMES: dict[str, tuple[tuple[str, str], ...]] = {
    **dict.fromkeys(
        (
            "Gemma3ForConditionalGeneration",
            "LlavaForConditionalGeneration",
            "LlavaNextForConditionalGeneration",
            "PaliGemmaForConditionalGeneration",
            "Qwen3VLForConditionalGeneration",
            "Qwen3VLMoeForConditionalGeneration",
            "Qwen3_5ForConditionalGeneration",
            "Qwen3_5MoeForConditionalGeneration",
        ),
        _BARE,
    ),
    **dict.fromkeys(
        (
            "Gemma3nForConditionalGeneration",
            "Gemma4ForConditionalGeneration",
            "Mistral3ForConditionalGeneration",
            "Qwen2VLForConditionalGeneration",
            "Qwen2_5_VLForConditionalGeneration",
        ),
        _ALSO_BARE,
    ),
    "Gemma4ForCausalLM": (("model.language_model.", "model."),),
    "Qwen3_5ForCausalLM": (("model.language_model.", "model."),),
    "Qwen3_5MoeForCausalLM": (("model.language_model.", "model."),),
}
_MULTIMODAL = frozenset({"text_config", "vision_config", "audio_config"})
_OTHER_MEDIA = ("vision", "visual", "audio", "image", "projector", "connector", "aligner", "resampler")
log = logging.getLogger("tenantry.adapters")


@dataclass(frozen=True, slots=True)
class Module:
    """One module that an adapter may change."""

    inputs: int | None  # None: the weights are packed, so that their shape is not known
    outputs: int | None
    experts: int = 0  # of a pair for all experts of a layer; 0 elsewhere
    is_embedding: bool = False


@dataclass(frozen=True, slots=True)
class BaseModelShape:
    """The modules of a base model, against which adapters are checked."""

    name: str  # last component of the source
    architecture: str
    modules: Mapping[str, Module]  # by path; those to which vLLM applies adapters
    fingerprint: str  # sha256, see `_fingerprint`
    unadaptable: Mapping[str, str] = field(default_factory=dict)  # path -> why vLLM ignores it

    def path(self, name: str) -> str:
        """Return the path that vLLM gives to a module, from its name in a checkpoint or an adapter."""
        return _renamed(name, self.architecture)


def find_shape(source: str, revision: str | None = None) -> BaseModelShape | None:
    """Read the shape of a base model, as far as it is on this machine; None where it is not.

    `source` is a folder or a hub id, found in the Hugging Face cache, never fetched. A base
    model that cannot be read is logged; adapters are not refused for it.
    """
    try:
        folder = folder_of(source, revision)
        if folder is None:
            return None
        return read_shape(folder, name=None if Path(source).is_absolute() else source)
    except AdapterError as error:
        log.warning("adapters of %s are checked without it: %s", source, error)
        return None


def read_shape(folder: Path, *, name: str | None = None) -> BaseModelShape:
    """Read the shape of the base model in a folder. Raises `AdapterError`."""
    try:
        config = read_json(folder / CONFIG_FILE)
        tensors = read_tensors(folder)
    except OSError as error:
        file = Path(error.filename).name if error.filename else CONFIG_FILE
        raise AdapterError(f"base model: {file} cannot be read: {error.strerror or error}") from error
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures or not isinstance(architectures[0], str):
        raise AdapterError(f"base model: {CONFIG_FILE} names no architecture")
    architecture = architectures[0]
    modules, unadaptable = _modules(tensors, architecture, config)
    named = name or config.get("_name_or_path") or folder.resolve().name
    return BaseModelShape(
        name=str(named).rstrip("/").rpartition("/")[2],
        architecture=architecture,
        modules=modules,
        fingerprint=_fingerprint(architecture, config, tensors),
        unadaptable=unadaptable,
    )


def folder_of(source: str, revision: str | None = None) -> Path | None:
    """Return the folder of a base model: `source` itself, or the hub's cache; None where it is not there."""
    return Path(source) if Path(source).is_absolute() else _cached_folder(source, revision)


def find_weight_bytes(source: str, revision: str | None = None, *, dtype: str = "auto") -> int | None:
    """Return the bytes of a base model's weights as an engine holds them, as far as it is on this machine.

    Floats take two bytes, or four with a `dtype` of float32; vLLM's `auto` makes halves of them too. None
    where no weights in safetensors are here; nothing is fetched. Raises `AdapterError` for damaged ones.
    """
    folder = folder_of(source, revision)
    if folder is None or not any((folder / name).is_file() for name in (INDEX_FILE, SINGLE_FILE)):
        return None
    try:
        tensors = read_tensors(folder)
    except OSError as error:
        raise AdapterError(f"base model: weights cannot be read: {error.strerror or error}") from error
    float_bytes = 4 if dtype in ("float32", "float") else 2
    return sum(
        math.prod(tensor.shape) * float_bytes if tensor.dtype in _FLOATS else tensor.end - tensor.begin
        for tensor in tensors
    )


def _cached_folder(hub_id: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(hub_id, CONFIG_FILE, revision=revision)
    except HFValidationError:
        return None
    return Path(path).parent if isinstance(path, str) else None


def weight_files(folder: Path) -> dict[str, frozenset[str] | None]:
    """Name the files that hold a base model's weights: file -> tensors that count there; None: all.

    Raises `AdapterError` and `OSError`.
    """
    index = folder / INDEX_FILE
    if not index.is_file():
        if not (folder / SINGLE_FILE).is_file():
            raise AdapterError(f"base model: there is neither {SINGLE_FILE} nor {INDEX_FILE}")
        return {SINGLE_FILE: None}
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not all(map(_is_plain_name, files.values())):
        raise AdapterError(f"base model: {INDEX_FILE} has no weight_map of names of files beside it")
    tensors: dict[str, set[str]] = {}
    for tensor, file in files.items():
        tensors.setdefault(file, set()).add(tensor)
    return {file: frozenset(tensors[file]) for file in sorted(tensors)}


def _is_plain_name(file: object) -> bool:
    return isinstance(file, str) and file not in ("", "..") and file == Path(file).name and "\0" not in file


def read_tensors(folder: Path) -> list[Tensor]:
    """List the tensors of a base model, of all its files. Raises `AdapterError` and `OSError`."""
    return [
        tensor
        for file, counting in weight_files(folder).items()
        for tensor in read_header(folder / file).tensors
        if counting is None or tensor.name in counting
    ]


def read_json(path: Path, *, max_bytes: int = _MAX_JSON_BYTES) -> dict[str, Any]:
    """Read a JSON object of a base model. Raises `AdapterError` and `OSError`."""
    if path.stat().st_size > max_bytes:
        raise AdapterError(f"base model: {path.name} is larger than {max_bytes} bytes")
    return parse_object(path.read_bytes(), f"base model: {path.name}")


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part about the language model: all of it, unless the model has others too."""
    text = config.get("text_config")
    return text if isinstance(text, dict) else config


def _fingerprint(architecture: str, config: Mapping[str, Any], tensors: Iterable[Tensor]) -> str:
    """Sha256 of a canonical JSON: `[architecture, {field: value}, [[name, dtype, shape], ...]]`.

    The fields are `_FINGERPRINT_FIELDS` that config.json has, in its text_config where there is one. Tensors
    are sorted by name: their spread over files does not matter. Their values are not read, so that a
    base model and its fine-tunes have one fingerprint.
    """
    text = _text_config(config)
    fields = {name: text[name] for name in _FINGERPRINT_FIELDS if text.get(name) is not None}
    weights = sorted([tensor.name, tensor.dtype, list(tensor.shape)] for tensor in tensors)
    canonical = json.dumps([architecture, fields, weights], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _renamed(name: str, architecture: str) -> str:
    dotted = f"{name}."  # as in a tensor's name, so that a rule for `lm_head.` matches the module
    for old, new in _RENAMES.get(architecture, ()):
        if dotted.startswith(old):
            dotted = new + dotted.removeprefix(old)
    return dotted[:-1]


def _modules(
    tensors: Iterable[Tensor], architecture: str, config: Mapping[str, Any]
) -> tuple[dict[str, Module], dict[str, str]]:
    """Split the checkpoint's matrices: modules to which vLLM applies adapters, and reasons for the others."""
    found: dict[str, Module] = {}
    for tensor in tensors:
        entry = _fused_experts(tensor, architecture) or _matrix(tensor)
        if entry is not None:
            name, module = entry
            found[_renamed(name, architecture)] = module
    _add_tied_head(found, architecture, config)
    unadaptable = {path: why for path in found if (why := _why_not(path, found[path], architecture, config))}
    return {path: found[path] for path in found if path not in unadaptable}, unadaptable


def _matrix(tensor: Tensor) -> tuple[str, Module] | None:
    """Return name and shape of the module a weight belongs to; None where it is no matrix."""
    for suffix in _PACKED_SUFFIXES:
        if tensor.name.endswith(suffix):
            return tensor.name.removesuffix(suffix), Module(None, None)
    if not tensor.name.endswith(".weight") or len(tensor.shape) != 2:
        return None
    name = tensor.name.removesuffix(".weight")
    outputs, inputs = tensor.shape
    if name.rpartition(".")[2] in _EMBEDDINGS:
        return name, Module(inputs=outputs, outputs=inputs, is_embedding=True)
    if tensor.dtype not in _FLOAT_WEIGHTS:  # bitsandbytes and NVFP4 pack several numbers into one byte
        return name, Module(None, None)
    return name, Module(inputs, outputs)


def _fused_experts(tensor: Tensor, architecture: str) -> tuple[str, Module] | None:
    """Return the module of a weight that holds all experts of a layer, named as PEFT names it."""
    if architecture not in _FUSED_EXPERTS:
        return None
    parent, _, last = tensor.name.removesuffix("_blocks").rpartition(".")
    names = {"gate_up_proj": f"{parent}.base_layer", "down_proj": parent}  # vllm/lora/lora_model.py
    if not parent.endswith(".experts") or last not in names:
        return None
    if len(tensor.shape) != 3:  # MXFP4 packs numbers into blocks
        return names[last], Module(None, None, experts=tensor.shape[0])
    experts, rows, columns = tensor.shape
    return names[last], Module(rows, columns, experts=experts)


def _add_tied_head(found: dict[str, Module], architecture: str, config: Mapping[str, Any]) -> None:
    """Name the output layer that a checkpoint leaves out because it is the input layer's matrix."""
    head = _renamed(_HEAD, architecture)
    embedding = next((module for module in found.values() if module.is_embedding), None)
    if head not in found and embedding is not None and _text_config(config).get("tie_word_embeddings", True):
        found[head] = Module(inputs=embedding.outputs, outputs=embedding.inputs)


def _why_not(path: str, module: Module, architecture: str, config: Mapping[str, Any]) -> str | None:
    """Return why vLLM refuses or ignores an adapter's weights for a module; None if it applies them."""
    last = path.rpartition(".")[2]
    is_served = last in _EMBEDDING_MODULES.get(architecture, frozenset())
    if (module.is_embedding or last == _HEAD) and not is_served:
        return f"vLLM has no LoRA for the {last} of {architecture}"
    # vLLM 0.32 wraps the language model alone, unless enable_tower_connector_lora is set.
    if not _MULTIMODAL.isdisjoint(config) and any(word in path.lower() for word in _OTHER_MEDIA):
        return f"vLLM applies LoRA to the language model of {architecture} only"
    return None

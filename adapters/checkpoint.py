"""Is this folder an adapter that an engine can take, and what is in it? Reads; changes and loads nothing.

Only what vLLM reads counts: `adapter_config.json` and the header of `adapter_model.safetensors`. Whatever
would make vLLM refuse the adapter, or serve it wrongly without a word, is refused here with what to do about
it. Files that run code when they are read (pickles) are refused wherever they lie in the folder.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.errors import AdapterError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
SERVED_FILES = (CONFIG_FILE, WEIGHTS_FILE)  # an engine reads these and nothing else

_MAX_CONFIG_BYTES = 2**20
_MAX_HEADER_BYTES = 32 * 2**20  # two tensors of every layer and module take well under 1 MiB
_MAX_FILES = 10_000
_PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})
_ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z"})
_ITEM_BYTES = {
    "F64": 8,
    "I64": 8,
    "F32": 4,
    "I32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I8": 1,
}

# vLLM 0.32, `lora/peft_helper.py`: these change what the weights mean, and it does not implement them.
_UNSUPPORTED = {
    "use_dora": "DoRA",
    "lora_bias": "LoRA bias",
    "modules_to_save": "modules_to_save (whole layers beside the adapter)",
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "layer replication",
    "use_bdlora": "block-diagonal LoRA",
    "use_qalora": "QA-LoRA",
    "trainable_token_indices": "trained tokens",
}
_PLAIN_INITS = frozenset(
    {"gaussian", "eva", "orthogonal", "mica", "lora_ga"}
)  # of named ones; true and false too


@dataclass(frozen=True, slots=True)
class AdapterManifest:
    """What an adapter folder holds."""

    rank: int  # the largest of any module
    alpha: float
    target_modules: tuple[str, ...]  # sorted; a pattern stands alone
    base_model_name_or_path: str | None  # as the training wrote it
    size_bytes: int  # of the served files
    digest: str  # sha256 over (name, sha256) of the served files


def inspect_adapter(folder: Path) -> AdapterManifest:
    """Check an adapter folder and describe it; reads all of it, for the digest. Raises `AdapterError`."""
    try:
        _check_files(folder)
        config = _read_config(folder / CONFIG_FILE)
        rank = _rank(config, folder)
        _check_weights(folder / WEIGHTS_FILE, rank)
        return AdapterManifest(
            rank=rank,
            alpha=_number(config.get("lora_alpha"), folder),
            target_modules=_target_modules(config, folder),
            base_model_name_or_path=_text_or_none(config.get("base_model_name_or_path")),
            size_bytes=sum((folder / name).stat().st_size for name in SERVED_FILES),
            digest=_digest(folder),
        )
    except OSError as error:
        where = error.filename or folder
        raise AdapterError(
            f"{where} cannot be read: {error.strerror or error}; check its permissions"
        ) from error


def _check_files(folder: Path) -> None:
    """Refuse a folder with links that leave it, special files, pickles or archives."""
    if not folder.is_dir():
        raise AdapterError(f"{folder} is not a folder; an adapter is the folder that PEFT saved")
    root = folder.resolve()
    for count, path in enumerate(_walk(folder)):
        if count >= _MAX_FILES:
            raise AdapterError(f"{folder} holds more than {_MAX_FILES} files; name the adapter's own folder")
        if not path.resolve().is_relative_to(root):
            raise AdapterError(f"{path} is a link that leaves the folder; copy its target (`cp -rL`)")
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise AdapterError(f"{path} is neither a file nor a folder; remove it")
        suffix = path.suffix.lower()
        if suffix in _PICKLES:
            raise AdapterError(
                f"{path} is a pickle, which runs code when it is read; remove it, or save the adapter again "
                "with safe_serialization=True if these are its weights"
            )
        if suffix in _ARCHIVES:
            raise AdapterError(f"{path} is an archive; unpack it elsewhere and remove it")
    for name in SERVED_FILES:
        if not (folder / name).is_file():
            raise AdapterError(f"{folder} has no {name}; an adapter is the folder that PEFT saved")


def _walk(folder: Path) -> Iterator[Path]:
    """Every entry below the folder; does not go through links."""
    for root, folders, files in os.walk(folder, followlinks=False):
        for name in (*folders, *files):
            yield Path(root) / name


def _read_config(path: Path) -> dict[str, Any]:
    """Parse adapter_config.json and refuse what vLLM cannot serve."""
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise AdapterError(f"{path} is larger than {_MAX_CONFIG_BYTES} bytes; PEFT's has a few thousand")
    config = _parse_object(path.read_bytes(), path)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise AdapterError(f"{path}: peft_type is {_short(kind)}; only LORA adapters can be served")
    if config.get("bias", "none") != "none":
        raise AdapterError(f"{path}: bias is {_short(config['bias'])}; train with bias='none'")
    for key, what in _UNSUPPORTED.items():
        if config.get(key):
            raise AdapterError(f"{path}: {key} is set, and vLLM has no {what}; train without it")
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in _PLAIN_INITS:
        raise AdapterError(
            f"{path}: init_lora_weights is {_short(init)}, which changes the base model; convert the adapter "
            "with PEFT's path_initial_model_for_weight_conversion"
        )
    return config


def _rank(config: dict[str, Any], folder: Path) -> int:
    """Return the largest rank of any module."""
    pattern = config.get("rank_pattern") or {}
    ranks = [config.get("r"), *(pattern.values() if isinstance(pattern, dict) else [None])]
    if not all(type(rank) is int and rank > 0 for rank in ranks):
        raise AdapterError(f"{folder / CONFIG_FILE}: r and rank_pattern must be whole numbers above 0")
    return int(max(ranks))


def _number(value: Any, folder: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise AdapterError(f"{folder / CONFIG_FILE}: lora_alpha must be a number")
    return float(value)


def _target_modules(config: dict[str, Any], folder: Path) -> tuple[str, ...]:
    modules = config.get("target_modules")
    if isinstance(modules, str) and modules:
        return (modules,)
    if isinstance(modules, list) and modules and all(isinstance(module, str) for module in modules):
        return tuple(sorted(modules))
    raise AdapterError(f"{folder / CONFIG_FILE}: target_modules must be a list of names, or a pattern")


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _check_weights(path: Path, rank: int) -> None:
    """Check the safetensors header: each tensor in the file, of LoRA, and of no larger rank than told."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
            raise AdapterError(f"{path} is not a safetensors file, or cut short; copy it again")
        header = _parse_object(file.read(length), path)
    header.pop("__metadata__", None)
    if not header:
        raise AdapterError(f"{path} holds no tensors; save the adapter again")
    for name, tensor in header.items():
        shape = _shape(tensor, data_bytes=size - 8 - length)
        if shape is None:
            raise AdapterError(f"{path}: tensor {_short(name)} lies outside the file; copy it again")
        if "lora_" not in name or "magnitude" in name:
            raise AdapterError(
                f"{path}: {_short(name)} is no LoRA tensor; save the adapter alone, without its base"
            )
        if name.endswith(".lora_A.weight") and ".experts" not in name and shape[0] > rank:
            raise AdapterError(
                f"{path}: {_short(name)} has rank {shape[0]}, {CONFIG_FILE} says {rank}; save both together"
            )


def _shape(tensor: Any, *, data_bytes: int) -> tuple[int, ...] | None:
    """Return a tensor's shape when its place in the file is right for it, else None."""
    try:
        shape, (begin, end) = tuple(tensor["shape"]), tensor["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
            return None
        fits = end - begin == math.prod(shape) * _ITEM_BYTES[tensor["dtype"]] and end <= data_bytes
    except (TypeError, KeyError, ValueError):
        return None
    return shape if fits and shape else None


def _parse_object(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise AdapterError(f"{path} does not hold a JSON object where one belongs; copy it again")
    return value


def _digest(folder: Path) -> str:
    """Sha256 over the served files' names and contents; the same wherever the folder lies."""
    total = hashlib.sha256()
    for name in sorted(SERVED_FILES):
        with (folder / name).open("rb") as file:
            total.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def _short(value: Any) -> str:
    """Show a value of somebody else's file in one short line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

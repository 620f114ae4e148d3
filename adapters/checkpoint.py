"""Is this folder an adapter that an engine can take, and what is in it? Reads; changes and loads nothing.

Only what vLLM reads counts: `adapter_config.json` and `adapter_model.safetensors`. Whatever would make vLLM
refuse the adapter, or serve it wrongly without a word, is refused here with what to do about it. Other files
are never opened. No message says where the folder is.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard

from adapters.errors import AdapterError
from adapters.layout import CONFIG_FILE, MAX_NAMES, SERVED_FILES, WEIGHTS_FILE, why_not
from adapters.tensors import FLOATS, Header, Tensor, parse_object, read_header, short

FINGERPRINT_KEY = "base_model_fingerprint"  # ours, in either file; `adapters.base_model` says what it is

_MAX_CONFIG_BYTES = 2**20
_MAX_HEADER_BYTES = 16 * 2**20  # 128 experts in each of 94 layers take 11 MiB; anything else far below 1 MiB

# These change what the weights mean, and vLLM does not implement them (0.32, `lora/peft_helper.py`); the last
# three it does not even read (PEFT 0.21, `tuners/lora/config.py`).
_UNSUPPORTED = {
    "use_dora": "DoRA",
    "lora_bias": "LoRA bias",
    "modules_to_save": "modules_to_save (whole layers beside the adapter)",
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "layer replication",
    "use_bdlora": "block-diagonal LoRA",
    "use_qalora": "QA-LoRA",
    "trainable_token_indices": "trained tokens",
    "arrow_config": "Arrow routing between adapters",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
}
_PLAIN_INITS = frozenset(
    {"gaussian", "eva", "orthogonal", "mica", "lora_ga"}
)  # of named ones; true and false too

# vLLM matches every key of rank_pattern and alpha_pattern as a regular expression with every module, in the
# loop that serves everybody: what could take long there is not let in. Its cache of compiled patterns holds
# some hundreds; with 1000 keys and modules, matching took over 20 s, with 300 half a second.
_MAX_PATTERNS = 300
_MAX_PATTERN_LENGTH = 256
_MAX_NAME_LENGTH = 512  # of a tensor
_PATTERN = re.compile(r"(?:\\d\+|\[0-9\]\+|[\w.\-^$|()\[\]]|\\[.dw])+", re.ASCII)


@dataclass(frozen=True, slots=True)
class AdapterManifest:
    """What an adapter folder holds."""

    rank: int  # the largest of any module
    alpha: float
    target_modules: tuple[str, ...]  # sorted; a pattern stands alone
    base_model_name_or_path: str | None  # as the training wrote it
    size_bytes: int  # of the served files
    digest: str  # sha256 over (name, sha256) of the served files
    base_model_fingerprint: str | None = None  # of the base model that the adapter names
    warnings: tuple[str, ...] = ()  # what is not wrong, but may not be meant


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What counts of adapter_config.json."""

    default_rank: int
    alpha: float
    target_modules: frozenset[str]
    target_pattern: bool  # `target_modules` is one pattern, or "all-linear"
    base_model_name_or_path: str | None
    fingerprint: str | None
    rank_pattern: tuple[tuple[re.Pattern[str], int], ...]
    sha256: str

    @property
    def rank(self) -> int:
        """The largest rank of any module."""
        return max(self.default_rank, *(rank for _, rank in self.rank_pattern), 0)

    def rank_of(self, module: str) -> int:
        """Return the rank of a module, named as in the adapter without `base_model.model.`."""
        return next((r for pattern, r in self.rank_pattern if pattern.match(module)), self.default_rank)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An adapter folder whose files have the right form; of the weights only the header was read."""

    folder: Path
    config: AdapterConfig
    header: Header

    @property
    def weights(self) -> Path:
        """The file that holds the tensors."""
        return self.folder / WEIGHTS_FILE

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the base model that the adapter names, if it does."""
        return self.config.fingerprint or self.header.metadata.get(FINGERPRINT_KEY)


def inspect_adapter(folder: Path) -> AdapterManifest:
    """Check an adapter folder and describe it; reads all of it, for the digest. Raises `AdapterError`."""
    with readable():
        checkpoint = open_checkpoint(folder)
        with checkpoint.weights.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return describe(checkpoint, sha256)


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """Turn an `OSError` about a file of an adapter into an `AdapterError` that names it."""
    try:
        yield
    except OSError as error:
        file = short(Path(error.filename).name) if error.filename else "the adapter"
        raise AdapterError(
            f"{file} cannot be read: {error.strerror or error}; check its permissions"
        ) from error


def open_checkpoint(folder: Path) -> Checkpoint:
    """Check everything but the numbers themselves. Raises `AdapterError` and `OSError`."""
    check_files(folder)
    config = _read_config(folder / CONFIG_FILE)
    header = read_header(folder / WEIGHTS_FILE, max_bytes=_MAX_HEADER_BYTES)
    if not header.tensors:
        raise AdapterError(f"{WEIGHTS_FILE} holds no tensors; save the adapter again")
    for tensor in header.tensors:
        _check_tensor(tensor, config.rank)
    named = header.metadata.get(FINGERPRINT_KEY)
    if named and config.fingerprint and named != config.fingerprint:
        raise AdapterError(f"{CONFIG_FILE} and {WEIGHTS_FILE} name different values of {FINGERPRINT_KEY}")
    return Checkpoint(folder, config, header)


def describe(checkpoint: Checkpoint, weights_sha256: str, warnings: tuple[str, ...] = ()) -> AdapterManifest:
    """Put together what is known; `weights_sha256` is of the weights file. Raises `OSError`."""
    config = checkpoint.config
    digests = {CONFIG_FILE: config.sha256, WEIGHTS_FILE: weights_sha256}
    lines = (f"{name}\0{digests[name]}\n" for name in sorted(SERVED_FILES))
    return AdapterManifest(
        rank=config.rank,
        alpha=config.alpha,
        target_modules=tuple(sorted(config.target_modules)),
        base_model_name_or_path=config.base_model_name_or_path,
        size_bytes=sum((checkpoint.folder / name).stat().st_size for name in SERVED_FILES),
        digest=hashlib.sha256("".join(lines).encode()).hexdigest(),
        base_model_fingerprint=checkpoint.fingerprint,
        warnings=warnings,
    )


def check_files(folder: Path) -> None:
    """Refuse a folder without the two files, or with links that leave it or pipes in their place.

    Raises `AdapterError` and `OSError`.
    """
    if not folder.is_dir():
        raise AdapterError("this is not a folder; an adapter is the folder that PEFT saved")
    if not all(os.path.lexists(folder / name) for name in SERVED_FILES):
        raise AdapterError(why_not(islice(_names(folder), MAX_NAMES)) or "the folder changes; try again")
    root = folder.resolve()
    for name in SERVED_FILES:
        path = folder / name
        if not path.resolve().is_relative_to(root):
            raise AdapterError(f"{name} is a link that leaves the folder; copy its target (`cp -rL`)")
        if not stat.S_ISREG(path.stat().st_mode):
            raise AdapterError(f"{name} is no file; an adapter is the folder that PEFT saved")


def _names(folder: Path) -> Iterator[str]:
    """Every file of a folder and below, those right in it first; does not go through links."""
    for root, _, files in os.walk(folder, followlinks=False):
        for name in files:
            yield (Path(root) / name).relative_to(folder).as_posix()


def _read_config(path: Path) -> AdapterConfig:
    """Parse adapter_config.json and refuse what vLLM cannot serve."""
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise AdapterError(
            f"{CONFIG_FILE} is larger than {_MAX_CONFIG_BYTES} bytes; PEFT's has a few thousand"
        )
    raw = path.read_bytes()
    config = parse_object(raw, CONFIG_FILE)
    _check_kind(config)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not _is_rank(rank):
        raise AdapterError(f"{CONFIG_FILE}: r and rank_pattern must be whole numbers above 0")
    if not _is_number(alpha):
        raise AdapterError(f"{CONFIG_FILE}: lora_alpha must be a number")
    return AdapterConfig(
        default_rank=rank,
        alpha=float(alpha),
        target_modules=_target_modules(config),
        target_pattern=isinstance(config["target_modules"], str),
        base_model_name_or_path=_text_or_none(config.get("base_model_name_or_path")),
        fingerprint=_fingerprint(config),
        rank_pattern=_patterns(config),
        sha256=hashlib.sha256(raw).hexdigest(),
    )


def _check_kind(config: Mapping[str, Any]) -> None:
    """Refuse every kind of adapter but plain LoRA."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise AdapterError(f"{CONFIG_FILE}: peft_type is {short(kind)}; only LORA adapters can be served")
    if config.get("bias", "none") != "none":
        raise AdapterError(f"{CONFIG_FILE}: bias is {short(config['bias'])}; train with bias='none'")
    for key, what in _UNSUPPORTED.items():
        if config.get(key):
            raise AdapterError(f"{CONFIG_FILE}: {key} is set, and vLLM has no {what}; train without it")
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in _PLAIN_INITS:
        raise AdapterError(
            f"{CONFIG_FILE}: init_lora_weights is {short(init)}, which changes the base model; "
            "convert the adapter with PEFT's path_initial_model_for_weight_conversion"
        )
    if not isinstance(config.get("use_rslora", False), bool):
        raise AdapterError(f"{CONFIG_FILE}: use_rslora must be true or false")


def _is_rank(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 < value < 2**31


def _is_number(value: Any) -> TypeGuard[float]:
    # An integer may be too long for a float.
    return type(value) in (int, float) and abs(value) < 2**63 and math.isfinite(value)


def _patterns(config: Mapping[str, Any]) -> tuple[tuple[re.Pattern[str], int], ...]:
    """Read rank_pattern, and check alpha_pattern, which vLLM reads alike."""
    ranks, alphas = (config.get(key) or {} for key in ("rank_pattern", "alpha_pattern"))
    if not isinstance(ranks, dict) or not all(map(_is_rank, ranks.values())):
        raise AdapterError(f"{CONFIG_FILE}: r and rank_pattern must be whole numbers above 0")
    if not isinstance(alphas, dict) or not all(map(_is_number, alphas.values())):
        raise AdapterError(f"{CONFIG_FILE}: alpha_pattern must hold numbers")
    if len(ranks) + len(alphas) > _MAX_PATTERNS:
        raise AdapterError(
            f"{CONFIG_FILE}: rank_pattern and alpha_pattern have more than {_MAX_PATTERNS} entries; "
            "give several modules one pattern"
        )
    for key in alphas:
        _compiled(key)
    return tuple((_compiled(key), rank) for key, rank in ranks.items())


def _compiled(key: str) -> re.Pattern[str]:
    """Compile a module's name or a simple pattern, as `PEFTHelper._match_pattern` of vLLM does."""
    is_simple = (
        len(key) <= _MAX_PATTERN_LENGTH
        and _PATTERN.fullmatch(key) is not None
        and key.count("+") <= 2
        and key.count("(") <= 2
    )
    try:
        if is_simple:
            return re.compile(rf"(.*\.)?({key})$")
    except re.error:
        pass
    raise AdapterError(
        f"{CONFIG_FILE}: {short(key)} in rank_pattern or alpha_pattern is too involved to be matched safely; "
        "use names of modules"
    )


def _target_modules(config: Mapping[str, Any]) -> frozenset[str]:
    modules = config.get("target_modules")
    if isinstance(modules, str) and modules:
        return frozenset({modules})
    if modules == [] and config.get("target_parameters"):  # experts only
        return frozenset()
    if isinstance(modules, list) and modules and all(isinstance(module, str) for module in modules):
        return frozenset(modules)
    raise AdapterError(f"{CONFIG_FILE}: target_modules must be a list of names, or a pattern")


def _fingerprint(config: Mapping[str, Any]) -> str | None:
    value = config.get(FINGERPRINT_KEY)
    if value is not None and not isinstance(value, str):
        raise AdapterError(f"{CONFIG_FILE}: {FINGERPRINT_KEY} must be a text")
    return value or None


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _check_tensor(tensor: Tensor, rank: int) -> None:
    """Refuse what is not of LoRA, of a type that is not served, or of a larger rank than told."""
    name = short(tensor.name)
    if len(tensor.name) > _MAX_NAME_LENGTH:
        raise AdapterError(f"{WEIGHTS_FILE}: {name} is a name of more than {_MAX_NAME_LENGTH} characters")
    if "lora_" not in tensor.name or "magnitude" in tensor.name:
        hint = "save the adapter alone, without its base"
        if tensor.name.endswith(".base_layer.weight"):
            hint = "save it with save_embedding_layers=False"
        raise AdapterError(f"{WEIGHTS_FILE}: {name} is no LoRA tensor; {hint}")
    if tensor.dtype not in FLOATS:
        raise AdapterError(f"{WEIGHTS_FILE}: {name} has type {tensor.dtype}; save it as BF16, F16 or F32")
    if len(tensor.shape) != 2 or 0 in tensor.shape:
        raise AdapterError(
            f"{WEIGHTS_FILE}: {name} has shape {list(tensor.shape)}; LoRA tensors are matrices"
        )
    if tensor.name.endswith(".lora_A.weight") and ".experts" not in tensor.name and tensor.shape[0] > rank:
        raise AdapterError(
            f"{WEIGHTS_FILE}: {name} has rank {tensor.shape[0]}, {CONFIG_FILE} says {rank}; "
            "save both together"
        )

"""Can an engine take the adapter in this folder, and what is in it? Reads only; loads nothing.

Only two files count, since vLLM reads no others: `adapter_config.json` and `adapter_model.safetensors`. An
adapter that vLLM would refuse, or silently serve wrongly, is refused here with the remedy. Other files are
never opened. No message contains the folder's path.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard

from adapters.errors import AdapterError
from adapters.kind import never
from adapters.layout import CONFIG_FILE, LAYOUT, MAX_NAMES, SERVED_FILES, WEIGHTS_FILE, why_not
from adapters.patterns import TIME_LIMIT_S, Patterns, parameter_of, split_name
from adapters.tensors import FLOATS, Header, Tensor, parse_object, read_header, short

FINGERPRINT_KEY = "base_model_fingerprint"  # ours, in either file; see `adapters.base_model`

_MAX_CONFIG_BYTES = 2**20
_MAX_HEADER_BYTES = 16 * 2**20  # 128 experts in each of 94 layers take 11 MiB; anything else far below 1 MiB

# These change the weights' meaning, and vLLM does not implement them (0.32, `lora/peft_helper.py`); the last
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

# Of the starts that have a name these set the adapter alone (PEFT 0.21, `reset_lora_parameters` in
# `tuners/lora/layer.py`), as true and false do. With the others the adapter is a difference to a base model
# that PEFT changes each time it loads one. vLLM takes LoRA-GA's for such an adapter's, too, and is wrong.
_PLAIN_INITS = frozenset({"gaussian", "eva", "orthogonal", "mica"})
_CONVERTIBLE_INITS = ("pissa", "olora", "corda", "lora_ga")  # beginnings

_MAX_NAME_LENGTH = 512  # of a tensor


@dataclass(frozen=True, slots=True)
class AdapterManifest:
    """The contents of an adapter folder."""

    rank: int  # the largest of any module
    alpha: float
    target_modules: tuple[str, ...]  # sorted; a pattern stands alone
    base_model_name_or_path: str | None  # as the training wrote it
    size_bytes: int  # of the served files, likewise
    digest: str  # sha256 over (name, sha256) of the served files, the config as engines get it
    base_model_fingerprint: str | None = None  # of the base model that the adapter names
    warnings: tuple[str, ...] = ()  # not faults, but perhaps not intended
    is_effective: bool = False  # every tensor belongs to a module of the base model and is not zero


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """The fields of adapter_config.json that matter."""

    default_rank: int
    alpha: float
    target_modules: frozenset[str]
    target_pattern: bool  # `target_modules` is one pattern, or "all-linear"
    base_model_name_or_path: str | None
    fingerprint: str | None
    rank: int  # the largest of any module
    ranks: Mapping[str, int]  # of modules with one of their own, named as in the adapter without its prefix
    alphas: Mapping[str, float]  # likewise
    content: bytes  # of the file that engines read: the given config, in vLLM's spelling

    def rank_of(self, module: str) -> int:
        """Return the rank of a module, named as in the adapter without `base_model.model.`."""
        return self.ranks.get(module, self.default_rank)

    def alpha_of(self, module: str) -> float:
        """Return the alpha of a module, named likewise."""
        return self.alphas.get(module, self.alpha)


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


def put_plainly(folder: Path) -> None:
    """Give a folder of ours the config that engines understand. Raises `AdapterError` and `OSError`."""
    with readable():
        content = open_checkpoint(folder).config.content
    if content != (folder / CONFIG_FILE).read_bytes():
        (folder / f".{CONFIG_FILE}.plain").write_bytes(content)
        (folder / f".{CONFIG_FILE}.plain").replace(folder / CONFIG_FILE)


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
    header = read_header(folder / WEIGHTS_FILE, max_bytes=_MAX_HEADER_BYTES)
    names = (split_name(tensor.name) for tensor in header.tensors if len(tensor.name) <= _MAX_NAME_LENGTH)
    config = _read_config(folder / CONFIG_FILE, {parameter_of(name[0]) for name in names if name})
    if not header.tensors:
        raise AdapterError(f"{WEIGHTS_FILE} holds no tensors; save the adapter again")
    for tensor in header.tensors:
        _check_tensor(tensor, config.rank)
    named = header.metadata.get(FINGERPRINT_KEY)
    if named and config.fingerprint and named != config.fingerprint:
        raise AdapterError(f"{CONFIG_FILE} and {WEIGHTS_FILE} name different values of {FINGERPRINT_KEY}")
    return Checkpoint(folder, config, header)


def describe(checkpoint: Checkpoint, weights_sha256: str, warnings: tuple[str, ...] = ()) -> AdapterManifest:
    """Build the manifest; `weights_sha256` is of the weights file. Raises `OSError`."""
    config = checkpoint.config
    digests = {CONFIG_FILE: hashlib.sha256(config.content).hexdigest(), WEIGHTS_FILE: weights_sha256}
    lines = (f"{name}\0{digests[name]}\n" for name in sorted(SERVED_FILES))
    return AdapterManifest(
        rank=config.rank,
        alpha=config.alpha,
        target_modules=tuple(sorted(config.target_modules)),
        base_model_name_or_path=config.base_model_name_or_path,
        size_bytes=len(config.content) + checkpoint.weights.stat().st_size,
        digest=hashlib.sha256("".join(lines).encode()).hexdigest(),
        base_model_fingerprint=checkpoint.fingerprint,
        warnings=warnings,
    )


def check_files(folder: Path) -> None:
    """Refuse a folder where one of the two files is missing, a link that leaves it, or a pipe.

    Raises `AdapterError` and `OSError`.
    """
    if not folder.is_dir():
        raise AdapterError("this is not a folder; an adapter is the folder that PEFT saved")
    if not all(os.path.lexists(folder / name) for name in SERVED_FILES):
        raise AdapterError(why_not(islice(_names(folder), MAX_NAMES)) or "the folder changes; try again")
    root = Path(os.path.realpath(folder))
    for name in SERVED_FILES:
        path = folder / name
        if not Path(os.path.realpath(path)).is_relative_to(root):  # of a link to itself `stat` tells
            raise AdapterError(f"{name} is a link that leaves the folder; copy its target (`cp -rL`)")
        if not stat.S_ISREG(path.stat().st_mode):
            raise AdapterError(f"{name} is no file; an adapter is the folder that PEFT saved")


def _names(folder: Path) -> Iterator[str]:
    """Every file of a folder and below, top level first; does not follow links."""
    for root, _, files in os.walk(folder, followlinks=False):
        for name in files:
            yield (Path(root) / name).relative_to(folder).as_posix()


def _read_config(path: Path, modules: Collection[str]) -> AdapterConfig:
    """Parse adapter_config.json and refuse any that vLLM cannot serve; `modules` are those with weights."""
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise AdapterError(
            f"{CONFIG_FILE} is larger than {_MAX_CONFIG_BYTES} bytes; PEFT's has a few thousand"
        )
    raw = path.read_bytes()
    given = parse_object(raw, CONFIG_FILE)
    changes = _in_plain_words(given)
    config = {**given, **changes}
    _check_kind(config)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    ranks, alphas = _pattern(config, "rank_pattern"), _pattern(config, "alpha_pattern")
    if not _is_rank(rank) or not all(map(_is_rank, ranks.values())):
        raise AdapterError(f"{CONFIG_FILE}: r and rank_pattern must be whole numbers above 0")
    if not _is_number(alpha):
        raise AdapterError(f"{CONFIG_FILE}: lora_alpha must be a number")
    if not all(map(_is_number, alphas.values())):
        raise AdapterError(f"{CONFIG_FILE}: alpha_pattern must hold numbers")
    rank_pattern = Patterns(f"{CONFIG_FILE}: rank_pattern", ranks)
    alpha_pattern = Patterns(f"{CONFIG_FILE}: alpha_pattern", alphas)
    deadline_s = time.monotonic() + TIME_LIMIT_S
    found = rank_pattern.found(modules, deadline_s)
    found_alphas = alpha_pattern.found(modules, deadline_s)
    if not (rank_pattern.is_fast(len(modules)) and alpha_pattern.is_fast(len(modules))):
        changes["rank_pattern"] = rank_pattern.named(found, modules)
        changes["alpha_pattern"] = alpha_pattern.named(found_alphas, modules)
    return AdapterConfig(
        default_rank=rank,
        alpha=float(alpha),
        target_modules=_target_modules(config),
        target_pattern=isinstance(config["target_modules"], str),
        base_model_name_or_path=_text_or_none(config.get("base_model_name_or_path")),
        fingerprint=_fingerprint(config),
        rank=max((rank, *ranks.values())),
        ranks=found,
        alphas=found_alphas,
        content=json.dumps({**given, **changes}, indent=2).encode() if changes else raw,
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
    _check_init(config.get("init_lora_weights", True))
    if config.get("use_rslora") not in (None, True, False):
        raise AdapterError(f"{CONFIG_FILE}: use_rslora must be true or false")


def _check_init(init: Any) -> None:
    """Refuse an adapter that is relative to a base model that is not available."""
    if not isinstance(init, str) or init.lower() in _PLAIN_INITS:
        return
    if init.lower().startswith(_CONVERTIBLE_INITS):
        raise AdapterError(
            f"{CONFIG_FILE}: init_lora_weights is {short(init)}, which changes the base model; convert "
            "the adapter: load it with PEFT and save it with path_initial_model_for_weight_conversion=<the "
            "adapter as it was before the training>"
        )
    if init.lower() == "loftq":
        raise AdapterError(
            f"{CONFIG_FILE}: init_lora_weights is {short(init)}, which changes the base model, and PEFT "
            "cannot convert the adapter; train it with another start, or serve the base model that LoftQ "
            "made and set init_lora_weights to true"
        )
    raise AdapterError(
        f"{CONFIG_FILE}: init_lora_weights is {short(init)}, of which it is not known whether it changes the "
        "base model; if it does not, set it to true"
    )


def _is_rank(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 < value < 2**31


def _is_number(value: Any) -> TypeGuard[float]:
    # An integer may be too long for a float.
    return type(value) in (int, float) and abs(value) < 2**63 and math.isfinite(value)


def _whole(value: Any) -> Any:
    """Return a whole number as such, where JSON has it as 8.0."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**31 else value


def _pattern(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, dict):
        raise AdapterError(f"{CONFIG_FILE}: {key} must be numbers by module")
    return value


def _in_plain_words(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rewrite settings that vLLM would refuse or misread into the form that it understands."""
    changes: dict[str, Any] = {}
    for key, meant in (("bias", "none"), ("use_rslora", False)):
        if key in config and config[key] is None:
            changes[key] = meant
    if isinstance(config.get("r"), float):
        changes["r"] = _whole(config["r"])
    ranks = config.get("rank_pattern")
    if isinstance(ranks, dict) and any(isinstance(rank, float) for rank in ranks.values()):
        changes["rank_pattern"] = {key: _whole(rank) for key, rank in ranks.items()}
    return changes


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
    """Refuse a tensor that is not LoRA's, of an unsupported type, or of a larger rank than the config's."""
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


class _Adapters:
    """The kind of folder that an adapter is. Implements `Kind`."""

    noun = "adapter"
    promised = WEIGHTS_FILE
    layout = LAYOUT

    def serves(self, name: str) -> bool:
        return name in SERVED_FILES

    def why_not(self, names: Iterable[str]) -> str | None:
        return why_not(names)

    def steps(
        self, listed: Callable[[], Collection[str]], here: Callable[[str], Path]
    ) -> Iterator[Sequence[str]]:
        yield SERVED_FILES

    def files_in(self, folder: Path) -> Sequence[str]:
        with readable():
            check_files(folder)
        return SERVED_FILES

    def inspect(self, folder: Path, should_stop: Callable[[], bool] = never) -> AdapterManifest:
        return inspect_adapter(folder)

    def put_plainly(self, folder: Path) -> None:
        put_plainly(folder)


ADAPTER = _Adapters()

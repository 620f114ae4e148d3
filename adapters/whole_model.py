"""Can an engine take the whole model in this folder, and what is in it? Reads headers and small files.

Only weights in safetensors are taken, and the files beside them that vLLM and transformers read. What runs
code when it is read (pickles, Python files, `auto_map`) is neither taken nor served. No message contains the
folder's path.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.base_model import CONFIG_FILE, INDEX_FILE, SINGLE_FILE, read_json, weight_files
from adapters.checkpoint import readable
from adapters.errors import AdapterError, SourceUnavailable
from adapters.kind import never
from adapters.tensors import CHUNK_BYTES, read_header, short

# What vLLM (0.32) and transformers (5) read beside configuration and weights: tokenizer, templates, defaults
# of sampling, processors of other media, quantisation.
OTHER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "hf_quant_config.json",
    "merges.txt",
    "params.json",
    "preprocessor_config.json",
    "processor_config.json",
    "quantize_config.json",
    "special_tokens_map.json",
    "tekken.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
)
MAX_CONFIG_BYTES = 16 * 2**20  # config.json has some thousands
MAX_OTHER_BYTES = 256 * 2**20  # the largest tokenizers have some 40 MiB
MAX_WEIGHT_FILES = 2000
LAYOUT = (
    "config.json and model.safetensors (or model.safetensors.index.json with the files that it names) must "
    "lie right under the source (pytorch_model.bin is a pickle and never read: save the model again with "
    "safe_serialization=True)"
)
_SMALL = frozenset({CONFIG_FILE, INDEX_FILE, *OTHER_FILES})
_WEIGHTS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}\.safetensors")
_PICKLED = re.compile(r"[^/]+\.(bin|pt|pth|ckpt|pkl|pickle)")


@dataclass(frozen=True, slots=True)
class ModelManifest:
    """The contents of a whole model's folder."""

    digest: str  # sha256 over (name, sha256) of its files; engines that take turns know it by the same one
    size_bytes: int
    architecture: str
    tensors: int


class _WholeModels:
    """The kind of folder that a whole model is. Implements `Kind`."""

    noun = "model"
    promised = SINGLE_FILE
    layout = LAYOUT

    def serves(self, name: str) -> bool:
        return name in _SMALL or _WEIGHTS.fullmatch(name) is not None

    def why_not(self, names: Iterable[str]) -> str | None:
        found = set(names)
        if CONFIG_FILE not in found:
            below = sorted(name.rpartition("/")[0] for name in found if name.endswith(f"/{CONFIG_FILE}"))
            if below:
                return f"the folder has no {CONFIG_FILE}; models lie below it, as in {short(below[0])[1:-1]}"
            return f"the folder has no {CONFIG_FILE}; a model is the folder that save_pretrained wrote"
        if SINGLE_FILE in found or INDEX_FILE in found:
            return None
        pickled = next((name for name in sorted(found) if _PICKLED.fullmatch(name)), None)
        if pickled is not None:
            return (
                f"{short(pickled)[1:-1]} is a pickle, which runs code when it is read; save the model again "
                "with safe_serialization=True"
            )
        return f"the folder has neither {SINGLE_FILE} nor {INDEX_FILE}"

    def steps(
        self, listed: Callable[[], Collection[str]], here: Callable[[str], Path]
    ) -> Iterator[Sequence[str]]:
        names = set(listed())
        reason = self.why_not(names)
        if reason is not None:
            raise AdapterError(reason)
        yield sorted(_SMALL & names)
        indexed = _indexed(read_json(here(INDEX_FILE))) if INDEX_FILE in names else [SINGLE_FILE]
        yield indexed

    def files_in(self, folder: Path) -> Sequence[str]:
        with readable():
            if not folder.is_dir():
                raise AdapterError("this is not a folder; a model is the folder that save_pretrained wrote")
            reason = self.why_not(path.name for path in folder.iterdir())
            if reason is not None:
                raise AdapterError(reason)
            weights = list(weight_files(folder))
            if len(weights) > MAX_WEIGHT_FILES:
                raise AdapterError(f"its weights lie in more than {MAX_WEIGHT_FILES} files")
            names = sorted({*weights, *(name for name in _SMALL if (folder / name).exists())})
            for name in names:
                check_plain(folder, name)
            return names

    def inspect(self, folder: Path, should_stop: Callable[[], bool] = never) -> ModelManifest:
        names = self.files_in(folder)
        with readable():
            config = read_json(folder / CONFIG_FILE, max_bytes=MAX_CONFIG_BYTES)
            architecture = _checked(config)
            for name in names:
                if name in _SMALL and (folder / name).stat().st_size > MAX_OTHER_BYTES:
                    raise AdapterError(f"{name} is larger than {MAX_OTHER_BYTES} bytes")
            tensors = sum(
                _tensors_in(folder / file, counting) for file, counting in weight_files(folder).items()
            )
            lines = [f"{name}\0{_sha256(folder / name, should_stop)}\n" for name in names]
            size_bytes = sum((folder / name).stat().st_size for name in names)
        digest = hashlib.sha256("".join(lines).encode()).hexdigest()
        return ModelManifest(digest, size_bytes, architecture, tensors)

    def put_plainly(self, folder: Path) -> None:
        """Its files are served as they are."""


WHOLE_MODEL = _WholeModels()


def check_plain(folder: Path, name: str) -> None:
    """Refuse what is no plain file, or a link that leaves the folder. Raises `AdapterError`, `OSError`."""
    root = folder.resolve()
    target = Path(os.path.realpath(folder / name, strict=True))
    # The hub's cache keeps contents in `blobs`, beside the `snapshots` whose folders hold links to them.
    blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else root
    if not (target.is_relative_to(root) or target.is_relative_to(blobs)):
        raise AdapterError(f"{name!a} is a link that leaves the model's folder; copy its target")
    if not stat.S_ISREG(target.stat().st_mode):
        raise AdapterError(f"{name!a} is no plain file")


def _indexed(index: Mapping[str, Any]) -> Sequence[str]:
    """Name the files of weights that an index has. Raises `AdapterError` for names that no file may have."""
    files = index.get("weight_map")
    names = set(files.values()) if isinstance(files, dict) and _are_texts(files.values()) else set()
    wrong = next((name for name in names if not _WEIGHTS.fullmatch(name)), None)
    if not names or wrong is not None:
        which = f": {short(wrong)}" if wrong is not None else ""
        raise AdapterError(f"{INDEX_FILE} has no weight_map of safetensors files beside it{which}")
    if len(names) > MAX_WEIGHT_FILES:
        raise AdapterError(f"its weights lie in more than {MAX_WEIGHT_FILES} files")
    return sorted(names)


def _are_texts(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _checked(config: Mapping[str, Any]) -> str:
    """Return the architecture that a config names. Raises `AdapterError` for one with code of its own."""
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures or not isinstance(architectures[0], str):
        raise AdapterError(f"{CONFIG_FILE} names no architecture; save the model again")
    if config.get("auto_map"):
        raise AdapterError(
            f"{CONFIG_FILE} names code of the model's own (auto_map), which is never run; where vLLM knows "
            f"{short(architectures[0])[1:-1]} without it, remove auto_map"
        )
    return architectures[0]


def _tensors_in(path: Path, counting: frozenset[str] | None) -> int:
    """Check the header of a file of weights; return how many tensors of it count. Raises `AdapterError`."""
    names = {tensor.name for tensor in read_header(path).tensors}
    missing = sorted((counting or frozenset()) - names)
    if missing:
        raise AdapterError(f"{INDEX_FILE} has {short(missing[0])} in {path.name}, which lacks it")
    if not names:
        raise AdapterError(f"{path.name} holds no tensors; save the model again")
    return len(names if counting is None else counting)


def _sha256(path: Path, should_stop: Callable[[], bool]) -> str:
    """Hash a file. Raises `SourceUnavailable` when it is to stop, and `OSError`."""
    digest, buffer = hashlib.sha256(), bytearray(CHUNK_BYTES)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            if should_stop():
                raise SourceUnavailable("stopped before all of it was read")
            digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()

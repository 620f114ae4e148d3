"""Which files of a whole model does an engine read, and what do they say? Reads headers and small files.

A model of which anything is not as it should be is refused with the reason: an engine that begins to load it
in the place of another cannot go back. No message contains the folder's path.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapters.base_model import CONFIG_FILE, INDEX_FILE, read_json, weight_files
from adapters.errors import AdapterError
from adapters.tensors import read_header
from adapters.whole_model import MAX_OTHER_BYTES, MAX_WEIGHT_FILES, OTHER_FILES, check_plain
from engines.switching.shape import Contents, plain

_BY_VALUE = frozenset({"generation_config.json", "special_tokens_map.json", "tokenizer_config.json"})
MAX_SMALL_BYTES = 16 * 2**20  # of a JSON file that is read as a whole; config.json has some thousands
MAX_CODE_FILES = 100


class ModelUnreadable(Exception):
    """The files of a whole model are not as an engine would need them; the message says what is wrong."""


def read_contents(folder: Path) -> Contents:
    """Read what an engine reads of a model, but for the numbers. Raises `ModelUnreadable`."""
    with _readable():
        names = _names_of(folder)
        tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
        weight_bytes = 0
        for file, counting in weight_files(folder).items():
            found = {tensor.name: tensor for tensor in read_header(folder / file).tensors}
            missing = sorted((counting or frozenset()) - found.keys())
            if missing:
                raise ModelUnreadable(f"{INDEX_FILE} has {ascii(missing[0])[:80]} in {file}, which lacks it")
            for name in found.keys() if counting is None else counting:
                tensors[name] = found[name].dtype, found[name].shape
                weight_bytes += found[name].end - found[name].begin
        others = {name: _content_of(folder / name) for name in names if _is_other(name)}
        config = plain(read_json(folder / CONFIG_FILE, max_bytes=MAX_SMALL_BYTES))
        return Contents(config, tensors, others, weight_bytes)


def files_of(folder: Path) -> tuple[Path, ...]:
    """Return every file that an engine reads, in the order of names. Raises `ModelUnreadable`."""
    with _readable():
        return tuple(folder / name for name in _names_of(folder))


def _names_of(folder: Path) -> list[str]:
    weights = list(weight_files(folder))
    if len(weights) > MAX_WEIGHT_FILES:
        raise ModelUnreadable(f"its weights lie in more than {MAX_WEIGHT_FILES} files")
    code = [path.name for path in folder.glob("*.py")]
    if len(code) > MAX_CODE_FILES:
        raise ModelUnreadable(f"it has more than {MAX_CODE_FILES} files of code")
    beside = {path.name for path in folder.glob("*.safetensors")} - set(weights)
    if beside and not (folder / INDEX_FILE).is_file():  # vLLM would read all of them
        raise ModelUnreadable(f"it has {len(beside) + len(weights)} files of weights and no {INDEX_FILE}")
    others = [name for name in (*OTHER_FILES, INDEX_FILE) if (folder / name).exists()]
    names = sorted({CONFIG_FILE, *weights, *others, *code})
    for name in names:
        check_plain(folder, name)
    return names


def _is_other(name: str) -> bool:
    return name in OTHER_FILES or name.endswith(".py")


def _content_of(path: Path) -> Any:
    if path.name in _BY_VALUE:
        return plain(read_json(path, max_bytes=MAX_SMALL_BYTES))
    if path.stat().st_size > MAX_OTHER_BYTES:
        raise ModelUnreadable(f"{path.name} is larger than {MAX_OTHER_BYTES} bytes")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Turn every other error about a model's files into one that names the file."""
    try:
        yield
    except OSError as error:
        name = Path(error.filename).name if isinstance(error.filename, str) else "a file of the model"
        raise ModelUnreadable(f"{name} cannot be read: {error.strerror or error}") from error
    except (AdapterError, ValueError, RecursionError) as error:
        raise ModelUnreadable(str(error)) from error

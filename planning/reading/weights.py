"""Reads the numbers of two models side by side, a block of rows at a time; writes an adapter's."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from adapters.base_model import weight_files
from adapters.errors import AdapterError
from adapters.tensors import Tensor, read_header, short
from planning.spectrum import Block, Matrix

BLOCK_BYTES = 64 * 2**20  # of one model, as 32-bit numbers
_SAMPLED = 100_000  # numbers of a block from which rounding is estimated
_TYPES = {"F32": ("<f4", 23), "F16": ("<f2", 10), "BF16": ("<u2", 7)}  # how stored, bits of the fraction


@dataclass(frozen=True, slots=True)
class _Place:
    file: Path
    start: int  # of the tensors' data in the file
    tensor: Tensor


class Weights:
    """The tensors of one whole model, of all its files; a context that closes them."""

    def __init__(self, folder: Path) -> None:
        """Read the headers. Raises `AdapterError` and `OSError`."""
        self._places: dict[str, _Place] = {}
        for file, counting in weight_files(folder).items():
            header = read_header(folder / file)
            for tensor in header.tensors:
                if counting is None or tensor.name in counting:
                    self._places[tensor.name] = _Place(folder / file, header.data_start, tensor)
        self._files: dict[Path, IO[bytes]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Every tensor, by name."""
        return {name: place.tensor for name, place in self._places.items()}

    def rows(self, name: str, first: int, count: int) -> Matrix:
        """Return some rows of a tensor as 32-bit numbers. Raises `AdapterError` and `OSError`."""
        place = self._places[name]
        tensor = place.tensor
        if tensor.dtype not in _TYPES:
            raise AdapterError(f"{short(name)} has type {tensor.dtype}; quantised weights cannot be compared")
        kind, _ = _TYPES[tensor.dtype]
        size = (tensor.end - tensor.begin) // max(1, _row_count(tensor))
        file = self._file(place.file)
        file.seek(place.start + tensor.begin + first * size)
        raw = file.read(count * size)
        if len(raw) != count * size:
            raise AdapterError(f"{place.file.name} shrank while it was read")
        numbers: NDArray[Any] = np.frombuffer(raw, dtype=kind)
        if tensor.dtype == "BF16":
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        found: Matrix = numbers.astype(np.float32, copy=False).reshape(count, -1)
        return found

    def _file(self, path: Path) -> IO[bytes]:
        if path not in self._files:
            self._files[path] = self._stack.enter_context(path.open("rb"))
        return self._files[path]


def differences(tuned: Weights, base: Weights, name: str) -> Iterator[Block]:
    """Return a tensor's difference, tuned less base, block by block. Raises `AdapterError`, `OSError`."""
    for first, count in _blocks(tuned.tensors[name]):
        yield Block(first, tuned.rows(name, first, count) - base.rows(name, first, count))


@dataclass(frozen=True, slots=True)
class Change:
    """How much two tensors differ."""

    relative: float  # size of the difference by that of the base's tensor; 0: they are the same
    rounding: float  # variance that storing the tuned numbers has added to each, on average


def change_of(tuned: Weights, base: Weights, name: str) -> Change:
    """Compare a tensor of two models. Raises `AdapterError`, also for what is not finite, and `OSError`."""
    changed = whole = rounding = 0.0
    tensor = tuned.tensors[name]
    count_of = max(1, math.prod(tensor.shape))
    for first, count in _blocks(tensor):
        ours, theirs = tuned.rows(name, first, count), base.rows(name, first, count)
        whole += float(np.vdot(theirs, theirs).real)
        rounding += _rounding(ours, tensor.dtype) * ours.size / count_of
        if not np.array_equal(ours, theirs):
            ours = ours - theirs
            changed += float(np.vdot(ours, ours).real)
    if not (math.isfinite(changed) and math.isfinite(whole)):
        raise AdapterError(f"{short(name)} holds numbers that are not finite (NaN or Inf)")
    return Change(float((changed / max(whole, 1e-30)) ** 0.5), rounding)


def _blocks(tensor: Tensor) -> Iterator[tuple[int, int]]:
    """Return first row and number of rows of each block of a tensor."""
    rows = _row_count(tensor)
    columns = max(1, math.prod(tensor.shape) // max(1, rows))
    step = max(1, BLOCK_BYTES // (4 * columns))
    return ((first, min(step, rows - first)) for first in range(0, rows, step))


def write_tensors(
    path: Path, tensors: Mapping[str, Matrix], *, dtype: str, metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file of F32 or BF16 numbers. Raises `OSError`."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    raw = {name: _bits(numbers, dtype) for name, numbers in sorted(tensors.items())}
    end = 0
    for name, data in raw.items():
        shape = list(tensors[name].shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.writelines(raw.values())


def _bits(numbers: Matrix, dtype: str) -> bytes:
    plain = np.ascontiguousarray(numbers, dtype="<f4")
    if dtype == "F32":
        return plain.tobytes()
    bits = plain.view(np.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)  # to the nearest, halves to even
    return (rounded >> 16).astype("<u2").tobytes()


def _row_count(tensor: Tensor) -> int:
    return tensor.shape[0] if tensor.shape else 1


def _rounding(numbers: Matrix, dtype: str) -> float:
    """Return the variance that storing numbers in a type adds to each: a step's square by 12, on average."""
    bits = _TYPES[dtype][1]
    some = numbers.ravel()[:: max(1, numbers.size // _SAMPLED)]
    _, exponents = np.frexp(some)
    steps = np.ldexp(np.float32(1.0), exponents - 1 - bits)
    return float(np.mean(np.square(steps, dtype=np.float64))) / 12

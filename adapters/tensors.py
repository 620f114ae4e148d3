"""Reads a safetensors file's header and checks its numbers, in chunks; changes nothing.

The format (https://github.com/huggingface/safetensors#format): eight bytes of length, a JSON header, then the
tensors one after the other, without holes. A file that breaks these rules is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.errors import AdapterError

MAX_HEADER_BYTES = 100_000_000  # the library's own limit, MAX_HEADER_SIZE
CHUNK_BYTES = 4 * 2**20  # large enough that hashlib and numpy work outside the GIL nearly all the time
_MAX_DIMENSIONS = 8

_ITEM_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


@dataclass(frozen=True, slots=True)
class _Float:
    """How to tell a number's kind from its bits."""

    bits: str  # numpy's name of unsigned numbers of the same size
    magnitude: int  # every bit but the sign
    infinity: int  # magnitudes from here on are infinite or not a number


FLOATS = {
    "F32": _Float("<u4", 0x7FFFFFFF, 0x7F800000),
    "F16": _Float("<u2", 0x7FFF, 0x7C00),
    "BF16": _Float("<u2", 0x7FFF, 0x7F80),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of the header."""

    name: str
    dtype: str  # as safetensors writes it
    shape: tuple[int, ...]
    begin: int  # bytes from the start of the data
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a safetensors file."""

    tensors: tuple[Tensor, ...]  # in the order in which they lie in the file
    metadata: dict[str, str]
    data_start: int  # bytes from the start of the file


def read_header(path: Path, *, max_bytes: int = MAX_HEADER_BYTES) -> Header:
    """Read and check the header; none of the data. Raises `AdapterError` and `OSError`."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise AdapterError(f"{path.name} is not a safetensors file, or cut short; copy it again")
        if length > max_bytes:
            raise AdapterError(f"{path.name} has a header of more than {max_bytes} bytes; save it again")
        header = parse_object(file.read(length), path.name)
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise AdapterError(f"{path.name}: __metadata__ must hold texts only; save it again")
    tensors = sorted(
        (_tensor(name, entry, path.name) for name, entry in header.items()), key=lambda t: (t.begin, t.end)
    )
    _check_places(tensors, size - 8 - length, path.name)
    return Header(tuple(tensors), metadata, 8 + length)


def parse_object(raw: bytes, file: str) -> dict[str, Any]:
    """Parse a JSON object; a duplicate key is refused, since readers disagree on which one counts."""
    try:
        value = json.loads(raw, object_pairs_hook=_without_duplicates)
    except _DuplicateKey as error:
        raise AdapterError(f"{file}: {error} is given twice; save the adapter again") from None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise AdapterError(f"{file} does not hold a JSON object where one belongs; copy it again")
    return value


def short(value: object) -> str:
    """Show a value of a client's file in one short line."""
    text = ascii(value)
    return text if len(text) <= 160 else f"{text[:157]}..."


@dataclass(frozen=True, slots=True)
class Scan:
    """The result of reading a whole file."""

    sha256: str
    zeros: frozenset[str]  # tensors that hold nothing but zeros


def scan(path: Path, header: Header) -> Scan:
    """Read a file of F32, F16 and BF16 tensors once: its hash, and every number finite.

    Takes a few chunks of memory for any file size. Raises `AdapterError` for infinities, for values that are
    not numbers and for a file that changes meanwhile, `OSError` when it cannot be read.
    """
    digest = hashlib.sha256()
    zeros = set()
    buffer = bytearray(CHUNK_BYTES)
    with path.open("rb", buffering=0) as file:
        for chunk in _chunks(file, header.data_start, buffer, path.name):
            digest.update(chunk)
        for tensor in header.tensors:
            largest = 0
            kind = FLOATS[tensor.dtype]
            for chunk in _chunks(file, tensor.end - tensor.begin, buffer, path.name):
                digest.update(chunk)
                largest = max(largest, _largest_magnitude(chunk, kind))
            if largest >= kind.infinity:
                raise AdapterError(
                    f"{path.name}: {short(tensor.name)} holds numbers that are not finite (NaN or Inf); "
                    "the training diverged, or the file is damaged"
                )
            if largest == 0:
                zeros.add(tensor.name)
        if file.read(1):
            raise AdapterError(f"{path.name} grew while it was read; try again when nobody writes to it")
    return Scan(digest.hexdigest(), frozenset(zeros))


def _chunks(file: Any, length: int, buffer: bytearray, name: str) -> Iterator[memoryview]:
    """Read the next `length` bytes through one buffer; a chunk is only good until the next one."""
    view = memoryview(buffer)
    while length:
        count = file.readinto(view[: min(length, len(buffer))])
        # A read of a regular file is only short at its end.
        if count != min(length, len(buffer)):
            raise AdapterError(f"{name} shrank while it was read; try again when nobody writes to it")
        yield view[:count]
        length -= count


def _largest_magnitude(chunk: memoryview, kind: _Float) -> int:
    """Compare bits: for floating-point numbers of one sign they are in the order of the values."""
    import numpy as np  # 11 MiB, for a process that checks adapters; most of those that read headers do not

    numbers = np.frombuffer(chunk, dtype=kind.bits)
    return int(np.bitwise_and(numbers, kind.magnitude).max())


class _DuplicateKey(Exception):
    """A key stands twice in one JSON object."""


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise _DuplicateKey(short(key))
        result[key] = value
    return result


def _tensor(name: str, entry: Any, file: str) -> Tensor:
    try:
        shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
        # Bounded before they are multiplied: a header could hold numbers of thousands of digits.
        good = len(shape) <= _MAX_DIMENSIONS and all(
            type(number) is int and 0 <= number < 2**48 for number in (*shape, begin, end)
        )
        if good and (end - begin) * 8 == math.prod(shape) * _ITEM_BITS[entry["dtype"]]:
            return Tensor(name, entry["dtype"], shape, begin, end)
    except (TypeError, KeyError, ValueError):
        pass
    raise AdapterError(
        f"{file}: tensor {short(name)} has a shape, type or size that is not right; copy it again"
    )


def _check_places(tensors: Iterable[Tensor], data_bytes: int, file: str) -> None:
    """Refuse tensors that overlap, leave holes, or lie outside the file."""
    end = 0
    for tensor in tensors:
        if tensor.begin != end:
            what = "overlaps another one" if tensor.begin < end else "leaves a hole before it"
            raise AdapterError(f"{file}: tensor {short(tensor.name)} {what}; save the file again")
        end = tensor.end
    if end > data_bytes:
        raise AdapterError(f"{file} is shorter than its header says; copy it again")
    if end < data_bytes:
        raise AdapterError(f"{file} holds {data_bytes - end} bytes after its last tensor; save it again")

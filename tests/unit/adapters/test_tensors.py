"""The safetensors format, read strictly: what is in a file, and whether its numbers are usable."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters import tensors
from adapters.errors import AdapterError
from adapters.tensors import read_header, scan, short
from tests.adapter_kinds import raw, safetensors, with_header


def write(folder: Path, content: bytes) -> Path:
    path = folder / "x.safetensors"
    path.write_bytes(content)
    return path


def entry(**values: Any) -> str:
    return json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **values}})


def refusal(path: Path) -> str:
    with pytest.raises(AdapterError) as raised:
        scan(path, read_header(path))
    return str(raised.value)


def test_a_header_is_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    values = np.arange(6.0).reshape(2, 3)
    path = write(tmp_path, safetensors({"b": raw(values, "BF16"), "a": raw(values)}, {"k": "v"}))
    header = read_header(path)
    assert [(t.name, t.dtype, t.shape, t.begin, t.end) for t in header.tensors] == [
        ("b", "BF16", (2, 3), 0, 12),
        ("a", "F32", (2, 3), 12, 36),
    ]
    assert header.metadata == {"k": "v"}
    assert path.stat().st_size == header.data_start + 36


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("chunk_bytes", [4, 12, 2**20])
def test_a_scan_hashes_the_file_and_finds_the_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, chunk_bytes: int
) -> None:
    monkeypatch.setattr(tensors, "CHUNK_BYTES", chunk_bytes)
    found = {"ones": np.ones((3, 5)), "zeros": np.zeros((3, 5)), "minus": np.full((2, 2), -0.0)}
    path = write(tmp_path, safetensors({key: raw(values, name) for key, values in found.items()}))
    result = scan(path, read_header(path))
    assert result.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert result.zeros == {"zeros", "minus"}


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("place", [0, 7, 14])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_found_in_any_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: int, value: float
) -> None:
    monkeypatch.setattr(tensors, "CHUNK_BYTES", 8)
    values = np.ones(15)
    values[place] = value
    path = write(tmp_path, safetensors({"good": raw(np.ones(3), name), "bad": raw(values, name)}))
    assert "'bad' holds numbers that are not finite" in refusal(path)


def test_the_largest_finite_numbers_are_taken(tmp_path: Path) -> None:
    bf16 = ("BF16", [1], (0x7F7F).to_bytes(2, "little"))
    largest = {"f16": raw(np.array([65504.0]), "F16"), "f32": raw(np.array([-3.4028235e38])), "bf16": bf16}
    path = write(tmp_path, safetensors(largest))
    assert scan(path, read_header(path)).zeros == frozenset()


@pytest.mark.parametrize(
    ("header", "size", "message"),
    [
        (entry(data_offsets=[4, 8]), 8, "leaves a hole before it"),
        (entry(), 8, "holds 4 bytes after its last tensor"),
        (entry(), 3, "is shorter than its header says"),
        (entry(shape=[2]), 4, "is not right"),
        (entry(shape=[1] * 9), 4, "is not right"),
        (entry(shape=[10**4000] * 100), 4, "is not right"),
        (entry(shape=[True]), 4, "is not right"),
        (entry(dtype="F31"), 4, "is not right"),
        (entry(dtype=["F32"]), 4, "is not right"),
        (entry(data_offsets=[-4, 0]), 4, "is not right"),
        ('{"a": {}, "a": {}}', 0, "'a' is given twice"),
        ('{"a": {"dtype": "F32", "dtype": "F16"}}', 0, "'dtype' is given twice"),
        ('{"__metadata__": ["x"]}', 0, "texts only"),
        ('{"__metadata__": {"a": {}}}', 0, "texts only"),
        ("[" * 100_000, 0, "does not hold a JSON object"),
        ("{}}", 0, "does not hold a JSON object"),
    ],
)
def test_a_header_that_breaks_the_rules_is_refused(
    tmp_path: Path, header: str, size: int, message: str
) -> None:
    path = write(tmp_path, with_header(header, bytes(size)))
    assert message in refusal(path)


def test_overlapping_tensors_are_refused(tmp_path: Path) -> None:
    both = {
        name: {"dtype": "F32", "shape": [2], "data_offsets": at}
        for name, at in (("a", [0, 8]), ("b", [4, 12]))
    }
    assert "'b' overlaps another one" in refusal(write(tmp_path, with_header(json.dumps(both), bytes(12))))


def test_a_header_beyond_the_bound_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, with_header("{}" + " " * 100, b""))
    with pytest.raises(AdapterError, match="header of more than 50 bytes"):
        read_header(path, max_bytes=50)


@pytest.mark.parametrize(
    ("change", "message"), [(-2, "shrank while it was read"), (2, "grew while it was read")]
)
def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path, change: int, message: str) -> None:
    path = write(tmp_path, safetensors({"a": raw(np.ones(4))}))
    header = read_header(path)
    content = path.read_bytes()
    path.write_bytes(content[:change] if change < 0 else content + bytes(change))
    with pytest.raises(AdapterError, match=message):
        scan(path, header)


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reading(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = write(tmp_path_factory.mktemp("f"), with_header(content.decode("latin-1"), content))
    with pytest.raises(AdapterError):
        read_header(path)


def test_strange_values_are_shown_in_one_printable_line() -> None:
    assert short("a\nb\u202e\x1b") == r"'a\nb\u202e\x1b'"
    assert len(short("x" * 1000)) == 160

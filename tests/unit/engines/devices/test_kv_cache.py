"""How much KV cache fits a slice: exact, and never more than there is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base_model import find_weight_bytes
from adapters.errors import AdapterError
from engines.devices.kv_cache import DEFAULT_UTILIZATION, WORKSPACE_BYTES, Needs, kv_cache_bytes, slots_bytes
from engines.devices.layout import Slice, SliceError
from fleet.types import BaseModel

GIB = 2**30
MODEL = BaseModel("base", "/models/base", max_loras=2, max_lora_rank=16)


def a_slice(gib: float) -> Slice:
    return Slice("MIG-1", "1g.35gb", 1, 1, int(gib * GIB))


def test_the_cache_is_what_weights_slots_and_work_space_leave() -> None:
    left = kv_cache_bytes(a_slice(32.5), MODEL, Needs(15 * GIB, GIB))
    assert left == int(int(32.5 * GIB) * DEFAULT_UTILIZATION) - 16 * GIB - WORKSPACE_BYTES
    half = replace(MODEL, gpu_memory_utilization=0.6)
    assert kv_cache_bytes(a_slice(32.5), half, Needs(15 * GIB)) == int(32.5 * GIB * 0.6) - 15 * GIB - 2 * GIB


def test_a_size_that_the_file_sets_is_taken_as_it_is() -> None:
    model = replace(MODEL, kv_cache_bytes=4 * GIB)
    assert kv_cache_bytes(a_slice(20), model, Needs(16 * GIB)) == 4 * GIB
    assert kv_cache_bytes(a_slice(20), model, None) == 4 * GIB


def test_what_cannot_fit_is_refused_in_a_sentence() -> None:
    with pytest.raises(SliceError) as refused:
        kv_cache_bytes(a_slice(16), MODEL, Needs(15 * GIB, GIB))
    assert str(refused.value) == (
        "slice MIG-1 (1g.35gb) has 16.00 GiB, of which an engine may take 92%; the weights of base take "
        "15.00 GiB, its adapter slots 1.00 GiB and 2.00 GiB of work space, so nothing is left for a KV cache"
    )
    model = replace(MODEL, kv_cache_bytes=5 * GIB)
    with pytest.raises(SliceError, match=r"take 15\.00 GiB, and kv_cache_gib asks for 5\.00 GiB"):
        kv_cache_bytes(a_slice(16), model, Needs(15 * GIB))
    with pytest.raises(SliceError, match=r"has 5\.00 GiB, and kv_cache_gib asks for 5\.00 GiB"):
        kv_cache_bytes(a_slice(5), model, None)


def test_where_nobody_knows_the_weights_the_engine_measures() -> None:
    assert kv_cache_bytes(a_slice(16), MODEL, None) is None


@given(st.integers(1, 200 * GIB), st.integers(0, 200 * GIB), st.floats(0.01, 1))
def test_weights_and_cache_are_never_more_than_the_slice(
    memory: int, weights: int, utilization: float
) -> None:
    one = Slice("MIG-1", "1g.35gb", 1, 1, memory)
    model = replace(MODEL, gpu_memory_utilization=utilization)
    try:
        left = kv_cache_bytes(one, model, Needs(weights))
    except SliceError:
        assert weights + WORKSPACE_BYTES >= int(memory * utilization)
    else:
        assert left is not None and left > 0
        assert weights + WORKSPACE_BYTES + left <= memory


def test_slots_take_two_matrices_of_the_rank_for_each_module() -> None:
    assert slots_bytes(4096 + 1024, MODEL) == 5120 * 16 * 2 * 2


def weights(folder: Path, **tensors: tuple[str, list[int], int]) -> str:
    """Write a model's weights: dtype, shape, bytes of each tensor."""
    header, end = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(end))
    return str(folder)


def test_weights_count_as_an_engine_holds_them(tmp_path: Path) -> None:
    source = weights(tmp_path, a=("F32", [10, 3], 120), b=("BF16", [5], 10), c=("I8", [7], 7))
    assert find_weight_bytes(source) == 60 + 10 + 7
    assert find_weight_bytes(source, dtype="float32") == 120 + 20 + 7


def test_weights_that_are_not_here_are_unknown_and_damaged_ones_are_told(tmp_path: Path) -> None:
    assert find_weight_bytes(str(tmp_path)) is None
    assert find_weight_bytes("some-org/never-fetched") is None
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(AdapterError, match=r"model\.safetensors"):
        find_weight_bytes(str(tmp_path))

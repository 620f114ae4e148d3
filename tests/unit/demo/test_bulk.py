"""Are synthetic adapters cheap copies that differ from each other?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from demo import bulk


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    source = tmp_path / "trained"
    source.mkdir()
    save_file(
        {"layer.lora_A": np.ones((2, 3), np.float32), "layer.lora_B": np.zeros((3, 2), np.float32)},
        source / "adapter_model.safetensors",
    )
    (source / "adapter_config.json").write_text('{"r": 2}')
    return source


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def test_names_are_counted_from_zero_and_sort_well() -> None:
    assert [bulk.name(index) for index in (0, 42, 1000)] == ["bulk-000", "bulk-042", "bulk-1000"]


def test_a_copy_is_close_to_its_source_in_the_same_format(trained: Path, tmp_path: Path) -> None:
    bulk.make(trained, tmp_path / "a", seed=0, index=0)

    copied, source = (
        load_file(tmp_path / "a" / "adapter_model.safetensors"),
        load_file(trained / "adapter_model.safetensors"),
    )
    assert (tmp_path / "a" / "adapter_config.json").read_text() == '{"r": 2}'
    assert copied.keys() == source.keys()
    for key, tensor in copied.items():
        assert tensor.dtype == np.float32
        assert np.allclose(tensor, source[key], rtol=0.1)


def test_the_same_seed_and_index_give_the_same_bytes_and_others_do_not(trained: Path, tmp_path: Path) -> None:
    for target, seed, index in (("a", 0, 0), ("b", 0, 0), ("c", 0, 1), ("d", 1, 0)):
        bulk.make(trained, tmp_path / target, seed=seed, index=index)

    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert len({weights(tmp_path / target) for target in "acd"}) == 3


def test_an_existing_target_is_not_overwritten(trained: Path) -> None:
    with pytest.raises(FileExistsError):
        bulk.make(trained, trained, seed=0, index=0)

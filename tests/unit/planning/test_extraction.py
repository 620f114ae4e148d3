"""Whole fine-tunes taken apart: which are adapters, what is written of them, and why others are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.errors import AdapterError
from planning import extraction
from planning.extraction import extract
from planning.reading import weights
from planning.reading.weights import Weights, write_tensors
from tests.unit.planning.small_models import (
    HIDDEN,
    LAYERS,
    MIDDLE,
    Tensors,
    base_tensors,
    fine_tuned,
    numbers,
    saved,
)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return saved(tmp_path / "base", base_tensors())


@pytest.fixture(autouse=True)
def many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "BLOCK_BYTES", 2000)


@pytest.mark.parametrize("rank", [1, 5, 16])
def test_a_tuned_model_of_low_rank_is_an_adapter_that_makes_it_of_its_base(
    tmp_path: Path, base: Path, rank: int
) -> None:
    tuned = saved(tmp_path / "tuned", fine_tuned(base_tensors(), rank))
    seen: list[tuple[int, int]] = []
    found = extract(
        str(tuned), str(base), write=tmp_path / "out", max_rank=20, progress=lambda *done: seen.append(done)
    )
    assert (found.why_not, found.rank, len(found.layers)) == ("", rank, 2 * LAYERS)
    assert found.kept > 0.9999
    assert seen[-1][0] == seen[-1][1]
    assert found.manifest is not None
    assert found.manifest.is_effective
    assert found.manifest.base_model_fingerprint
    assert found.manifest.warnings == ()
    with Weights(tmp_path / "tuned") as whole, Weights(base) as under:
        written = read(tmp_path / "out" / "adapter_model.safetensors")
        for layer in found.layers:
            product = written[f"{layer.name}.lora_B"] @ written[f"{layer.name}.lora_A"]
            count = whole.tensors[f"{layer.name}.weight"].shape[0]
            difference = whole.rows(f"{layer.name}.weight", 0, count) - under.rows(
                f"{layer.name}.weight", 0, count
            )
            assert np.abs(product - difference).max() < 1e-5


def read(path: Path) -> Tensors:
    """The tensors of an adapter, by module and half."""
    from safetensors.numpy import load_file

    return {
        name.removeprefix("base_model.model.").removesuffix(".weight"): tensor
        for name, tensor in load_file(path).items()
    }


def test_sixteen_bits_hide_no_adapter(tmp_path: Path) -> None:
    under = saved(tmp_path / "b", base_tensors(), dtype="BF16")
    tuned = saved(tmp_path / "t", fine_tuned(base_tensors(), 4), dtype="BF16")
    found = extract(str(tuned), str(under), write=tmp_path / "out", max_rank=16)
    assert (found.why_not, found.rank) == ("", 4)
    assert found.kept > 0.95
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["lora_alpha"] == 4


def test_modules_of_different_rank_are_written_with_the_largest(tmp_path: Path, base: Path) -> None:
    tensors = base_tensors()
    wide, narrow = fine_tuned(tensors, 6), fine_tuned(tensors, 2)
    some = {name: (wide if "q_proj" in name else narrow)[name] for name in tensors}
    found = extract(str(saved(tmp_path / "t", some)), str(base), write=tmp_path / "out", max_rank=16)
    assert found.rank == 6
    assert {layer.rank for layer in found.layers} == {2, 6}
    assert {matrix.shape[0] for name, matrix in read(tmp_path / "out" / "adapter_model.safetensors").items()
            if name.endswith("lora_A")} == {6}  # fmt: skip


def test_an_unrelated_model_is_no_adapter_and_is_not_read_to_its_end(tmp_path: Path, base: Path) -> None:
    other = {
        name: numbers(99 + number, *matrix.shape) if "_proj" in name else matrix
        for number, (name, matrix) in enumerate(base_tensors().items())
    }
    found = extract(str(saved(tmp_path / "o", other)), str(base), write=tmp_path / "out", max_rank=16)
    assert "is of full rank: its 16 largest directions of 64 are" in found.why_not
    assert len(found.layers) == 1
    assert not (tmp_path / "out").exists()


def test_a_rank_beyond_what_is_served_is_said(tmp_path: Path, base: Path) -> None:
    tuned = saved(tmp_path / "t", fine_tuned(base_tensors(), 9))
    found = extract(str(tuned), str(base), max_rank=8)
    assert found.why_not.startswith("4 of 4 matrices that differ need more than rank 8") or (
        "largest directions" in found.why_not
    )


@pytest.mark.parametrize("name", ["model.norm.weight", "model.embed_tokens.weight"])
def test_what_an_adapter_cannot_change_makes_it_none(tmp_path: Path, base: Path, name: str) -> None:
    tensors = fine_tuned(base_tensors(), 2)
    tensors[name] = tensors[name] * np.float32(1.1)
    found = extract(str(saved(tmp_path / "t", tensors)), str(base))
    assert f"'{name}' differs by 10.00% of its size, and no adapter can change that" in found.why_not


def test_hardly_any_change_of_such_is_left_out_and_said(tmp_path: Path, base: Path) -> None:
    tensors = fine_tuned(base_tensors(), 2)
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * np.float32(1.0001)
    found = extract(str(saved(tmp_path / "t", tensors)), str(base))
    assert not found.why_not
    assert "which is left out" in found.notes[0]


def test_the_base_itself_is_no_adapter(base: Path) -> None:
    assert extract(str(base), str(base)).why_not == "the two have the same weights: it is the base itself"


def test_another_shape_is_refused_with_the_difference(tmp_path: Path, base: Path) -> None:
    tensors = base_tensors()
    tensors["model.norm.bias"] = numbers(1, HIDDEN)
    more = saved(tmp_path / "more", tensors)
    with pytest.raises(AdapterError, match=r"different shapes: only one has the tensor 'model\.norm\.bias'"):
        extract(str(more), str(base))
    other = saved(tmp_path / "other", base_tensors(), rope_theta=5)
    with pytest.raises(AdapterError, match=r"config\.json: only one has 'rope_theta'"):
        extract(str(other), str(base))


def test_another_tokenizer_is_a_note_since_the_bases_is_served(tmp_path: Path, base: Path) -> None:
    tuned = saved(tmp_path / "t", fine_tuned(base_tensors(), 2))
    (tuned / "tokenizer.json").write_text("{}")
    assert "an adapter is served with the base's files" in extract(str(tuned), str(base)).notes[0]


def test_bad_input_is_one_sentence(tmp_path: Path, base: Path) -> None:
    with pytest.raises(AdapterError, match="neither a folder nor a model of the hub"):
        extract("no/such-model", str(base))
    (tmp_path / "there").mkdir()
    with pytest.raises(AdapterError, match="is there already"):
        extract(str(base), str(base), write=tmp_path / "there")
    broken = base_tensors()
    broken["model.layers.0.mlp.down_proj.weight"] = np.full((HIDDEN, MIDDLE), np.nan, dtype=np.float32)
    with pytest.raises(AdapterError, match="not finite"):
        extract(str(saved(tmp_path / "nan", broken)), str(base))
    (tmp_path / "quantised").mkdir()
    quantised = saved(tmp_path / "q", base_tensors(), quantization_config={"bits": 4})
    with pytest.raises(AdapterError, match="quantised weights cannot be compared"):
        extract(str(quantised), str(quantised))
    empty = tmp_path / "empty"
    empty.mkdir()
    short = saved(tmp_path / "short", base_tensors()) / "model.safetensors"
    short.write_bytes(short.read_bytes()[:-100])
    for bad in (empty, short.parent):
        for tuned, against in ((bad, base), (base, bad)):
            with pytest.raises(AdapterError, match=rf"^{bad}: (there is |model|config)"):
                extract(str(tuned), str(against))


def test_a_failure_while_writing_leaves_nothing(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(extraction, "write_tensors", full)
    tuned = saved(tmp_path / "t", fine_tuned(base_tensors(), 2))
    with pytest.raises(AdapterError, match="cannot be written: No space left"):
        extract(str(tuned), str(base), write=tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "t"]


def test_shards_are_read_as_one_model(tmp_path: Path, base: Path) -> None:
    tensors = fine_tuned(base_tensors(), 3)
    folder = saved(tmp_path / "t", {})
    (folder / "model.safetensors").unlink()
    names, half = sorted(tensors), len(tensors) // 2
    index: dict[str, str] = {}
    for number, part in enumerate((names[:half], names[half:]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        write_tensors(folder / file, {n: tensors[n] for n in part}, dtype="F32", metadata={})
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert extract(str(folder), str(base)).rank == 3

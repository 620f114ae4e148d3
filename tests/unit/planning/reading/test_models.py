"""The models of a fleet, from their files: bytes, KV cache, shapes, ranks; and of which nothing is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.errors import AdapterError
from fleet.types import Adapter, BaseModel, Fleet
from planning.extraction import extract
from planning.reading.models import fleet_models, whole_model
from planning.values import Kind
from tests.unit.planning.plans import adapter, whole
from tests.unit.planning.small_models import CONFIG, base_tensors, fine_tuned, saved


def fleet(models: dict[str, BaseModel], adapters: dict[str, Adapter]) -> Fleet:
    return Fleet(base_models=models, adapters=adapters, tenants={}, pools={})


def test_a_whole_model_is_what_its_files_say(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", base_tensors(), max_position_embeddings=4096)
    model = whole_model(BaseModel("m", str(folder), max_model_len=512, tensor_parallel_size=2))
    numbers = sum(matrix.size for matrix in base_tensors().values())
    assert (model.kind, model.weight_bytes) == (Kind.WHOLE, 2 * numbers)
    assert model.kv_bytes_per_token == 2 * 2 * 64 * 2
    assert model.parameters == numbers - base_tensors()["model.embed_tokens.weight"].size
    assert (model.max_model_len, model.tensor_parallel) == (512, 2)
    assert model.slot_bytes_per_rank > 0
    assert whole_model(BaseModel("m", str(folder), dtype="float32")).weight_bytes == 4 * numbers


def test_fine_tunes_of_one_base_have_its_shape_and_others_have_not(tmp_path: Path) -> None:
    one = saved(tmp_path / "a", base_tensors())
    tuned = saved(tmp_path / "b", fine_tuned(base_tensors(), 2))
    other = saved(tmp_path / "c", base_tensors(), rope_theta=7)
    shapes = [whole_model(BaseModel("m", str(folder))).shape for folder in (one, tuned, other)]
    assert shapes[0] == shapes[1] != shapes[2]
    assert all(shapes)


def test_adapters_have_their_rank_and_those_that_are_not_here_the_bases(tmp_path: Path) -> None:
    base = BaseModel("m", str(saved(tmp_path / "m", base_tensors())), max_lora_rank=32, max_loras=2)
    tuned = saved(tmp_path / "tuned", fine_tuned(base_tensors(), 3))
    extract(str(tuned), base.source, write=tmp_path / "a")
    here = Adapter("here", str(tmp_path / "a"), "m")
    away = Adapter("away", "s3://bucket/a", "m")
    broken = Adapter("broken", str(tmp_path / "m"), "m")
    found = fleet_models(fleet({"m": base}, {a.name: a for a in (here, away, broken)}))
    by_name = {model.name: model for model in found.models}
    assert by_name["here"].rank == 3
    assert by_name["away"].rank == 32
    assert by_name["away"].weight_bytes == 32 * by_name["m"].slot_bytes_per_rank
    assert by_name["here"].shape == by_name["m"].shape
    assert [note.split(" ")[0] for note in found.notes] == ["away", "broken"]


def test_a_model_that_is_not_here_is_a_note_and_its_adapters_are_left_out(tmp_path: Path) -> None:
    base = BaseModel("m", "no/such-model")
    declared = fleet({"m": base}, {"a": Adapter("a", "s3://b/a", "m")})
    found = fleet_models(declared)
    assert found.models == ()
    said = "m cannot be planned: no/such-model is not on this machine; download it, or plan where it is"
    assert found.notes == (said,)
    assert found.unread == {"m": said, "a": said}


def test_a_model_that_is_told_is_taken_as_it_is_told_and_its_adapters_are_planned() -> None:
    declared = fleet(
        {"m": BaseModel("m", "no/such-model", max_lora_rank=32)},
        {name: Adapter(name, f"s3://b/{name}", "m") for name in ("a", "b")},
    )
    told = [whole("m", slot_bytes_per_rank=10), adapter("b", "m", rank=4)]
    found = fleet_models(declared, told)
    assert {model.name: model.rank for model in found.models} == {"m": 0, "b": 4, "a": 32}
    assert found.unread == {}


def test_files_that_are_wrong_are_said(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", base_tensors())
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": "many"}))
    with pytest.raises(AdapterError, match="no num_hidden_layers"):
        whole_model(BaseModel("m", str(folder)))
    (folder / "model.safetensors").unlink()
    with pytest.raises(AdapterError, match="no weights in safetensors"):
        whole_model(BaseModel("m", str(folder)))
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(AdapterError, match="cut short"):
        whole_model(replace(BaseModel("m", str(folder))))

"""The folders a fleet names: what is said about each that is not what it should be."""

from __future__ import annotations

from pathlib import Path

from fleet import LoadedFleet, Problem, check_files, read_fleet
from tests.unit.fleet.files import adapter_folder, changed, declared, write


def checked(folder: Path, loaded: LoadedFleet) -> list[Problem]:
    return check_files(loaded.fleet, file="fleet.yaml", lines=loaded.lines)


def loaded_from(folder: Path, *, missing: str | None = None) -> LoadedFleet:
    for name in {"a", "b", "c"} - {missing}:
        adapter_folder(folder / name)
    return read_fleet(write(folder, declared()))


def test_good_folders_and_hub_ids_have_no_problems(tmp_path: Path) -> None:
    assert not checked(tmp_path, loaded_from(tmp_path))


def test_what_lies_behind_a_url_is_not_looked_at(tmp_path: Path) -> None:
    for name in "bc":
        adapter_folder(tmp_path / name)
    loaded = read_fleet(write(tmp_path, changed("adapters/a-support/source", "s3://bucket/a")))
    assert not checked(tmp_path, loaded)


def test_a_missing_adapter_folder_is_told_with_its_line(tmp_path: Path) -> None:
    loaded = loaded_from(tmp_path, missing="b")
    (problem,) = checked(tmp_path, loaded)
    assert problem.path == "adapters.b-support.source"
    assert problem.line == loaded.lines["adapters", "b-support", "source"]
    assert problem.message == f"there is no folder {tmp_path}/b"


def test_a_rank_above_the_base_models_names_both_and_the_setting(tmp_path: Path) -> None:
    loaded = loaded_from(tmp_path, missing="b")
    adapter_folder(tmp_path / "b", rank=64)
    (problem,) = checked(tmp_path, loaded)
    assert problem.message == "the adapter has rank 64, its base model takes at most 16"
    assert problem.remedy == "set base_models.base.max_lora_rank to 64 or more"


def test_a_bad_adapter_is_told_in_its_own_words(tmp_path: Path) -> None:
    loaded = loaded_from(tmp_path, missing="b")
    adapter_folder(tmp_path / "b", use_dora=True)
    (problem,) = checked(tmp_path, loaded)
    assert "vLLM has no DoRA" in problem.message


def test_every_bad_folder_is_told(tmp_path: Path) -> None:
    loaded = read_fleet(write(tmp_path, changed("base_models/base/source", "./base")))
    (tmp_path / "base").mkdir()
    found = checked(tmp_path, loaded)
    assert [p.path for p in found] == [
        "base_models.base.source",
        "adapters.a-support.source",
        "adapters.b-support.source",
        "adapters.c-support.source",
    ]
    assert found[0].message == f"{tmp_path}/base has no config.json"


def test_a_base_models_folder_must_exist_and_hold_a_model(tmp_path: Path) -> None:
    for name in "abc":
        adapter_folder(tmp_path / name)
    loaded = read_fleet(write(tmp_path, changed("base_models/base/source", "./base")))
    assert [p.message for p in checked(tmp_path, loaded)] == [f"there is no folder {tmp_path}/base"]
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    assert not checked(tmp_path, loaded)

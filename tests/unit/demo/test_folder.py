"""Is a complete folder known as such, and one run kept from another?"""

from __future__ import annotations

import fcntl
from dataclasses import replace
from pathlib import Path

import pytest

from demo import folder
from demo.errors import DemoError
from demo.recipe import Recipe

RECIPE = Recipe()


def sealed(out: Path, *, seed: int = 0, bulk: int = 0) -> folder.Manifest:
    (out / "base").mkdir(parents=True)
    (out / "base" / "model.safetensors").write_bytes(b"weights")
    (out / "answers.json").write_text("{}")
    return folder.seal(out, RECIPE, seed=seed, bulk=bulk)


def test_a_sealed_folder_is_complete(tmp_path: Path) -> None:
    manifest = sealed(tmp_path / "demo", seed=3, bulk=2)

    assert folder.complete(tmp_path / "demo", RECIPE, seed=3) == manifest
    assert manifest.bulk == 2
    assert manifest.files == {"answers.json": 2, "base/model.safetensors": 7}


def test_an_absent_folder_is_not_complete(tmp_path: Path) -> None:
    assert folder.complete(tmp_path / "demo", RECIPE, seed=0) is None


def test_another_seed_or_another_recipe_is_not_complete(tmp_path: Path) -> None:
    sealed(tmp_path / "demo")

    assert folder.complete(tmp_path / "demo", RECIPE, seed=1) is None
    assert folder.complete(tmp_path / "demo", replace(RECIPE, version=99), seed=0) is None


@pytest.mark.parametrize("content", [None, b"", b"longer weights"])
def test_a_file_gone_or_of_another_size_makes_a_folder_incomplete(
    tmp_path: Path, content: bytes | None
) -> None:
    sealed(tmp_path / "demo")
    weights = tmp_path / "demo" / "base" / "model.safetensors"
    weights.unlink()
    if content is not None:
        weights.write_bytes(content)

    assert folder.complete(tmp_path / "demo", RECIPE, seed=0) is None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", "null", '{"fingerprint": "a", "seed": "x", "bulk": 0, "files": {}}']
)
def test_a_broken_manifest_reads_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)

    assert folder.read_manifest(tmp_path) is None


def test_only_demo_models_and_empty_folders_may_be_replaced(tmp_path: Path) -> None:
    sealed(tmp_path / "demo")
    (tmp_path / "empty").mkdir()
    for fine in ("demo", "empty", "absent"):
        folder.check_replaceable(tmp_path / fine)

    (tmp_path / "file").write_text("mine")
    with pytest.raises(DemoError, match="--out"):
        folder.check_replaceable(tmp_path / "file")
    with pytest.raises(DemoError, match="--out"):
        folder.check_replaceable(tmp_path)


def test_publishing_moves_what_was_there_to_the_attic(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "demo"
    for text in ("first", "second"):
        out.parent.mkdir(exist_ok=True)
        with folder.scratch(out) as scratch:
            (scratch / "built").mkdir()
            (scratch / "built" / "file").write_text(text)
            folder.publish(scratch / "built", out, attic=scratch)

    assert (out / "file").read_text() == "second"
    assert [path.name for path in out.parent.iterdir()] == ["demo"]


def test_the_scratch_folder_goes_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), folder.scratch(tmp_path / "demo") as scratch:
        (scratch / "half").write_text("half")
        raise KeyboardInterrupt

    assert not list(tmp_path.iterdir())


def test_the_scratch_folder_of_a_killed_run_goes_with_the_next(tmp_path: Path) -> None:
    left = tmp_path / ".demo.tmp-killed"
    left.mkdir()
    (left / "half").write_text("half")

    with folder.scratch(tmp_path / "demo"):
        assert not left.exists()


def test_a_second_run_waits_until_the_first_lets_go(tmp_path: Path) -> None:
    out = tmp_path / "new" / "demo"
    out.parent.mkdir()
    waits = 0

    with (out.parent / ".demo.lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)

        def first_ends() -> None:
            nonlocal waits
            waits += 1
            fcntl.flock(first, fcntl.LOCK_UN)

        with folder.locked(out, first_ends):
            assert waits == 1


def test_a_free_lock_is_taken_at_once(tmp_path: Path) -> None:
    with folder.locked(tmp_path / "new" / "demo", lambda: pytest.fail("nobody holds it")):
        pass

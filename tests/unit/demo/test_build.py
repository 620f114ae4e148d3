"""Does a demo folder appear whole, or not at all?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from demo import build, folder
from demo.answers import ADAPTERS, document
from demo.errors import DemoError
from demo.recipe import Recipe
from tests.unit.demo.fakes import Silent, fake_training

RECIPE = Recipe()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_train_models", fake_training)


def names(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "adapters").iterdir())


def test_a_whole_folder_appears_at_once(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    manifest = build.train(out, RECIPE, seed=4, bulk_count=2, watcher=Silent())

    assert folder.complete(out, RECIPE, seed=4) == manifest
    assert json.loads((out / "answers.json").read_text()) == document()
    assert names(out) == sorted([*ADAPTERS, "bulk-000", "bulk-001"])
    assert list(tmp_path.iterdir()) == [out]


def test_an_interrupted_run_leaves_the_former_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "demo"
    manifest = build.train(out, RECIPE, seed=0, bulk_count=0, watcher=Silent())

    def interrupted(built: Path, recipe: Recipe, *, seed: int, watcher: build.Watcher) -> None:
        fake_training(built, recipe, seed=seed, watcher=watcher)
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "_train_models", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build.train(out, RECIPE, seed=1, bulk_count=0, watcher=Silent())

    assert folder.complete(out, RECIPE, seed=0) == manifest
    assert list(tmp_path.iterdir()) == [out]


def test_a_new_run_replaces_everything(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    build.train(out, RECIPE, seed=0, bulk_count=3, watcher=Silent())
    build.train(out, RECIPE, seed=1, bulk_count=0, watcher=Silent())

    assert names(out) == sorted(ADAPTERS)
    assert list(tmp_path.iterdir()) == [out]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")

    with pytest.raises(DemoError, match="--out"):
        build.train(tmp_path, RECIPE, seed=0, bulk_count=0, watcher=Silent())
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_missing_synthetic_adapters_are_added_and_the_others_kept(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    manifest = build.train(out, RECIPE, seed=0, bulk_count=1, watcher=Silent())
    first = (out / "adapters" / "bulk-000").stat().st_ino
    # What a run that was killed before its manifest was written may have left:
    (out / "adapters" / "bulk-001").mkdir()

    grown = build.add_bulk(out, RECIPE, manifest, bulk_count=3)

    assert grown == folder.complete(out, RECIPE, seed=0)
    assert grown.bulk == 3
    assert names(out) == sorted([*ADAPTERS, "bulk-000", "bulk-001", "bulk-002"])
    assert (out / "adapters" / "bulk-000").stat().st_ino == first
    assert list(tmp_path.iterdir()) == [out]

"""Does the command train once, and end well whatever happens?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from demo import __main__ as command
from demo import build, folder
from demo.errors import DemoError
from demo.recipe import Recipe
from tests.unit.demo.fakes import fake_training


@pytest.fixture(autouse=True)
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replace the training by a quick one; the list gets the seed of each."""
    seeds: list[int] = []

    def counted(built: Path, recipe: Recipe, *, seed: int, watcher: build.Watcher) -> None:
        seeds.append(seed)
        fake_training(built, recipe, seed=seed, watcher=watcher)

    monkeypatch.setattr(build, "_train_models", counted)
    return seeds


def run(out: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command.app, ["--out", str(out), *arguments])


def failing(error: BaseException) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_the_first_run_trains_and_the_second_finds_it_done(tmp_path: Path, trainings: list[int]) -> None:
    first, second = run(tmp_path / "demo"), run(tmp_path / "demo")

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "acme-sales: 100 steps, margin 6.0" in first.output
    assert "Ready in" in first.output
    assert "are complete" in second.output
    assert trainings == [0]


def test_another_seed_or_force_trains_again(tmp_path: Path, trainings: list[int]) -> None:
    run(tmp_path / "demo")
    run(tmp_path / "demo", "--seed", "5")
    run(tmp_path / "demo", "--seed", "5", "--force")

    assert trainings == [0, 5, 5]


def test_synthetic_adapters_are_added_without_training(tmp_path: Path, trainings: list[int]) -> None:
    run(tmp_path / "demo")
    grown = run(tmp_path / "demo", "--adapters", "3")
    enough = run(tmp_path / "demo", "--adapters", "2")

    assert "bulk-000 .. bulk-002" in grown.output
    assert "are complete" in enough.output
    assert (tmp_path / "demo" / "adapters" / "bulk-002" / "adapter_model.safetensors").is_file()
    assert trainings == [0]


def test_a_run_that_waited_for_another_does_not_train_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainings: list[int]
) -> None:
    run(tmp_path / "demo")
    complete = folder.complete
    looks: list[int] = []

    def absent_at_first(out: Path, recipe: Recipe, *, seed: int) -> folder.Manifest | None:
        looks.append(seed)
        return complete(out, recipe, seed=seed) if len(looks) > 1 else None

    monkeypatch.setattr(folder, "complete", absent_at_first)

    assert run(tmp_path / "demo").exit_code == 0
    assert len(looks) == 2
    assert trainings == [0]


def test_an_interrupt_leaves_no_folder_and_exits_with_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_train_models", failing(KeyboardInterrupt()))
    result = run(tmp_path / "demo")

    assert result.exit_code == 130
    assert "Interrupted" in result.output
    assert [path.name for path in tmp_path.iterdir()] == [".demo.lock"]


@pytest.mark.parametrize("error", [DemoError("it did [not] learn"), PermissionError("it did [not] learn")])
def test_a_fault_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(build, "_train_models", failing(error))
    result = run(tmp_path / "demo")

    assert result.exit_code == 1
    assert result.stderr == "it did [not] learn\n"


def test_a_folder_of_something_else_is_refused(tmp_path: Path, trainings: list[int]) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    result = run(tmp_path, "--force")

    assert result.exit_code == 1
    assert "name another folder with --out" in result.stderr
    assert trainings == []


@pytest.mark.parametrize(
    "arguments", [("--seed", "-1"), ("--adapters", "-1"), ("--adapters", "10001"), ("x",)]
)
def test_arguments_out_of_range_are_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert run(tmp_path / "demo", *arguments).exit_code == 2

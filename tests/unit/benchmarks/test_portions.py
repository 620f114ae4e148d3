"""What was run once is not run again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.portions import Key, go_on


def doubled(key: Key) -> tuple[Key, dict[str, Any]]:
    return key, {"twice": 2 * key[1]}


def below(number: int, done: Mapping[Key, Any]) -> Iterator[Key]:
    return (key for n in range(number) if (key := ("a", n)) not in done)


def test_runs_are_made_once_and_gone_on_with(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    first = go_on(file, 60.0, 1, lambda done: below(3, done), doubled)
    assert first == {("a", n): {"twice": 2 * n} for n in range(3)}
    made = file.read_text()
    assert go_on(file, 60.0, 1, lambda done: below(5, done), doubled) == first | {
        ("a", 3): {"twice": 6},
        ("a", 4): {"twice": 8},
    }
    assert file.read_text().startswith(made) and len(file.read_text().splitlines()) == 5


def test_without_time_nothing_is_begun(tmp_path: Path) -> None:
    assert go_on(tmp_path / "runs.jsonl", 0.0, 1, lambda done: below(3, done), doubled) == {}


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs.jsonl").write_text("no runs\n")
    with pytest.raises(ValueError, match="Expecting value"):
        go_on(tmp_path / "runs.jsonl", 60.0, 1, lambda done: below(3, done), doubled)

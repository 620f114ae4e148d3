"""Is the training shown on a terminal and elsewhere?"""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from demo import display
from demo.answers import ADAPTERS, BASE_MODEL
from demo.folder import Manifest
from demo.recipe import Recipe


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_every_model_is_shown_when_it_has_learnt(terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    with display.watching(console, Recipe()) as watcher:
        for name in (BASE_MODEL, *ADAPTERS):
            watcher.step(name, 0)
            watcher.step(name, 20)
            watcher.learnt(name, 100, 6.25)

    told = shown(console)
    assert ("\x1b" in told) == terminal
    assert all(name in told for name in (BASE_MODEL, *ADAPTERS))
    assert told.count("margin 6.2") >= 1


def test_the_summary_adds_up_each_part() -> None:
    console = Console(file=io.StringIO(), width=100)
    files = {"base/model": 2**20, "base/config": 2**19, "adapters/acme-sales/a": 2**18}
    display.summary(
        console,
        Path("demo"),
        Manifest("", 0, 2, files | {"adapters/bulk-000/a": 2**20, "adapters/bulk-001/a": 2**20}),
        seconds=12.34,
    )

    told = shown(console)
    for line in ("1.50 MiB", "0.25 MiB", "bulk-000 .. bulk-001", "2.00 MiB", "12.3 s", "demo/answers.json"):
        assert line in told

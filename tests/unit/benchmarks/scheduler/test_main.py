"""The command that compares schedulers: what it takes, and what it refuses before anything starts."""

from __future__ import annotations

import typer
from typer.testing import CliRunner

from benchmarks.baselines import BASELINES
from benchmarks.scheduler.__main__ import SCHEDULERS, main
from benchmarks.scheduler.phases import OURS


def refused(*arguments: str) -> str:
    """What it says as it refuses them."""
    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    return result.stderr


def test_every_baseline_runs_and_ours() -> None:
    assert sorted(SCHEDULERS) == sorted((*BASELINES, OURS))


def test_an_unknown_scheduler_is_refused() -> None:
    assert "no scheduler best" in refused("--only", "best")

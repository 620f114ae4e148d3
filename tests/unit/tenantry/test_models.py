"""`tenantry models` against the admin API."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from routing.errors import Conflict
from tests.unit.routing.admin import fakes
from tests.unit.routing.admin.fakes import Desk
from tests.unit.tenantry.commands import Run, runner


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return fakes.desk(tmp_path)


@pytest.fixture
def run(desk: Desk) -> Run:
    """Runs the command as an operator."""
    return runner(desk, "models")


def test_models_are_shown_with_what_waits_what_it_costs_and_the_last_turns(run: Run) -> None:
    shown = run()
    assert shown.exit_code == 0, shown.output
    for text in ("mesh-0", "one", "awake", "21.5 s cold", "instead of", "worth"):
        assert text in shown.output


def test_everything_is_there_as_json(run: Run) -> None:
    assert json.loads(run("--json").output)["data"][0]["memory_bytes"] == 2**30


def test_a_dry_run_says_who_would_go_and_how_long_it_would_take(run: Run, desk: Desk) -> None:
    shown = run("wake", "one", "--dry-run")
    assert (
        "pool mesh: one at mesh-0, instead of two (2 running): it would come now; about 4 s" in shown.output
    )
    assert desk.management.models.asked == []


@pytest.mark.parametrize(
    ("order", "asked"),
    [
        ("wake", ("wake", "one")),
        ("sleep", ("sleep", "one")),
        ("pin", ("pin", "one", True)),
        ("unpin", ("pin", "one", False)),
    ],
)
def test_an_order_is_passed_on(run: Run, desk: Desk, order: str, asked: tuple[object, ...]) -> None:
    assert run(order, "one").exit_code == 0
    assert desk.management.models.asked == [asked]


def test_a_refusal_ends_with_its_words(run: Run, desk: Desk) -> None:
    desk.management.models.error = Conflict("`one` is pinned in pool `mesh`; unpin it first.", code="pinned")
    refused = run("sleep", "one")
    assert refused.exit_code == 1
    assert "unpin it first" in refused.output

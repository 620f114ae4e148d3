"""`tenantry diff` and `apply` against the admin API."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from fleet.problems import Problem
from routing.errors import Conflict
from routing.lifecycle.fleets import FleetInvalid, FleetRefused
from routing.lifecycle.ports import RestartState, RestartStep, StepState
from tenantry.app import app
from tenantry.client import KEY_VARIABLE
from tenantry.running import Connection
from tests.unit.routing.admin import fakes
from tests.unit.routing.admin.fakes import Desk

Run = Callable[..., Result]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return fakes.desk(tmp_path)


@pytest.fixture
def run(desk: Desk, tmp_path: Path) -> Run:
    """Runs a command on a file as an operator."""
    (tmp_path / "fleet.yaml").write_text("tenants: {}\n")

    def run(command: str, *arguments: str) -> Result:
        connection = Connection(httpx.ASGITransport(desk.app))
        return CliRunner().invoke(
            app,
            [command, str(tmp_path / "fleet.yaml"), *arguments],
            obj=connection,
            env={KEY_VARIABLE: "operator-key", "COLUMNS": "200"},
        )

    return run


def test_diff_shows_what_would_change_and_changes_nothing(run: Run, desk: Desk) -> None:
    result = run("diff")
    assert result.exit_code == 0, result.output
    assert "tenant acme: requests_per_minute 60 -> 120" in result.stdout
    assert "This needs no restart" in result.stdout
    ((document, _, expected, dry_run),) = desk.management.fleets.asked
    assert (document, expected, dry_run) == (b"tenants: {}\n", None, True)


def test_apply_says_under_which_revision_it_counts(run: Run, desk: Desk) -> None:
    result = run("apply", "--revision", "3")
    assert result.exit_code == 0, result.output
    assert "Applied as revision 3" in result.stdout
    assert desk.management.fleets.asked[0][2:] == (3, False)
    assert run("apply", "--dry-run").exit_code == 0
    assert desk.management.fleets.asked[1][2:] == (None, True)


def test_apply_with_a_restart_follows_each_pool_to_its_end(run: Run, desk: Desk) -> None:
    restart = desk.management.restarts.restart
    restart.state, restart.steps = (
        RestartState.DONE,
        (
            RestartStep("shared-0", StepState.DONE),
            RestartStep("shared-1", StepState.KEPT),
        ),
    )
    result = run("apply", "--restart")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[1:] == [
        "Applied as revision 3; it counts from the next request on.",
        "Engines get their new settings, one after the other: shared.",
        "shared-0: ready again",
        "shared-1: has these settings already",
        "Pool shared is restarted.",
    ]
    assert desk.management.restarts.asked == [], "the gateway has begun it"


def test_apply_says_where_the_restart_has_stopped_and_how_to_go_back(run: Run, desk: Desk) -> None:
    restart = desk.management.restarts.restart
    restart.state = RestartState.FAILED
    restart.steps[0].state, restart.steps[0].reason = StepState.FAILED, "its engine does not start"
    result = run("apply", "--restart")
    assert result.exit_code == 1
    assert "shared-0: its engine does not start. Not restarted: shared-1." in result.stderr
    assert "apply the old file with --restart" in result.stderr
    failed = run("apply", "--restart", "--json")
    assert (failed.exit_code, json.loads(failed.stdout)["state"]) == (1, "failed")


def test_apply_need_not_wait_and_a_dry_run_never_does(run: Run, desk: Desk) -> None:
    assert run("apply", "--restart", "--no-wait").exit_code == 0
    result = run("apply", "--restart", "--dry-run")
    assert result.exit_code == 0
    assert "The engines of shared would restart." in result.stdout


def test_what_was_made_at_run_time_and_no_longer_counts_is_a_line_each(run: Run, desk: Desk) -> None:
    desk.management.fleets.consequences = ["tenant acme: its alias latest leads nowhere"]
    for command in ("diff", "apply"):
        assert "made at run time: tenant acme: its alias latest leads nowhere" in run(command).stdout
    assert json.loads(run("diff", "--json").stdout)["consequences"] == desk.management.fleets.consequences


def test_every_problem_is_a_line(run: Run, desk: Desk) -> None:
    problems = [Problem("f", 3, "tenants.a", "is wrong", "correct it"), Problem("f", None, "", "and this")]
    desk.management.fleets.error = FleetInvalid(problems, may_be_more=False)
    result = run("apply")
    assert result.exit_code == 1
    assert "error: line 3: tenants.a: is wrong; correct it" in result.stderr
    assert "error: and this" in result.stderr


def test_what_needs_a_restart_is_a_line_each_and_json_has_all_of_it(run: Run, desk: Desk) -> None:
    desk.management.fleets.error = FleetRefused(["one reason", "another"], desk.management.fleets.changes)
    assert run("apply").stderr.splitlines()[:2] == ["error: one reason", "error: another"]
    result = run("apply", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["reasons"] == ["one reason", "another"]


def test_another_operator_was_first(run: Run, desk: Desk) -> None:
    desk.management.fleets.error = Conflict("The fleet is at revision 4.", code="fleet_changed")
    result = run("apply", "--revision", "3")
    assert result.exit_code == 1
    assert "revision 4" in result.stderr


def test_a_file_that_is_not_there_is_one_sentence(run: Run, tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").unlink()
    result = run("apply")
    assert result.exit_code == 1
    assert "No such file" in result.stderr

"""`tenantry restart` against the admin API."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from routing.errors import Conflict, NotFound
from routing.lifecycle.ports import PoolRestart, RestartState, StepState
from tenantry import following
from tests.unit.routing.admin import fakes
from tests.unit.routing.admin.fakes import Desk
from tests.unit.tenantry.commands import Run, runner


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(following, "POLL_S", 0.0)
    return fakes.desk(tmp_path)


@pytest.fixture
def run(desk: Desk) -> Run:
    """Runs the command as an operator."""
    return runner(desk, "restart")


def goes_on(desk: Desk, *changes: Callable[[PoolRestart], None]) -> None:
    """Make one change of the restart each time that somebody looks."""
    restarts, left = desk.management.restarts, list(changes)
    look = restarts.of

    def of(pool: str) -> PoolRestart:
        restart = look(pool)
        if left:
            left.pop(0)(restart)
        return restart

    restarts.of = of  # type: ignore[method-assign]


def step(index: int, state: StepState, reason: str = "") -> Callable[[PoolRestart], None]:
    def change(restart: PoolRestart) -> None:
        restart.steps[index].state, restart.steps[index].reason = state, reason

    return change


def state(value: RestartState) -> Callable[[PoolRestart], None]:
    def change(restart: PoolRestart) -> None:
        restart.state = value

    return change


def test_it_prints_a_line_for_each_step_until_all_are_ready(run: Run, desk: Desk) -> None:
    goes_on(
        desk,
        lambda _: None,
        lambda _: None,
        step(0, StepState.RESTARTING),
        step(0, StepState.DONE),
        step(1, StepState.LEFT),
        state(RestartState.DONE),
    )
    result = run("shared", "--drain", "5")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "shared-0: draining, sequences that still run there: 2",
        "shared-0: restarting",
        "shared-0: ready again",
        "shared-1: takes part no more",
        "Pool shared is restarted.",
    ]
    ((pool, replica, drain_s),) = desk.management.restarts.asked
    assert (pool, replica, drain_s) == ("shared", None, 5.0)


def test_it_can_return_at_once(run: Run, desk: Desk) -> None:
    result = run("shared", "--replica", "shared-0", "--no-wait")
    assert result.exit_code == 0, result.output
    assert "is being restarted" in result.stdout
    assert desk.management.restarts.asked[0][1] == "shared-0"


def test_a_replica_that_does_not_come_back_is_named_with_its_reason(run: Run, desk: Desk) -> None:
    goes_on(desk, step(0, StepState.FAILED, "its engine \x1b[31mdoes not start"), state(RestartState.FAILED))
    result = run("shared")
    assert result.exit_code == 1
    assert "shared-0: its engine  [31mdoes not start. Not restarted: shared-1." in result.stderr


def test_json_is_the_answer_whatever_it_is(run: Run, desk: Desk) -> None:
    goes_on(desk, state(RestartState.CANCELLED))
    result = run("shared", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["state"] == "cancelled"


def test_a_second_operator_is_told(run: Run, desk: Desk) -> None:
    desk.management.restarts.error = Conflict("Pool `shared` is being restarted", code="restart_running")
    result = run("shared")
    assert result.exit_code == 1
    assert "is being restarted" in result.stderr


def test_it_can_show_the_last_restart_and_which_engines_have_other_settings(run: Run, desk: Desk) -> None:
    desk.management.restarts.restart.steps[1].state = StepState.DONE
    known = fakes.report()
    renewed = replace(known, figures=replace(known.figures, outdated=True))
    desk.management.reports = [renewed, fakes.report("shared-1")]
    result = run("shared", "--show")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "The restart of pool shared by key 12345678: running",
        "shared-0: draining, sequences that still run there: 2",
        "shared-1: ready again",
        "shared-0 runs with other settings than the fleet has.",
        "`tenantry restart shared` gives them the fleet's settings.",
    ]
    assert desk.management.restarts.asked == []


def test_it_can_show_that_there_was_none(run: Run, desk: Desk) -> None:
    desk.management.restarts.error = NotFound("none", code="no_restart")
    desk.management.reports = [fakes.report()]
    result = run("shared", "--show")
    assert result.stdout.splitlines() == ["Pool shared was not restarted since the gateway started."]
    assert run("nothing", "--show").exit_code == 1
    assert run("../x", "--show").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "exit_code"), [(("../x",), 2), (("nothing",), 1), (("shared", "--drain", "-1"), 2), ((), 2)]
)
def test_wrong_use_is_refused(run: Run, desk: Desk, arguments: tuple[str, ...], exit_code: int) -> None:
    assert run(*arguments).exit_code == exit_code


def test_a_tenants_key_is_not_enough(run: Run, desk: Desk) -> None:
    assert run("shared", key="acme-key").exit_code == 1
    assert desk.management.restarts.asked == []

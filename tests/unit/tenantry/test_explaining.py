"""`tenantry explain REQUEST` against the admin API."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from routing.scheduling.decisions import KEPT, Action, Decision
from routing.turns.report import TurnEvent, TurnsReport
from tenantry.app import app
from tenantry.client import KEY_VARIABLE
from tenantry.running import Connection
from tests.unit.routing.admin import fakes
from tests.unit.routing.scheduling.busy import busy

Run = Callable[..., Result]
NOW_S = 1000.0  # monotonic


def decision(ago_s: float, action: Action, reason: str, replica: str | None = None) -> Decision:
    return Decision(NOW_S - ago_s, action, reason, "r-1", "acme", "support", "mesh", replica, 0.0, "two")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command as an operator, of a gateway that remembers one request that waited for its turn."""
    house = busy()
    desk = fakes.desk(tmp_path, tenants=house.fleet.tenants)
    granted = decision(1.0, Action.GRANTED, "only", "mesh-0.two")
    queued = decision(60.0, Action.QUEUED, "asleep")
    report = house.dispatcher.report(KEPT)
    desk.management.scheduled = replace(report, now_s=NOW_S, decisions=(granted, queued))
    unix_s = time.time()

    def event(ago_s: float, what: str, why: str, goes: str | None = None, **more: float | str) -> TurnEvent:
        host = "" if what == "held" else "mesh-0"
        return TurnEvent(unix_s - ago_s, "mesh", host, "two", goes, what, why, **more)  # type: ignore[arg-type]

    events = (
        event(1.02, "awake", "worth", "one", took_s=2.0, way="put"),
        event(3.0, "begins", "worth", "one"),
        event(4.0, "drains", "max_turn", "one"),
        event(400.0, "sleeps", "unused"),
    )
    holds = (event(30.0, "held", "young"),)
    monkeypatch.setattr(desk.management.models, "report", lambda: TurnsReport((), events, holds))

    def run(*arguments: str) -> Result:
        connection = Connection(httpx.ASGITransport(desk.app))
        environment = {KEY_VARIABLE: "operator-key", "COLUMNS": "160"}
        return CliRunner().invoke(app, ["explain", *arguments], obj=connection, env=environment)

    return run


def test_a_request_is_told_from_its_arrival_on_with_the_turn_that_it_waited_for(run: Run) -> None:
    shown = run("r-1")
    assert shown.exit_code == 0, shown.output
    told = [
        "acme, model support, pool mesh",
        "queued",
        "two has to wait",
        "young: what is awake has only just come",
        "the turn of one ends",
        "max_turn",
        "two begins to come instead of one",
        "two is awake instead of one, 2 s put",
        "granted",
    ]
    places = [shown.output.find(text) for text in told]
    assert places == sorted(places) and places[0] >= 0, shown.output
    assert "goes to disk" not in shown.output


def test_everything_is_there_as_json(run: Run) -> None:
    told = json.loads(run("r-1", "--json").output)
    assert [turn["what"] for turn in told["turns"]] == ["held", "drains", "begins", "awake"]
    assert [each["action"] for each in told["decisions"]] == ["granted", "queued"]


def test_a_request_that_is_not_remembered_is_said_to_be_so(run: Run) -> None:
    shown = run("r-2")
    assert shown.exit_code == 0 and "No decision about it is remembered" in shown.output

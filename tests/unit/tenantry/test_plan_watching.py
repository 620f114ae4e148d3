"""`tenantry plan --publish` and `--watch`: what the gateway gets, when a look is due, and how it ends."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from fleet.types import Fleet, StateSettings
from fleet.writer import write_fleet
from planning.sharing import Rules
from planning.values import DAY_S
from routing.catalog.plans import PlanKind
from routing.usage.store import UsageStore
from tenantry import plan_making, plan_watching
from tenantry.app import app
from tenantry.client import KEY_VARIABLE, Answer, GatewayRefused, GatewayUnreachable, WrongUse
from tenantry.plan_making import Wish
from tenantry.plan_watching import RETRY_S, Link, Watch, publish
from tenantry.running import Connection
from tests.fakes import small_fleet
from tests.unit.routing.admin import fakes
from tests.unit.routing.admin.fakes import Desk
from tests.unit.routing.admin.plans import MODEL, PLAN, POOL
from tests.unit.routing.usage.made import NOON_S, record, rows
from tests.unit.tenantry.test_plan_making import DEMAND, MODELS

NOW_S = NOON_S + 3600.0


def answer(**changes: Any) -> Answer:
    """What a plan answers."""
    return PLAN | {"moves": 1, "models": [MODEL | {"model": "a-support"}]} | changes


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv(KEY_VARIABLE, "operator-key")
    return fakes.desk(tmp_path)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """A fleet whose ledger has one request, within its objective."""
    state = StateSettings(str(tmp_path / "state"))
    store = UsageStore(state.database_url)
    store.open()
    store.write(rows(record("a", "support", stream=True, first_byte_s=0.7)))
    store.close()
    return replace(small_fleet(), state=state)


def link_to(desk: Desk) -> Link:
    return Link("http://gateway", httpx.ASGITransport(desk.app))


def wish(fleet: Fleet | None, source: str | None = None) -> Wish:
    return Wish(fleet, source, None, None, None, None, Rules(), 1, None, None, True)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Wish]:
    """Of what plans were made; each answers the same."""
    found: list[Wish] = []

    def make(asked: Wish) -> Answer:
        found.append(asked)
        return answer()

    monkeypatch.setattr(plan_watching, "make", make)
    return found


def watch(desk: Desk, fleet: Fleet | None, *, as_json: bool = False, source: str | None = None) -> Watch:
    return Watch(lambda: wish(fleet, source), 7 * DAY_S, link_to(desk), as_json=as_json)


def kept(desk: Desk, kind: PlanKind) -> Answer:
    told: Answer = json.loads(desk.management.plans.documents[kind].text)
    return told


def test_a_plan_is_published_with_as_many_models_and_hours_as_the_gateway_takes(desk: Desk) -> None:
    many = [MODEL | {"model": f"m{i}", "requests_per_day": float(i)} for i in range(1200)]
    missed = MODEL | {"model": "late", "requests_per_day": 0.0, "missed": "none came"}
    publish(answer(models=[*many, missed], pools=[POOL | {"hours": [0.5] * 2000}]), link_to(desk))
    told = kept(desk, PlanKind.PLAN)
    assert [one["model"] for one in told["models"][:2]] == ["late", "m1199"]
    assert (len(told["models"]), told["models_left_out"]) == (1000, 201)
    assert len(told["pools"][0]["hours"]) == 744


def test_the_first_look_publishes_its_plan_and_the_next_one_is_due_a_week_later(
    desk: Desk, fleet: Fleet, made: list[Wish], capsys: pytest.CaptureFixture[str]
) -> None:
    watching = watch(desk, fleet)
    assert watching.step(NOW_S) == 7 * DAY_S
    assert made[0].over_s == 7 * DAY_S
    assert kept(desk, PlanKind.PLAN)["devices"]["planned"] == 2
    look = kept(desk, PlanKind.LOOK)
    assert (look["models"][0]["requests"], look["models"][0]["first_token_p50_s"]) == (1, 0.7)
    assert {pool["pool"] for pool in look["pools"]} == set(fleet.pools)
    assert watching.step(NOW_S + DAY_S) == 6 * DAY_S
    assert len(made) == 1
    shown = capsys.readouterr().out
    assert "stay: 2 devices would do, 4 are in use" in shown
    assert "consolidate, if the next look finds the same" in shown


def test_advice_holds_over_a_restart_of_the_watch(desk: Desk, fleet: Fleet, made: list[Wish]) -> None:
    for week in range(2):
        watch(desk, fleet).step(NOW_S + week * 7 * DAY_S)
    assert kept(desk, PlanKind.LOOK)["advice"] == "consolidate"
    assert len(desk.management.plans.said) == 3


def test_each_look_is_a_line_of_json_where_that_is_asked_for(
    desk: Desk, fleet: Fleet, made: list[Wish], capsys: pytest.CaptureFixture[str]
) -> None:
    watch(desk, fleet, as_json=True).step(NOW_S)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["wish"] == "consolidate"


def test_what_ends_by_itself_is_tried_again(
    desk: Desk, fleet: Fleet, made: list[Wish], capsys: pytest.CaptureFixture[str]
) -> None:
    desk.management.gone = True
    assert watch(desk, fleet).step(NOW_S) == RETRY_S
    assert "no look was possible; again every 600 s" in capsys.readouterr().err

    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    gone = Link("http://gateway", httpx.MockTransport(refuse))
    assert Watch(lambda: wish(fleet), 60.0, gone, as_json=True).step(NOW_S) == 60.0
    with pytest.raises(GatewayUnreachable):
        publish(answer(), gone)
    away = replace(fleet, state=StateSettings("/nowhere"))
    desk.management.gone = False
    assert watch(desk, away).step(NOW_S) == RETRY_S
    assert "the ledger: it cannot be opened" in capsys.readouterr().err


@pytest.mark.parametrize("broken", ["", "base_models: [", "pools: {}", None], ids=repr)
def test_a_fleet_file_that_is_broken_for_a_moment_is_told_once_and_then_read_anew(
    desk: Desk,
    fleet: Fleet,
    made: list[Wish],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    good = write_fleet(fleet, key_variables={})
    Path("fleet.yaml").write_text(good)
    steps: list[float] = []

    def sleep(seconds: float) -> None:
        steps.append(seconds)
        if len(steps) == 3:
            Path("fleet.yaml").write_text(good)
        if len(steps) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    run = Watch.run

    def run_broken(watching: Watch) -> None:
        Path("fleet.yaml").unlink() if broken is None else Path("fleet.yaml").write_text(broken)
        run(watching, sleep)

    monkeypatch.setattr(Watch, "run", run_broken)
    monkeypatch.setattr(os, "nice", lambda _: None)
    arguments = ["plan", "--watch", "--url", "http://gateway"]
    ended = CliRunner().invoke(app, arguments, obj=Connection(httpx.ASGITransport(desk.app)))
    assert ended.exit_code == 0, ended.output
    assert steps[:3] == [RETRY_S] * 3
    assert steps[3] == 7 * DAY_S
    assert ended.output.count("no look was possible; again every 600 s: fleet.yaml") == 1
    assert len(made) == 1


def test_what_does_not_end_by_itself_ends_the_watch(
    desk: Desk, fleet: Fleet, made: list[Wish], monkeypatch: pytest.MonkeyPatch
) -> None:
    for fleet_of, source in ((None, None), (fleet, "requests.csv")):
        with pytest.raises(WrongUse, match="name its file with --fleet, and no --from"):
            watch(desk, fleet_of, source=source).step(NOW_S)
    monkeypatch.setenv(KEY_VARIABLE, "acme-key")
    with pytest.raises(GatewayRefused, match="operator"):
        watch(desk, fleet).step(NOW_S)
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(WrongUse, match=KEY_VARIABLE):
        watch(desk, fleet).step(NOW_S)


def test_it_ends_at_sigterm_with_nothing_to_complain_about(
    desk: Desk, fleet: Fleet, made: list[Wish], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    niced: list[int] = []
    monkeypatch.setattr(os, "nice", niced.append)
    rested: list[float] = []

    def sleep(seconds: float) -> None:
        rested.append(seconds)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as ended:
        watch(desk, fleet).run(sleep)
    assert (ended.value.code, niced, rested) == (0, [10], [7 * DAY_S])
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("key", "code"), [("acme-key", 1), (None, 2)])
def test_who_may_not_publish_hears_so_before_the_plan_is_made(
    desk: Desk, fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None, code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    made: list[Wish] = []
    monkeypatch.setattr(plan_making, "make", made.append)
    monkeypatch.delenv(KEY_VARIABLE) if key is None else monkeypatch.setenv(KEY_VARIABLE, key)
    arguments = ["plan", "--publish", "--url", "http://gateway", "--machines", "l4"]
    result = CliRunner().invoke(app, arguments, obj=Connection(httpx.ASGITransport(desk.app)))
    assert (result.exit_code, made) == (code, []), result.output


def test_the_command_publishes_what_it_has_planned(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.yaml").write_text(MODELS)
    (tmp_path / "demand.csv").write_text(DEMAND)
    options = ("--from", "demand.csv", "--models", "models.yaml", "--machines", "h100-80gb", "--seeds", "1")
    arguments = ["plan", *options, "--publish", "--url", "http://gateway"]
    result = CliRunner().invoke(app, arguments, obj=Connection(httpx.ASGITransport(desk.app)))
    assert result.exit_code == 0, result.output
    told = kept(desk, PlanKind.PLAN)
    assert {one["model"] for one in told["models"]} == {"a1", "a2", "a3", "a4", "whole"}
    assert "published: " in desk.management.plans.said[0]
    wrong = CliRunner().invoke(
        app, ["plan", "--watch", "--from", "demand.csv"], obj=Connection(httpx.ASGITransport(desk.app))
    )
    assert wrong.exit_code == 2

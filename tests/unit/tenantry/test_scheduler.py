"""`tenantry scheduler`, `drain` and `resume`: what they ask, print and exit with."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from engines.health import EngineHealth, EngineState
from routing.scheduling.decisions import KEPT, Action, Decision
from routing.scheduling.state import SlotDrain
from tenantry import scheduler as commands
from tenantry import scheduler_tables
from tenantry.app import app
from tenantry.client import KEY_VARIABLE
from tenantry.running import Connection
from tests.unit.routing.admin import fakes
from tests.unit.routing.admin.fakes import Desk
from tests.unit.routing.scheduling.busy import Busy, busy
from tests.unit.routing.scheduling.whole import Whole

Run = Callable[..., Result]


@pytest.fixture
def house() -> Busy:
    return busy()


@pytest.fixture
def desk(tmp_path: Path, house: Busy) -> Desk:
    desk = fakes.desk(tmp_path, tenants=house.fleet.tenants)
    desk.management.scheduled = house.dispatcher.report(KEPT)
    desk.management.reports = [fakes.report(), fakes.report("shared-1")]
    return desk


@pytest.fixture
def run(desk: Desk) -> Run:
    """Runs a command with an operator's key if no other is given."""

    def run(
        *arguments: str,
        key: str | None = "operator-key",
        columns: int = 200,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> Result:
        connection = Connection(transport or httpx.ASGITransport(desk.app))
        environment = {KEY_VARIABLE: key, "COLUMNS": str(columns)}
        return CliRunner().invoke(app, list(arguments), obj=connection, env=environment)

    return run


def rows(output: str) -> list[list[str]]:
    """Cells of every line of every table."""
    lines = [line for line in output.splitlines() if "│" in line]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]


# -- looking -----------------------------------------------------------------------------------------------


def test_the_scheduler_is_shown_as_tables(run: Run) -> None:
    result = run("scheduler")
    assert result.exit_code == 0, result.output
    assert "pool shared: 1 wait (high 0, standard 1, low 0)" in result.stdout
    assert "pool alone: nothing waits" in result.stdout
    assert "objectives: first token 60 s, between tokens 50 ms" in result.stdout
    assert "shared-0: a slot is drained for a-sales@1, a-support@1 gets nothing new" in result.stdout
    shown = rows(result.stdout)
    leases = "a-support@1 (1, 12.5 s)"
    assert ["shared-0", "ready", "1 of 8", "74 of 1000", "20 ms", "1 of 1", leases, "closed"] in shown
    assert ["a-sales@1", "1", "11.5 s", "no_slot"] in shown
    assert ["500 ms", "refused", "a", "support", "rejected", "max_concurrency", "", ""] in shown


def test_a_replica_in_trouble_says_what_happened(run: Run, desk: Desk, house: Busy) -> None:
    house.fail("shared-0", 3)
    house.dispatcher.set_draining("alone-0", True)
    desk.management.scheduled = house.dispatcher.report()
    shown = run("scheduler").stdout
    assert "shared-0: circuit breaker open, tried again in 1 s; 3 of 3 requests failed lately" in shown
    assert "(it failed while it answered)" in shown
    states = {row[0]: row[1] for row in rows(shown) if len(row) == 8 and row[0].endswith("-0")}
    assert states["alone-0"] == "draining"


def test_a_replica_whose_engine_does_not_start_says_why(run: Run, desk: Desk, house: Busy) -> None:
    engine = house.dispatcher.replicas["shared-0"].engine
    engine.ready, engine.told = False, EngineHealth(EngineState.FAILED, "No working C++ compiler")
    desk.management.scheduled = house.dispatcher.report()
    shown = run("scheduler").stdout
    assert "shared-0: No working C++ compiler" in shown
    assert {row[0]: row[1] for row in rows(shown) if len(row) == 8}["shared-0"] == "failed"


def test_a_pool_with_a_range_says_how_many_replicas_it_wants_and_why(
    run: Run, desk: Desk, house: Busy
) -> None:
    assert "wanted" not in run("scheduler").stdout
    house.give_range(0)
    desk.management.scheduled = house.dispatcher.report()
    wanted = "replicas wanted: 1 of 0 to 1: the gateway has just begun, with 1 there"
    assert wanted in " ".join(run("scheduler").stdout.split())


def test_a_pool_with_several_base_models_names_them(run: Run, desk: Desk) -> None:
    assert "pool shared: 1 wait" in run("scheduler").stdout
    desk.management.scheduled = Whole().dispatcher.report()
    shown = run("scheduler").stdout
    assert "pool whole, large: nothing waits" in shown and "pool whole, small: nothing waits" in shown


def test_a_free_slot_that_is_promised_evicts_no_adapter(run: Run, desk: Desk, house: Busy) -> None:
    house.dispatcher.replicas["shared-0"].engine.slot_drain = SlotDrain("a-sales@1", "a", None)
    desk.management.scheduled = house.dispatcher.report()
    assert "shared-0: a free slot is kept for a-sales@1\n" in run("scheduler").stdout


def test_json_is_the_gateway_s_answer(run: Run) -> None:
    answer = json.loads(run("scheduler", "--json").stdout)
    assert [pool["name"] for pool in answer["pools"]] == ["shared", "alone"]
    assert len(answer["decisions"]) == 4


@pytest.mark.parametrize(
    ("options", "requests"),
    [
        (("--decisions", "1"), ["refused"]),
        (("--decisions", "0"), []),
        (("--request", "waiting"), ["waiting", "waiting"]),
        (("--tenant", "b"), []),
    ],
)
def test_decisions_can_be_chosen(run: Run, options: tuple[str, ...], requests: list[str]) -> None:
    answer = json.loads(run("scheduler", "--json", *options).stdout)
    assert [decision["request_id"] for decision in answer["decisions"]] == requests
    assert run("scheduler", *options).exit_code == 0


def test_a_long_list_is_cut_and_says_so(run: Run, desk: Desk) -> None:
    report = desk.management.scheduled
    first = report.pools[0].waiting[0]
    waiting = tuple(replace(first, engine_model=f"a{n}@1") for n in range(scheduler_tables.SHOWN + 3))
    desk.management.scheduled = replace(report, pools=(replace(report.pools[0], waiting=waiting),))
    shown = run("scheduler").stdout
    assert "a19@1" in shown and "a20@1" not in shown
    assert "and 3 more that wait" in shown


def test_what_others_wrote_cannot_steer_the_terminal(run: Run, desk: Desk) -> None:
    evil = "\x1b[2J\x07[bold red]gone[/] \u202e:smile:"
    decision = Decision(1.0, Action.REJECTED, evil, evil, evil, evil, evil, evil, 0.0, evil)
    report = desk.management.scheduled
    first = replace(report.pools[0].waiting[0], engine_model=evil, waits_for=evil)
    pool = replace(report.pools[0], name=evil, waiting=(first,))
    desk.management.scheduled = replace(report, pools=(pool,), decisions=(decision,))
    shown = run("scheduler").stdout
    assert shown.count("[bold red]gone[/]") == 8
    assert not set("\x1b\x07\u202e") & set(shown)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_narrow_terminal_loses_nothing(run: Run, columns: int) -> None:
    shown = run("scheduler", columns=columns).stdout
    assert "…" not in shown
    assert all(len(line) <= max(columns, 110) for line in shown.splitlines())


@pytest.mark.parametrize(
    ("time_s", "text"),
    [
        (None, ""),
        (0.0, "0 ms"),
        (0.0213, "21.3 ms"),
        (1.5, "1.5 s"),
        (119.0, "119 s"),
        (600.0, "10 min"),
        (7300.0, "2 h"),
    ],
)
def test_times_are_shown_in_the_unit_that_suits_them(time_s: float | None, text: str) -> None:
    assert scheduler_tables.seconds(time_s) == text


# -- watching ----------------------------------------------------------------------------------------------


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses of `--watch`; the third one is interrupted."""
    naps: list[float] = []

    def sleep(time_s: float) -> None:
        naps.append(time_s)
        if len(naps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    return naps


def test_watching_looks_again_until_it_is_interrupted(run: Run, naps: list[float]) -> None:
    result = run("scheduler", "--watch", "2.5")
    assert result.exit_code == 0, result.output
    assert naps == [2.5] * 3
    assert result.stdout.count("pool shared") == 3


def test_a_gateway_that_restarts_is_watched_on(run: Run, desk: Desk, naps: list[float]) -> None:
    class Restarting(httpx.AsyncBaseTransport):
        asked = 0

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            self.asked += 1
            if self.asked == 2:
                raise httpx.ConnectError("refused")
            return await httpx.ASGITransport(desk.app).handle_async_request(request)

    result = run("scheduler", "--watch", "1", transport=Restarting())
    assert result.exit_code == 0
    assert result.stdout.count("pool shared") == 2
    assert "Nothing answers" in result.stderr


@pytest.mark.parametrize(("key", "code"), [("acme-key", 1), (None, 2)])
def test_what_will_not_get_better_is_not_watched(
    run: Run, naps: list[float], key: str | None, code: int
) -> None:
    assert run("scheduler", "--watch", "1", key=key).exit_code == code
    assert naps == []


def test_a_gateway_that_never_answered_is_not_watched(run: Run, naps: list[float]) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    assert run("scheduler", "--watch", "1", transport=httpx.MockTransport(refuse)).exit_code == 3
    assert naps == []


def test_on_a_terminal_each_look_begins_on_a_clear_screen(desk: Desk) -> None:
    terminal = Console(force_terminal=True, width=100, file=io.StringIO(), highlight=False, markup=False)
    commands._on_a_clear_screen(terminal, {"pools": [], "decisions": []})
    written = terminal.file
    assert isinstance(written, io.StringIO)
    assert "\x1b[2J" in written.getvalue()


# -- draining ----------------------------------------------------------------------------------------------


def test_a_replica_is_drained_and_resumed(run: Run, desk: Desk) -> None:
    drained = run("drain", "shared-1")
    assert drained.exit_code == 0, drained.output
    assert "draining" in drained.stdout
    assert "shared-1 gets no new work. Sequences that still run there: 3." in drained.stdout
    assert "no_replica_ready" not in drained.stdout, "shared-0 is still there"
    resumed = run("resume", "shared-1")
    assert "gets no new work" not in resumed.stdout
    assert desk.management.calls == [("set_draining", "shared-1", True), ("set_draining", "shared-1", False)]


def test_draining_the_last_replica_says_what_its_clients_get(run: Run, desk: Desk) -> None:
    run("drain", "shared-1")
    shown = run("drain", "shared-0").stdout
    assert "No other replica like it is ready in pool shared: requests get 503 no_replica_ready." in shown
    assert json.loads(run("drain", "shared-0", "--json").stdout)["others_ready"] == 0


@pytest.mark.parametrize(
    "other",
    [
        {"pool": "alone"},
        {"figures": fakes.figures("shared-1", base_model="other")},
        {"figures": fakes.figures("shared-1", ready=False)},
    ],
)
def test_only_a_ready_replica_of_the_same_kind_can_take_over(run: Run, desk: Desk, other: Any) -> None:
    desk.management.reports[1] = replace(desk.management.reports[1], **other)
    assert json.loads(run("drain", "shared-0", "--json").stdout)["others_ready"] == 0


def test_draining_the_last_ready_replica_says_that_requests_wait(run: Run, desk: Desk) -> None:
    figures = fakes.figures("shared-1", ready=False)
    desk.management.reports[1] = replace(desk.management.reports[1], figures=figures)
    shown = run("drain", "shared-0").stdout
    assert "No other replica like it is ready in pool shared: requests wait until one is." in shown


def test_an_empty_replica_says_so(run: Run, desk: Desk) -> None:
    figures = fakes.figures(sequences=0)
    desk.management.reports[0] = replace(desk.management.reports[0], figures=figures, leases={})
    assert "It is empty." in run("drain", "shared-0").stdout


@pytest.mark.parametrize("command", ["drain", "resume"])
def test_a_replica_that_is_not_there_is_refused(run: Run, command: str) -> None:
    result = run(command, "nobody")
    assert result.exit_code == 1
    assert "no replica `nobody`" in result.stderr
    assert json.loads(run(command, "nobody", "--json").stdout)["error"]["code"] == "replica_not_found"


@pytest.mark.parametrize("command", [["scheduler"], ["drain", "shared-0"], ["resume", "shared-0"]])
def test_a_tenant_s_key_is_refused_and_no_key_is_wrong_use(run: Run, desk: Desk, command: list[str]) -> None:
    assert run(*command, key="acme-key").exit_code == 1
    assert run(*command, key=None).exit_code == 2
    assert run(*command, "--url", "ftp://host").exit_code == 2
    assert desk.management.calls == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["drain"],
        ["drain", "../scheduler"],
        ["drain", ""],
        ["scheduler", "--decisions", "513"],
        ["scheduler", "--decisions", "-1"],
        ["scheduler", "--watch", "0"],
        ["scheduler", "--watch", "nan"],
        ["scheduler", "--watch", "inf"],
        ["scheduler", "--watch", "soon"],
    ],
    ids=" ".join,
)
def test_wrong_use_exits_with_2_and_asks_nothing(run: Run, arguments: list[str]) -> None:
    def never(request: httpx.Request) -> httpx.Response:
        raise AssertionError("the gateway was asked")

    assert run(*arguments, transport=httpx.MockTransport(never)).exit_code == 2

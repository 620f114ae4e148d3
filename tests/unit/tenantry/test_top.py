"""`tenantry top`: what it shows, in which order, and how it ends."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from engines.health import EngineHealth, EngineState
from routing.types import Outcome
from tenantry import top, top_view
from tenantry.app import app
from tenantry.client import KEY_VARIABLE, GatewayRefused
from tenantry.running import Connection
from tests.fakes import eventually
from tests.unit.routing.admin import fakes
from tests.unit.routing.admin.fakes import Desk
from tests.unit.routing.admin.test_live import fill
from tests.unit.routing.observing.live.records import answered, ended
from tests.unit.routing.requests import target
from tests.unit.routing.scheduling.busy import Busy, busy

Run = Callable[..., Result]


@pytest.fixture
def house() -> Busy:
    return busy()


@pytest.fixture
def desk(tmp_path: Path, house: Busy) -> Desk:
    """One model waits, one is slow, one fails, one is well."""
    desk = fakes.desk(tmp_path, tenants=house.fleet.tenants)
    fill(desk.management, desk.watched, house)
    now, figures = desk.watched.clock.now, desk.watched.figures
    for first_s, of in ((0.2, target("b")), *[(90.0, target("a", "support"))] * 3):
        figures.observe(answered(first_s, of=of), now)
    for _ in range(3):
        figures.observe(ended(Outcome.FAILED, 502, "engine_failed", of=target("c")), now)
    return desk


@pytest.fixture
def run(desk: Desk) -> Run:
    def run(
        *arguments: str,
        key: str | None = "operator-key",
        columns: int = 160,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> Result:
        connection = Connection(transport or httpx.ASGITransport(desk.app))
        environment = {KEY_VARIABLE: key, "COLUMNS": str(columns)}
        return CliRunner().invoke(app, ["top", *arguments], obj=connection, env=environment)

    return run


def test_once_prints_the_worst_first_and_why(run: Run) -> None:
    result = run("--once")
    assert result.exit_code == 0, result.output
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert lines[0].startswith("1 failing  1 slow  2 green")
    assert "1 waiting" in lines[0]
    assert lines[1] == "c/support: 100 % of its requests fail (engine_failed)"
    assert lines[2].startswith("a/support: p99 first token 86.7 s")
    models = [line.split()[0] for line in lines[4:8]]
    assert models == ["c/support", "a/support", "a/sales", "b/support"]
    waiting = next(line for line in lines if line.startswith("a/sales"))
    assert "1 for 11.5 s" in waiting
    assert any(line.startswith("shared-0") and "a-support:draining" in line for line in lines)
    assert "waiting in shared: a 1" in lines


def test_a_terminal_of_80_columns_shows_which_model_it_is(run: Run) -> None:
    lines = run("--once", columns=80).stdout.splitlines()
    (row,) = (line for line in lines if line.startswith("b/support"))
    cells = row.split()
    assert cells[1:4] == ["green", "201", "ms"] and cells[-4:] == ["0", "0.1", "0", "%"]
    assert len(row) <= 80


def test_json_is_the_gateway_s_answer(run: Run) -> None:
    answer = json.loads(run("--json").stdout)
    assert [m["verdict"] for m in answer["models"]] == ["failing", "slow", "green", "green"]
    assert answer["history"]["models"]


def test_a_gateway_at_rest_says_so(run: Run, desk: Desk, house: Busy) -> None:
    for ticket in house.tickets:
        house.dispatcher.settle(ticket, Outcome.CANCELLED)
    fill(desk.management, desk.watched, house)
    desk.watched.clock.now += 1000
    assert "Nothing ended in the last five minutes, and nothing waits." in run("--once").stdout


def test_a_replica_whose_engine_does_not_start_says_why(run: Run, desk: Desk, house: Busy) -> None:
    engine = house.dispatcher.replicas["shared-0"].engine
    engine.ready, engine.told = False, EngineHealth(EngineState.FAILED, "No working C++ compiler")
    desk.management.scheduled = house.dispatcher.report()
    shown = run("--once").stdout
    assert "shared-0: No working C++ compiler" in shown and "failed" in shown


def test_a_replica_in_trouble_says_what_happened(run: Run, desk: Desk, house: Busy) -> None:
    house.fail("shared-0", 3)
    desk.management.scheduled = house.dispatcher.report()
    assert "shared-0: circuit breaker open; 3 of 3 requests failed lately" in run("--once").stdout


@pytest.mark.parametrize(
    ("options", "status"),
    [({"key": None}, 2), ({"key": "wrong"}, 1), ({"key": "acme-key"}, 1)],
    ids=["no key", "nobody's", "no operator's"],
)
@pytest.mark.parametrize("once", [("--once",), ()], ids=["once", "watching"])
def test_without_an_operator_s_key_it_ends_at_once(
    run: Run, options: dict[str, Any], status: int, once: tuple[str, ...]
) -> None:
    assert run(*once, **options).exit_code == status


@pytest.mark.parametrize("every", ["0.1", "nan", "x", "-1"])
def test_what_is_no_sensible_interval_is_refused(run: Run, every: str) -> None:
    assert run("--every", every).exit_code == 2


def test_names_cannot_steer_the_terminal(desk: Desk) -> None:
    answer: Any = asyncio.run(picture(desk))
    answer["models"][0] |= {"tenant": "\x1b[2J[red]", "reason": "\x1b]0;x\x07"}
    shown = render(answer)
    assert "\x1b" not in shown and "\x07" not in shown
    assert "[red]" in shown, "nor is it read as markup"


def test_a_low_terminal_keeps_the_worst_models(desk: Desk) -> None:
    for number in range(50):
        desk.watched.figures.observe(answered(of=target("a", f"m{number}")), desk.watched.clock.now)
    shown = render(asyncio.run(picture(desk)), height=24)
    assert len(shown.splitlines()) <= 24
    assert "c/support" in shown and "a/support" in shown
    assert "more models, none of them worse" in shown


async def picture(desk: Desk) -> dict[str, Any]:
    return dict((await desk.ask("GET", "/admin/v1/live", key="operator-key")).json())


def render(answer: Any, *, height: int | None = None) -> str:
    terminal = Console(file=io.StringIO(), width=120, color_system=None)
    terminal.print(top_view.screen(answer, None, height=height))
    return terminal.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("values", "drawn"),
    [([], ""), ([0.0, 0.0], "▁▁"), ([None, 1.0, 0.5, None], " █▅ "), ([8.0, *[1.0] * 24], "█" * 24)],
)
def test_a_graph_goes_from_nothing_to_the_highest(values: list[float | None], drawn: str) -> None:
    assert top_view.spark(values) == drawn


# -- watching ----------------------------------------------------------------------------------------------


class Flaky(httpx.AsyncBaseTransport):
    """Answers, then breaks, then refuses."""

    def __init__(self, desk: Desk) -> None:
        self._inner = httpx.ASGITransport(desk.app)
        self.asked = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        if self.asked == 2:
            raise httpx.ConnectError("gone")
        if self.asked == 4:
            request.headers["authorization"] = "Bearer revoked"
        return await self._inner.handle_async_request(request)


async def test_watching_outlives_a_gateway_that_is_away_and_ends_with_a_key_that_is_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "operator-key")
    transport = Flaky(desk)
    terminal = Console(file=io.StringIO(), width=160, force_terminal=False)
    with pytest.raises(GatewayRefused):
        await top._watch(Connection(transport), "http://gateway", 0.001, terminal)
    assert transport.asked == 4


async def test_ctrl_c_ends_it_quietly(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "operator-key")
    terminal = Console(file=io.StringIO(), width=160, force_terminal=False)
    connection = Connection(httpx.ASGITransport(desk.app))
    task = asyncio.create_task(top._watch(connection, "http://gateway", 0.001, terminal))
    reported = desk.management.reported
    await eventually(lambda: desk.management.reported >= reported + 3)
    task.cancel()
    await task


def test_an_old_picture_says_how_old_it_is() -> None:
    assert top._age(1.0, 1.0) is None
    note = top._age(10.0, 1.0)
    assert note is not None and note.plain == "The gateway does not answer; this is 10 s old."

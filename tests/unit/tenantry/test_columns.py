"""Tables on terminals of any width: whole ids, whole words, fewer columns."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from rich.text import Text
from typer.testing import CliRunner

from routing.scheduling.decisions import KEPT
from routing.types import Outcome
from tenantry.app import app
from tenantry.client import KEY_VARIABLE
from tenantry.columns import Columns, print_prose
from tenantry.running import WIDE, Connection, print_whole
from tests.unit.fleet.files import adapter_folder, changed, declared, write
from tests.unit.routing.admin import fakes
from tests.unit.routing.admin.test_live import fill
from tests.unit.routing.observing.live.records import answered, ended
from tests.unit.routing.requests import target
from tests.unit.routing.scheduling.busy import busy

ADAPTER = "customer-support-germany-austria-switzerland-2026-09-r64-dpo-v3"
TENANT = "northwind-traders-international-holdings"
BASE = "meta-llama-3.1-70b-instruct-awq-int4-production"
REPLICA = "shared-frankfurt-h100-3"
KEY_ID = "8d3f0c1e-5b7a-4f19-9a55-0f6c2d7b4e21"
REASON = "the adapter has rank 128, its base model takes at most 64 of the ranks that vLLM has kernels for"
MANY = [f"{ADAPTER}@{number}" for number in range(1, 9)]
assert (len(ADAPTER), len(TENANT), len(KEY_ID)) == (63, 40, 36)

ROLLOUT = {"candidate": 12, "weight": 0.125, "promote_after": 1000}
LISTED = {
    "tenant": TENANT,
    "name": ADAPTER,
    "base_model": BASE,
    "state": "quarantined",
    "live": 11,
    "newest": 12,
    "rollout": ROLLOUT,
    "pinned": True,
    "declared": False,
    "previous": 10,
}
VERSION = {
    "number": 12,
    "state": "quarantined",
    "traffic": 0.125,
    "rank": 64,
    "size_bytes": 167_000_000,
    "created_at": 1_790_000_000,
    "source": f"hf://{TENANT}/{ADAPTER}",
    "reason": REASON,
    "resident": [
        {"replica": f"{REPLICA}{n}", "place": "slot", "pinned": True, "draining": False} for n in "abc"
    ],
}
STANDING = {
    "name": REPLICA,
    "pool": TENANT,
    "base_model": BASE,
    "state": "failed",
    "reason": REASON,
    "answered": True,
    "outdated": True,
    "slots": 8,
    "in_flight": 31,
    "in_slots": MANY,
    "in_host": MANY,
    "pinned": MANY[:2],
    "faults": [],
}
KEY = {
    "id": KEY_ID,
    "prefix": "tnt_8LxWv2Qk",
    "role": "inference",
    "tenant": TENANT,
    "note": "CI of the team that answers customers in Zürich and Linz",
    "created_at": 1_790_000_000,
    "expires_at": 1_795_000_000,
    "revoked_at": 1_792_000_000,
    "limits": {"max_concurrency": 4, "max_queued": None, "monthly_tokens": 50_000_000},
    "used_tokens": 1_234_567,
}
DECLARED_KEY = {
    "fingerprint": "9f86d081884c7d65",
    "role": "inference",
    "tenant": TENANT,
    "declared": True,
    "name": "ci",
    "limits": {"max_concurrency": None},
    "used_tokens": None,
}
USED = {
    "tenant": TENANT,
    "model": ADAPTER,
    "requests": 1_234_567,
    "prompt_tokens": 9_876_543_210,
    "completion_tokens": 123_456_789,
    "cached_tokens": 12_345,
    "queue_s": 12.5,
    "run_s": 8e4,
    "slot_s": 9e4,
    "engine_s": 3e4,
    "switch_s": 120.0,
    "estimated_requests": 3,
    "priced_requests": 1_234_567,
    "cost": "98765.000000001",
}
EVENT = {
    "at": 1_790_000_000,
    "actor": "tenantry",
    "subject": f"{TENANT}/{ADAPTER}@12",
    "text": f"quarantined: {REASON}",
}
USAGE = {
    "from": "2026-09-01",
    "to": "2026-09-30",
    "group_by": ["tenant", "model"],
    "currency": "EUR",
    "data": [USED] * 2,
}
NAMES = {"a-support": f"{TENANT}-{ADAPTER}", "a": TENANT, "support": ADAPTER, "shared-0": REPLICA}
ANSWERS: dict[str, Any] = {
    "/adapters": {"data": [LISTED], "next": None},
    f"/adapters/{ADAPTER}": {**LISTED, "versions": [VERSION, {**VERSION, "number": 13, "traffic": 0}]},
    "/replicas": {"data": [STANDING]},
    "/events": {"data": [EVENT]},
    "/keys": {"data": [KEY], "declared": [DECLARED_KEY]},
    "/usage": {**USAGE, "total": USED, "budgets": []},
}
COMMANDS = [
    ["adapters", "list"],
    ["adapters", "show", ADAPTER],
    ["events"],
    ["replicas"],
    ["keys", "list"],
    ["usage"],
    ["scheduler"],
    ["top", "--once"],
    ["check"],
    ["who-shares"],
]
WIDTHS = [60, 80, 100, 160]
FRAME = "┏┳┓┡╇┩├┼┤└┴┘━─│┃"
FOOTER = "wider terminals also show: "
Show = Callable[[int | None], str]


def renamed(answer: Any) -> Any:
    """An answer with the short names in it made long."""
    if isinstance(answer, dict):
        return {key: renamed(value) for key, value in answer.items()}
    if isinstance(answer, list):
        return [renamed(value) for value in answer]
    return NAMES.get(answer.partition("@")[0], answer) if isinstance(answer, str) else answer


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a gateway answers whose names are as long as names may be."""
    house = busy()
    desk = fakes.desk(tmp_path_factory.mktemp("desk"), tenants=house.fleet.tenants)
    desk.management.scheduled = house.dispatcher.report(KEPT)
    fill(desk.management, desk.watched, house)
    figures, now = desk.watched.figures, desk.watched.clock.now
    figures.observe(answered(90.0, of=target("a", "support")), now)
    figures.observe(ended(Outcome.FAILED, 502, "engine_failed", of=target("c")), now)
    found = dict(ANSWERS)
    for command, path in (("scheduler", "/scheduler"), ("top", "/live")):
        connection = Connection(httpx.ASGITransport(desk.app))
        shown = CliRunner().invoke(
            app, [command, "--json"], obj=connection, env={KEY_VARIABLE: "operator-key"}
        )
        found[path] = renamed(json.loads(shown.stdout))
    return found


def long_fleet(folder: Path) -> Path:
    """Write a fleet file whose names are long."""
    folder.mkdir()
    text = json.dumps(
        changed("pools/shared/devices", ["GPU-8d3f0c1e-5b7a-4f19-9a55-0f6c2d7b4e21"], declared())
    )
    for short, long in {"alpha": TENANT, "a-support": ADAPTER, "base": BASE, "shared": REPLICA}.items():
        text = text.replace(f'"{short}"', f'"{long}"')
    text = text.replace(f'"{BASE}": "base', '"base": "base').replace(f'"isolation": "{REPLICA}"', "")
    for name in "abc":
        adapter_folder(folder / name)
    return write(folder, json.loads(text))


@pytest.fixture(params=COMMANDS, ids=lambda command: " ".join(command)[:20])
def show(request: pytest.FixtureRequest, answers: dict[str, Any], tmp_path: Path) -> Show:
    """What a command prints on a terminal of a width, or into a pipe."""
    command = request.param
    arguments = (
        [*command, str(long_fleet(tmp_path / "f"))] if command[0] in ("check", "who-shares") else command
    )

    def answer(asked: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=answers[asked.url.path.removeprefix("/admin/v1")])

    def show(width: int | None) -> str:
        env = {KEY_VARIABLE: "key", "COLUMNS": None if width is None else str(width)}
        result = CliRunner().invoke(app, arguments, obj=Connection(httpx.MockTransport(answer)), env=env)
        assert result.exit_code == 0, result.output
        return result.stdout

    return show


def words(text: str) -> set[str]:
    """Everything between white space and lines, without what a row in lines of its own adds."""
    return {word.strip(",:;") for word in text.translate(dict.fromkeys(map(ord, FRAME), " ")).split()}


@pytest.mark.parametrize("width", WIDTHS)
def test_no_id_and_no_word_is_broken(show: Show, width: int) -> None:
    narrow, wide = show(width), show(None)
    about = words(f"{FOOTER} so does a pipe --json has all; and --csv")
    assert not words(narrow) - words(wide) - about - {""}
    assert "…" not in narrow
    for name in (ADAPTER, TENANT, KEY_ID, BASE, REPLICA):
        lines = [line for line in narrow.splitlines() if name in line]
        assert lines or name not in wide or FOOTER in narrow, name


@pytest.mark.parametrize("width", WIDTHS)
def test_every_line_of_a_table_fits_unless_one_word_alone_does_not(show: Show, width: int) -> None:
    wide = show(None).splitlines()
    for line in show(width).splitlines():
        text = line.rstrip()
        said_outside_a_table = text in wide and not set(FRAME) & set(text) and FOOTER not in text
        assert len(text) <= width or len(text.split()) == 1 or said_outside_a_table, text


def test_a_pipe_has_every_column_and_no_width(show: Show) -> None:
    wide = show(None)
    assert FOOTER not in wide
    widest = 20 * max(WIDTHS)
    assert wide == show(widest), "a row is never wrapped"


@pytest.mark.parametrize("width", WIDTHS)
def test_what_is_left_out_is_named(width: int) -> None:
    """Either a column is there, or a footer names it, or each row is shown whole in lines of its own."""
    table = Columns("id", "role", "tenant", "note", "made", spare=("made", "note"), prose=("note",))
    table.add(KEY_ID, "inference", "acme", "for the team in Linz", "2026-09-21 10:40")
    shown = printed(table, width)
    for name in ("id", "role", "tenant", "note", "made"):
        assert re.search(rf"\b{name}\b", shown), name
    assert KEY_ID in shown


# -- the table itself --------------------------------------------------------------------------------------


def printed(table: Columns, width: int) -> str:
    shown = Console(width=width, record=True, file=io.StringIO())
    print_whole(shown, table)
    return shown.export_text()


def test_columns_go_in_the_order_in_which_they_can_be_spared() -> None:
    table = Columns("name", "first", "second", spare=("first", "second"), note="see elsewhere")
    table.add("x" * 10, "y" * 10, "z" * 10)
    assert [printed(table, width).count(letter * 10) for width in (60, 30, 20) for letter in "xyz"] == [
        *(1, 1, 1),
        *(1, 0, 1),
        *(1, 0, 0),
    ]
    assert "wider terminals also show: first; see elsewhere" in printed(table, 50 - 20).replace("\n  ", " ")
    assert FOOTER.strip() not in printed(table, 60)


def test_a_column_that_needs_less_may_stay_where_a_dearer_one_has_no_room() -> None:
    table = Columns("name", "short", "long", spare=("short", "long"))
    table.add("x" * 10, "y", "z" * 50)
    assert "short" in printed(table, 40).splitlines()[1] and "z" not in printed(table, 40)


def test_rows_get_lines_of_their_own_where_nothing_can_be_spared() -> None:
    table = Columns("name", "tenant", "state")
    table.add(ADAPTER, TENANT, None)
    assert printed(table, 80).splitlines() == [f"name: {ADAPTER},  tenant:", f"  {TENANT}"]


def test_an_id_that_is_longer_than_the_terminal_passes_its_edge_whole() -> None:
    table = Columns("name", "state")
    table.add(ADAPTER, "ready")
    assert f"  {ADAPTER}," in printed(table, 40).splitlines()


def test_prose_wraps_between_words_and_nothing_else_wraps() -> None:
    table = Columns("name", "why", prose=("why",))
    table.add("a name with blanks", REASON)
    lines = printed(table, 60).splitlines()
    assert any("a name with blanks" in line for line in lines)
    assert max(map(len, lines)) <= 60 and len(lines) > 5


def test_a_sentence_breaks_between_words_and_keeps_an_id_whole() -> None:
    shown = Console(width=40, file=io.StringIO(), record=True)
    print_prose(shown, f"version 2 of {ADAPTER} is quarantined: {REASON}", "red")
    lines = shown.export_text().splitlines()
    assert f"  {ADAPTER}" in lines and all(len(line) <= 40 for line in lines if ADAPTER not in line)


def test_wide_characters_count_for_what_they_take() -> None:
    table = Columns("name", "note", spare=("note",))
    table.add("x" * 10, "客" * 10)
    assert "客" not in printed(table, 36) and "客" * 10 in printed(table, 37)


def test_no_cell_steers_the_terminal_and_none_is_markup() -> None:
    table = Columns("a", "b")
    table.add("\x1b[2J\x07[red]x[/]", Text("\x1b]0;y\x07", style="red"))
    shown = printed(table, WIDE)
    assert not set("\x1b\x07") & set(shown) and "[red]x[/]" in shown


@pytest.mark.parametrize("option", ["spare", "prose", "right"])
def test_a_column_that_is_not_there_is_a_mistake(option: str) -> None:
    with pytest.raises(ValueError, match="no such columns: other"):
        Columns("one", **{option: ("other",)})  # type: ignore[arg-type]


def test_a_row_has_a_cell_for_each_column() -> None:
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        Columns("one", "two").add("x")

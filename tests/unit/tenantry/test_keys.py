"""`tenantry keys` against the admin API: a key is shown once, and never again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from routing.catalog.entries import DeclaredKey, KeyRole
from tenantry.app import app
from tenantry.client import KEY_VARIABLE
from tenantry.running import Connection, duration_s
from tests.unit.routing.admin import fakes
from tests.unit.routing.admin.fakes import Desk

Run = Callable[..., Result]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return fakes.desk(tmp_path)


@pytest.fixture
def run(desk: Desk) -> Run:
    """Runs a command with an operator's key if no other is given."""

    def run(*arguments: str, key: str | None = "operator-key") -> Result:
        connection = Connection(httpx.ASGITransport(desk.app))
        return CliRunner().invoke(
            app, ["keys", *arguments], obj=connection, env={KEY_VARIABLE: key, "COLUMNS": "200"}
        )

    return run


def test_a_key_is_shown_once(run: Run, desk: Desk) -> None:
    made = run("create", "--role", "adapters", "--tenant", "acme", "--note", "CI", "--expires", "30d")
    assert made.exit_code == 0, made.output
    assert made.stdout.startswith("key (shown once):  tnt_secret-key\n")
    assert "role adapters of acme" in made.stdout
    (key,) = desk.management.made_keys
    assert (key.role, key.tenant, key.note) == (KeyRole.ADAPTERS, "acme", "CI")
    assert key.expires_s is not None
    assert abs(key.expires_s - time.time() - 30 * 24 * 3600) < 60
    listed = run("list")
    assert "tnt_secret-" in listed.stdout
    assert "tnt_secret-key" not in listed.stdout
    assert "5" * 64 not in listed.stdout


def test_declared_keys_are_listed_and_counted(run: Run, desk: Desk) -> None:
    run("create", "--role", "adapters", "--tenant", "acme")
    desk.management.file_keys = [
        DeclaredKey("9f86d081", KeyRole.OPERATOR, None),
        DeclaredKey("60303ae2", KeyRole.INFERENCE, "acme"),
        DeclaredKey("fd61a03a", KeyRole.INFERENCE, "acme"),
    ]
    listed = run("list")
    assert listed.exit_code == 0, listed.output
    assert "sha256 9f86d081" in listed.stdout and "declared in fleet.yaml" in listed.stdout
    assert "declared in fleet.yaml: 1 of operators, 2 of acme; these are changed there" in listed.stdout
    keys = json.loads(run("list", "--json").stdout)
    assert [key["declared"] for key in keys] == [False, True, True, True]
    assert "declared in fleet.yaml: 2 of acme;" in run("list", "--tenant", "acme").stdout
    assert "declared in fleet.yaml" not in run("list", "--tenant", "globex").stdout


def test_a_gateway_that_tells_nothing_of_declared_keys_is_listed_all_the_same(run: Run) -> None:
    answer = httpx.MockTransport(lambda _: httpx.Response(200, json={"data": []}))
    listed = CliRunner().invoke(app, ["keys", "list"], obj=Connection(answer), env={KEY_VARIABLE: "k"})
    assert listed.exit_code == 0 and "in fleet.yaml" not in listed.stdout


def test_a_key_is_revoked_by_its_id(run: Run) -> None:
    assert run("create", "--role", "operator").exit_code == 0
    result = run("revoke", "id1")
    assert result.exit_code == 0
    assert "opens nothing any more" in result.stdout
    assert run("revoke", "id2").exit_code == 1


def test_json_is_for_scripts(run: Run) -> None:
    made = json.loads(run("create", "--role", "operator", "--json").stdout)
    assert made["key"] == "tnt_secret-key"
    assert [key["id"] for key in json.loads(run("list", "--json").stdout)] == ["id1"]
    assert json.loads(run("revoke", "id1", "--json").stdout)["revoked_at"] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["create"],
        ["create", "--role", "root"],
        ["create", "--role", "operator", "--tenant", "acme"],
        ["create", "--role", "adapters"],
        ["create", "--role", "operator", "--expires", "soon"],
        ["revoke", "../adapters/x"],
        ["revoke", ""],
    ],
    ids=" ".join,
)
def test_wrong_use_exits_with_2_and_makes_nothing(run: Run, desk: Desk, arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2
    assert desk.management.calls == []


def test_a_tenant_s_key_lists_its_tenant_s_and_makes_none(run: Run, desk: Desk) -> None:
    assert run("list", key="acme-key").exit_code == 0
    assert run("create", "--role", "inference", "--tenant", "acme", key="acme-key").exit_code == 1
    assert desk.management.made_keys == []


def test_no_key_is_wrong_use(run: Run) -> None:
    assert run("list", key=None).exit_code == 2


def test_a_tenant_that_is_not_there_gets_no_key(run: Run, desk: Desk) -> None:
    result = run("create", "--role", "adapters", "--tenant", "nobody")
    assert result.exit_code == 1
    assert "no tenant `nobody`" in result.stderr
    assert desk.management.made_keys == []


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("12h", 43200), ("30d", 2592000)])
def test_times_are_written_short(text: str, seconds: int) -> None:
    assert duration_s(text) == seconds


def test_a_key_is_made_with_limits_which_are_changed_and_listed(run: Run, desk: Desk) -> None:
    limits = ("--max-concurrency", "4", "--monthly-tokens", "5000000")
    assert run("create", "--role", "inference", "--tenant", "acme", *limits).exit_code == 0
    listed = " ".join(run("list").stdout.split())
    assert "max_concurrency 4" in listed and "monthly_tokens 5,000,000" in listed
    changed = run("limit", "id1", "--max-concurrency", "none", "--requests-per-minute", "60")
    assert changed.exit_code == 0, changed.output
    assert "requests_per_minute 60" in changed.stdout and "max_concurrency" not in changed.stdout
    wanted = {"max_concurrency": None, "requests_per_minute": 60}
    assert desk.management.calls[-1] == ("set_key_limits", "id1", wanted)
    assert run("limit", "nothing", "--max-queued", "0").exit_code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["limit", "id1"],
        ["limit", "id1", "--max-queued", "-1"],
        ["limit", "id1", "--max-queued", "many"],
        ["limit", "id1", "--monthly-tokens", "1" * 16],
        ["limit", "../x", "--max-queued", "1"],
        ["create", "--role", "inference", "--tenant", "acme", "--max-queued", "1.5"],
    ],
    ids=" ".join,
)
def test_a_limit_that_is_none_is_wrong_use(run: Run, desk: Desk, arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2
    assert desk.management.calls == []

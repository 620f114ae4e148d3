"""`tenantry tenants`, `aliases`, `events` and `export` against the admin API: what they send, and show."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from fleet import read_fleet
from routing.catalog.entries import Event
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
def run(desk: Desk) -> Run:
    """Runs a command with an operator's key if no other is given."""

    def run(*arguments: str, key: str = "operator-key") -> Result:
        connection = Connection(httpx.ASGITransport(desk.app))
        return CliRunner().invoke(app, arguments, obj=connection, env={KEY_VARIABLE: key, "COLUMNS": "200"})

    return run


def asked(desk: Desk) -> tuple[Any, ...]:
    (call,) = desk.management.calls
    return call


def test_a_tenant_is_admitted_like_another_and_its_key_is_shown_once(run: Run, desk: Desk) -> None:
    done = run("tenants", "add", "d", "--like", "a", "--key", "--alias", "chat=base", "--band", "high")
    assert done.exit_code == 0, done.output
    values = {"models.chat": "base", "priority": "high"}
    assert asked(desk) == ("create_tenant", "d", values, {"like": "a", "key": True, "dry_run": False})
    assert "key (shown once):  tnt_secret-key" in done.stdout
    assert "  weight 1 -> 2" in done.stdout


def test_options_have_the_names_of_the_fleet_file_and_what_was_seen_is_sent_along(
    run: Run, desk: Desk
) -> None:
    done = run(
        *("tenants", "set", "a", "--requests-per-minute", "120", "--weight", "2.5", "--pool", "shared"),
        *("--monthly-tokens", "1000", "--remove-alias", "old", "--no-cap", "tokens-per-minute"),
        *("--default-model", "chat", "--adapter-source", "hf://a", "--reset", "priority"),
    )
    assert done.exit_code == 0, done.output
    name, tenant, values, options = asked(desk)
    assert (name, tenant) == ("set_tenant", "a")
    assert values == {
        "caps.requests_per_minute": 120,
        "caps.tokens_per_minute": None,
        "weight": 2.5,
        "pools": ["shared"],
        "budget.monthly_tokens": 1000,
        "models.old": None,
        "default_model": "chat",
        "adapter_sources": ["hf://a"],
    }
    assert options == {"reset": ["priority"], "revision": 3, "dry_run": False}


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        (("suspend", "a"), ("suspend_tenant", "a", False)),
        (("resume", "a", "--dry-run"), ("resume_tenant", "a", True)),
        (("remove", "a", "--dry-run"), ("remove_tenant", "a", {"revision": None, "dry_run": True})),
        (
            ("set", "a", "--no-budget"),
            ("set_tenant", "a", {"budget": None}, {"reset": [], "revision": 3, "dry_run": False}),
        ),
    ],
)
def test_a_change_is_asked_for_and_told(
    run: Run, desk: Desk, arguments: tuple[str, ...], call: tuple[Any, ...]
) -> None:
    done = run("tenants", *arguments)
    assert done.exit_code == 0, done.output
    assert asked(desk) == call
    assert ("would be" in done.stdout) == ("--dry-run" in arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("set", "a"),
        ("set", "a", "--alias", "chat"),
        ("set", "a", "--no-cap", "rpm"),
        ("set", "a", "--weight", "much"),
        ("add",),
        ("show", "../keys"),
    ],
)
def test_wrong_use_sends_nothing(run: Run, desk: Desk, arguments: tuple[str, ...]) -> None:
    assert run("tenants", *arguments).exit_code == 2
    assert desk.management.calls == []


def test_an_unknown_tenant_is_a_refusal(run: Run) -> None:
    refused = run("tenants", "show", "nobody", "--json")
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["error"]["code"] == "tenant_not_found"


def test_a_tenant_is_shown_with_what_its_values_come_from(run: Run) -> None:
    shown = run("tenants", "show", "a").stdout
    assert "a: active, declared" in shown and "revision 3" in shown
    row = next(line for line in shown.splitlines() if "weight" in line)
    assert [cell.strip() for cell in row.split("│")[1:4]] == ["weight", "2.0", "run time"]


def test_tenants_are_listed(run: Run, desk: Desk) -> None:
    desk.management.known_tenants = list(desk.management.tenancy.present.tenants.values())
    assert "support=a-support" in run("tenants", "list").stdout
    assert [tenant["name"] for tenant in json.loads(run("tenants", "list", "--json").stdout)] == [
        "a",
        "b",
        "c",
    ]


@pytest.mark.parametrize("alias", ["org/Model-8B", "gpt-oss:120b", "a=b"])
def test_an_alias_may_be_any_printable_text(run: Run, desk: Desk, alias: str) -> None:
    assert run("aliases", "set", alias, "support", key="acme-key").exit_code == 0
    assert run("aliases", "remove", alias, key="acme-key").exit_code == 0
    calls = desk.management.calls
    assert calls == [("put_alias", "acme", alias, "support"), ("remove_alias", "acme", alias)]
    assert run("tenants", "set", "a", "--alias", f"{alias}=base").exit_code == 0
    assert calls[2][2] == {f"models.{alias}": "base"}


@pytest.mark.parametrize("alias", ["..", "a/../b", "x\ny", ""])
def test_what_no_path_can_have_is_not_sent(run: Run, desk: Desk, alias: str) -> None:
    assert run("aliases", "set", alias, "support", key="acme-key").exit_code == 2
    assert desk.management.calls == []


def test_a_tenant_sets_lists_and_removes_its_own_aliases(run: Run, desk: Desk) -> None:
    done = run("aliases", "set", "chat", "support", key="acme-key")
    assert done.stdout == "chat of acme stands for support.\n"
    assert "chat" in run("aliases", "list", key="acme-key").stdout
    assert run("aliases", "remove", "chat", key="acme-key").exit_code == 0
    assert desk.management.calls == [
        ("put_alias", "acme", "chat", "support"),
        ("remove_alias", "acme", "chat"),
    ]
    assert run("aliases", "list").exit_code == 1, "an operator names the tenant"
    assert run("aliases", "list", "--tenant", "globex").exit_code == 0


def test_events_are_those_of_a_tenant_and_of_a_time(run: Run, desk: Desk) -> None:
    changes = {"weight": [1.0, 2.0]}
    desk.management.happened = [
        Event(1, 5.0, "key id1", "tenant acme", "changed: weight 1 -> 2", "acme", changes)
    ]
    told = run("events", "--tenant", "acme", "--since", "2h", "--json")
    (event,) = json.loads(told.stdout)
    assert (event["actor"], event["tenant"], event["changes"]) == ("key id1", "acme", changes)
    wanted = desk.management.wanted_events
    assert wanted["tenant"] == "acme" and abs(time.time() - 7200 - wanted["since_s"]) < 60
    shown = run("events").stdout
    assert all(text in shown for text in ("1970-01-01 00:00:05", "tenant acme", "weight 1 -> 2", "key id1"))
    assert run("events", "--since", "soon").exit_code == 2


def test_the_present_fleet_is_written_as_a_file_that_is_checked_well(
    run: Run, desk: Desk, tmp_path: Path
) -> None:
    path = tmp_path / "present.yaml"
    done = run("export", "-o", str(path))
    assert done.exit_code == 0, done.output
    assert read_fleet(path, env={}).fleet.tenants == desk.management.tenancy.present.tenants
    assert path.stat().st_mode & 0o077 == 0
    assert run("export").stdout == path.read_text()
    assert run("check", str(path), "--no-files").exit_code == 0
    assert run("export", "-o", str(tmp_path / "none" / "x.yaml")).exit_code == 1
    assert run("export", key="acme-key").exit_code == 1

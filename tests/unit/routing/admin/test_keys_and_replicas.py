"""Keys and replicas: operators change them; no answer holds a key or its hash but the one that makes it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from fleet.types import KeyLimits
from routing.catalog.entries import ApiKey, DeclaredKey, Event, KeyRole
from routing.usage.budget import Use
from tests.unit.routing.admin.fakes import Desk, error_of, report

KEYS = "/admin/v1/keys"
REPLICAS = "/admin/v1/replicas"
LIMITS = ("max_concurrency", "max_queued", "requests_per_minute", "tokens_per_minute", "monthly_tokens")
UNLIMITED: dict[str, Any] = {"name": "", "limits": dict.fromkeys(LIMITS), "used_tokens": None}
OPERATOR: dict[str, Any] = {"key": "operator-key"}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", KEYS, {"role": "adapters", "tenant": "acme"}),
        ("POST", KEYS, {"role": "operator"}),
        ("PATCH", f"{KEYS}/id1", {"limits": {"max_concurrency": 9}}),
        ("DELETE", f"{KEYS}/id1", None),
        ("GET", REPLICAS, None),
    ],
)
async def test_a_tenant_s_key_is_not_enough(desk: Desk, method: str, path: str, body: Any) -> None:
    answer = await desk.ask(method, path, body)
    assert answer.status_code == 403
    assert error_of(answer)["code"] == "forbidden"
    assert desk.management.calls == []


async def test_a_key_is_shown_once(desk: Desk) -> None:
    made = await desk.ask("POST", KEYS, {"role": "inference", "tenant": "acme", "note": "CI"}, **OPERATOR)
    assert made.status_code == 201
    assert made.json()["key"] == "tnt_secret-key"
    listed = await desk.ask("GET", KEYS, **OPERATOR)
    assert listed.json()["data"][0]["prefix"] == "tnt_secret-"
    revoked = await desk.ask("DELETE", f"{KEYS}/id1", **OPERATOR)
    assert revoked.json()["revoked_at"] == 2
    for answer in (made, listed, revoked):
        assert "5" * 64 not in answer.text
        assert "sha256" not in answer.text
    assert "tnt_secret-key" not in listed.text + revoked.text


async def test_a_key_s_time_is_counted_from_now(desk: Desk) -> None:
    body = {"role": "operator", "expires_in_s": 3600}
    answer = await desk.ask("POST", KEYS, body, **OPERATOR)
    assert abs(answer.json()["expires_at"] - time.time() - 3600) < 60


async def test_keys_can_be_listed_by_tenant(desk: Desk) -> None:
    desk.management.made_keys = [
        ApiKey(str(number), "tnt_", "5" * 64, KeyRole.ADAPTERS, tenant)
        for number, tenant in enumerate(("acme", "globex"))
    ]
    desk.management.file_keys = [
        DeclaredKey("9f86d081", KeyRole.INFERENCE, "acme"),
        DeclaredKey("60303ae2", KeyRole.INFERENCE, "globex"),
    ]
    answer = await desk.ask("GET", f"{KEYS}?tenant=globex", **OPERATOR)
    assert [key["tenant"] for key in answer.json()["data"]] == ["globex"]
    assert [key["fingerprint"] for key in answer.json()["declared"]] == ["60303ae2"]


async def test_declared_keys_are_listed_beside_those_made_at_run_time(desk: Desk) -> None:
    desk.management.made_keys = [ApiKey("id1", "tnt_", "5" * 64, KeyRole.ADAPTERS, "acme")]
    desk.management.file_keys = [
        DeclaredKey("9f86d081", KeyRole.OPERATOR, None),
        DeclaredKey("60303ae2", KeyRole.INFERENCE, "acme"),
    ]
    answer = (await desk.ask("GET", KEYS, **OPERATOR)).json()
    assert [(key["id"], key["declared"]) for key in answer["data"]] == [("id1", False)]
    assert answer["declared"] == [
        {**UNLIMITED, "fingerprint": "9f86d081", "role": "operator", "tenant": None, "declared": True},
        {**UNLIMITED, "fingerprint": "60303ae2", "role": "inference", "tenant": "acme", "declared": True},
    ]


async def test_a_key_is_listed_with_its_limits_and_what_of_its_month_is_used(desk: Desk) -> None:
    limits = KeyLimits(max_concurrency=2, monthly_tokens=500)
    desk.management.made_keys = [
        ApiKey("limited", "tnt_", "5" * 64, KeyRole.INFERENCE, "acme", limits=limits),
        ApiKey("free", "tnt_", "6" * 64, KeyRole.INFERENCE, "acme"),
    ]
    declared = DeclaredKey("9f86", KeyRole.INFERENCE, "acme", "ci", KeyLimits(max_queued=0))
    desk.management.file_keys = [declared]
    desk.book.key_budgets.count("limited", Use(120), time.time())
    answer = (await desk.ask("GET", KEYS, **OPERATOR)).json()
    limited, free = answer["data"]
    assert (limited["limits"]["max_concurrency"], limited["used_tokens"]) == (2, 120)
    assert free["limits"] == UNLIMITED["limits"] and free["used_tokens"] is None
    assert [(key["name"], key["limits"]["max_queued"]) for key in answer["declared"]] == [("ci", 0)]


async def test_limits_are_given_when_a_key_is_made_and_changed_later(desk: Desk) -> None:
    body = {"role": "inference", "tenant": "acme", "limits": {"max_concurrency": 4, "monthly_tokens": 100}}
    made = await desk.ask("POST", KEYS, body, **OPERATOR)
    assert made.status_code == 201 and made.json()["limits"]["max_concurrency"] == 4
    change = {"limits": {"max_concurrency": 1, "monthly_tokens": None}}
    changed = await desk.ask("PATCH", f"{KEYS}/id1", change, **OPERATOR)
    assert changed.status_code == 200
    assert changed.json()["limits"] == {**UNLIMITED["limits"], "max_concurrency": 1}
    assert desk.management.calls[-1] == ("set_key_limits", "id1", change["limits"])


@pytest.mark.parametrize("key", ["acme-key", "calls-key", "made-up"])
async def test_no_key_of_a_tenant_changes_limits(desk: Desk, key: str) -> None:
    answer = await desk.ask("PATCH", f"{KEYS}/id1", {"limits": {"max_concurrency": 9}}, key=key)
    assert answer.status_code in (401, 403) and desk.management.calls == []


@pytest.mark.parametrize("name", list(UNLIMITED["limits"]))
@pytest.mark.parametrize("value", [-1, 0.5, True, "5", [5], {"n": 5}, 10**16])
async def test_a_limit_that_is_none_is_refused_by_name(desk: Desk, name: str, value: Any) -> None:
    bodies = [
        ("POST", KEYS, {"role": "inference", "tenant": "acme", "limits": {name: value}}),
        ("PATCH", f"{KEYS}/id1", {"limits": {name: value}}),
    ]
    for method, path, body in bodies:
        answer = await desk.ask(method, path, body, **OPERATOR)
        assert answer.status_code == 400 and error_of(answer)["param"].endswith(name)
    assert desk.management.calls == []


@pytest.mark.parametrize(
    "body",
    [{}, {"limits": None}, {"limits": {}}, {"limits": {"queue": 1}}, {"note": "x", "limits": {}}],
    ids=str,
)
async def test_a_change_of_a_key_is_of_its_limits(desk: Desk, body: Any) -> None:
    assert (await desk.ask("PATCH", f"{KEYS}/id1", body, **OPERATOR)).status_code == 400


async def test_only_a_key_that_calls_models_is_made_with_limits(desk: Desk) -> None:
    for role in ({"role": "operator"}, {"role": "adapters", "tenant": "acme"}):
        answer = await desk.ask("POST", KEYS, {**role, "limits": {"max_queued": 3}}, **OPERATOR)
        assert answer.status_code == 400
    assert desk.management.calls == []


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "role"),
        ({"role": "root"}, 400, "role"),
        ({"role": "operator", "tenant": "acme"}, 400, None),
        ({"role": "adapters"}, 400, None),
        ({"role": "adapters", "tenant": "nobody"}, 404, "tenant"),
        ({"role": "adapters", "tenant": "../x"}, 400, "tenant"),
        ({"role": "operator", "note": "x" * 201}, 400, "note"),
        ({"role": "operator", "note": "\x1b[31m"}, 400, None),
        ({"role": "operator", "expires_in_s": 0}, 400, "expires_in_s"),
        ({"role": "operator", "expires_in_s": -1}, 400, "expires_in_s"),
        ({"role": "operator", "expires_in_s": "never"}, 400, "expires_in_s"),
        ({"role": "operator", "key": "of my own"}, 400, "key"),
    ],
)
async def test_a_bad_key_is_not_made(desk: Desk, body: Any, status: int, param: str | None) -> None:
    answer = await desk.ask("POST", KEYS, body, **OPERATOR)
    assert answer.status_code == status
    assert error_of(answer)["param"] == param
    assert desk.management.calls == []


@pytest.mark.parametrize(("key_id", "status"), [("nothing", 404), ("a.b", 400), ("x" * 65, 400)])
async def test_a_key_that_is_not_there_cannot_be_revoked(desk: Desk, key_id: str, status: int) -> None:
    assert (await desk.ask("DELETE", f"{KEYS}/{key_id}", **OPERATOR)).status_code == status


async def test_keys_need_the_database(desk: Desk) -> None:
    desk.management.gone = True
    for method, path, body in (("POST", KEYS, {"role": "operator"}), ("DELETE", f"{KEYS}/id1", None)):
        assert (await desk.ask(method, path, body, **OPERATOR)).status_code == 503


@pytest.mark.parametrize("before", ["9" * 25, "9223372036854775808", "0", "-1", "x"])
async def test_a_place_among_events_that_no_database_has_is_refused(desk: Desk, before: str) -> None:
    answer = await desk.ask("GET", f"/admin/v1/events?before={before}", **OPERATOR)
    assert answer.status_code == 400
    assert (await desk.ask("GET", f"/admin/v1/events?before={2**63 - 1}", **OPERATOR)).status_code == 200


async def test_events_are_paged_from_the_newest_and_hold_no_folder(desk: Desk) -> None:
    text = "quarantined: /srv/state/adapters/ab/config.json is broken"
    desk.management.happened = [Event(n, 1.5 * n, "tenantry", f"acme/support@{n}", text) for n in (3, 2, 1)]
    answer = await desk.ask("GET", "/admin/v1/events?limit=2", **OPERATOR)
    assert [event["id"] for event in answer.json()["data"]] == [3, 2]
    assert answer.json()["data"][0]["subject"] == "acme/support@3"
    assert "/srv" not in answer.text and "config.json is broken" in answer.text
    older = await desk.ask("GET", "/admin/v1/events?limit=2&before=2", **OPERATOR)
    assert [event["id"] for event in older.json()["data"]] == [1]


async def test_events_are_narrowed_to_a_tenant_and_a_time(desk: Desk) -> None:
    answer = await desk.ask("GET", "/admin/v1/events?tenant=acme&since=5", **OPERATOR)
    assert answer.status_code == 200
    assert desk.management.wanted_events == {"tenant": "acme", "since_s": 5.0, "former": True}


async def test_a_tenant_sees_events_of_its_own_only(desk: Desk) -> None:
    assert (await desk.ask("GET", "/admin/v1/events", key="acme-key")).status_code == 200
    assert desk.management.wanted_events == {"tenant": "acme", "since_s": None, "former": False}
    refused = await desk.ask("GET", "/admin/v1/events?tenant=globex", key="acme-key")
    assert (refused.status_code, error_of(refused)["code"]) == (404, "tenant_not_found")


async def test_replicas_show_what_they_hold_and_no_folder(desk: Desk) -> None:
    desk.management.reports = [report()]
    answer = await desk.ask("GET", REPLICAS, **OPERATOR)
    replica = answer.json()["data"][0]
    assert replica["answered"]
    assert len(replica["in_slots"]) == 1
    assert len(replica["in_host"]) == 2
    assert replica["faults"][0] == {
        "adapter": "globex/other@0123",
        "kind": "load",
        "count": 2,
        "reason": "x: broken",
    }
    assert "/srv" not in answer.text


async def test_a_replica_that_has_not_answered_says_so(desk: Desk) -> None:
    silent = report()
    object.__setattr__(silent, "residency", None)
    desk.management.reports = [silent]
    replica = (await desk.ask("GET", REPLICAS, **OPERATOR)).json()["data"][0]
    assert not replica["answered"]
    assert replica["in_slots"] == []

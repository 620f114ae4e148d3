"""Adapters and versions over HTTP: every route, good and bad input, and who may name what."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from adapters.states import VersionState
from routing.catalog.entries import AdapterKey, Rollout, RolloutPlan, Version
from routing.catalog.sources import Upload, parse_source
from routing.lifecycle.ports import VersionProgress
from tests.unit.routing.admin.fakes import QUARANTINED, READY, Desk, error_of, report

ADAPTERS = "/admin/v1/adapters"
SUPPORT = f"{ADAPTERS}/support"
SHA256 = "AB" * 32
HOSTILE_NAMES = [
    "Support",
    "..",
    "a..b",
    "-a",
    "a b",
    "a\x00",
    "a\n",
    "x" * 64,
    "ünï",
    "a@1",
    "$(id)",
    "<script>",
]


# -- listing -----------------------------------------------------------------------------------------------


async def test_a_tenant_s_key_lists_its_own_adapters_and_an_operator_all(desk: Desk) -> None:
    for tenant in ("acme", "globex", None):
        desk.management.put("support", tenant)
    own = (await desk.ask("GET", ADAPTERS)).json()
    assert [(a["tenant"], a["name"]) for a in own["data"]] == [("acme", "support")]
    everything = (await desk.ask("GET", ADAPTERS, key="operator-key")).json()
    assert [a["tenant"] for a in everything["data"]] == ["acme", "globex", None]
    one = (await desk.ask("GET", f"{ADAPTERS}?tenant=globex", key="operator-key")).json()
    assert [a["tenant"] for a in one["data"]] == ["globex"]


async def test_a_list_can_be_narrowed_to_a_state(desk: Desk) -> None:
    desk.management.put("good")
    desk.management.put("bad", "acme", READY, QUARANTINED)
    answer = (await desk.ask("GET", f"{ADAPTERS}?state=quarantined")).json()
    assert [a["name"] for a in answer["data"]] == ["bad"]


async def test_a_thousand_adapters_come_page_by_page_each_once(desk: Desk) -> None:
    for number in range(1000):
        desk.management.put(f"a{number:04}", ("acme", "globex")[number % 2])
    names, after, pages = [], "", 0
    while after is not None:
        page = (await desk.ask("GET", f"{ADAPTERS}?limit=300&after={after}", key="operator-key")).json()
        names += [a["name"] for a in page["data"]]
        after, pages = page["next"], pages + 1
    assert len(names) == len(set(names)) == 1000
    assert pages == 4


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=many", "limit"),
        ("state=broken", "state"),
        ("tennant=acme", "tennant"),
        ("tenant=AC ME", "tenant"),
        ("after=" + "x" * 201, "after"),
    ],
)
async def test_a_bad_query_is_refused_by_name(desk: Desk, query: str, param: str) -> None:
    answer = await desk.ask("GET", f"{ADAPTERS}?{query}")
    assert answer.status_code == 400
    assert error_of(answer)["param"] == param


# -- showing -----------------------------------------------------------------------------------------------


async def test_an_adapter_shows_versions_traffic_and_residency(desk: Desk) -> None:
    rollout = Rollout(2, RolloutPlan(weight=0.25))
    desk.management.put("support", "acme", READY, READY, VersionState.FETCHING, rollout=rollout)
    desk.management.reports = [report(), report("shared-1", slots=())]
    adapter = (await desk.ask("GET", SUPPORT)).json()
    assert adapter["live"] == 1
    assert adapter["rollout"]["candidate"] == 2
    assert (adapter["state"], adapter["newest"], adapter["newest_state"]) == ("ready", 3, "fetching")
    assert [v["traffic"] for v in adapter["versions"]] == [0.75, 0.25, 0.0]
    places = [(r["replica"], r["place"], r["in_flight"]) for r in adapter["versions"][0]["resident"]]
    assert places == [("shared-0", "slot", 3), ("shared-1", "host", 3)]


async def test_a_candidate_that_is_not_ready_has_no_traffic(desk: Desk) -> None:
    desk.management.put("support", "acme", READY, VersionState.VERIFYING, rollout=Rollout(2))
    adapter = (await desk.ask("GET", SUPPORT)).json()
    assert [v["traffic"] for v in adapter["versions"]] == [1.0, 0.0]


async def test_a_version_says_how_far_its_fetch_is(desk: Desk) -> None:
    desk.management.put("support", "acme", VersionState.FETCHING)
    desk.management.fetching = VersionProgress(5, None)
    version = (await desk.ask("GET", f"{SUPPORT}/versions/1")).json()
    assert version["progress"] == {"done_bytes": 5, "total_bytes": None}
    assert version["state"] == "fetching"


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("upload:0123abc", "upload"),
        ("/srv/adapters/support", "folder"),
        ("file:///srv/adapters/support", "folder"),
        ("https://me:secret@host:8443/a.tgz?sig=secret#secret", "https://host:8443/a.tgz"),
        ("hf://org/name@main", "hf://org/name@main"),
    ],
)
async def test_a_source_is_shown_without_folders_and_credentials(desk: Desk, source: str, shown: str) -> None:
    key = AdapterKey("acme", "support")
    desk.management.put("support", versions=(Version(1, key, 1, parse_source(source), READY),))
    answer = await desk.ask("GET", SUPPORT)
    assert answer.json()["versions"][0]["source"] == shown
    assert "secret" not in answer.text
    assert "/srv" not in answer.text


async def test_a_reason_names_files_without_their_folders(desk: Desk) -> None:
    reason = "/srv/state/adapters/ab/abab/adapter_config.json: r is 0; see https://docs/x/y"
    key = AdapterKey("acme", "support")
    desk.management.put("support", versions=(Version(1, key, 1, Upload("0123"), QUARANTINED, reason),))
    shown = (await desk.ask("GET", f"{SUPPORT}/versions/1")).json()["reason"]
    assert shown == "adapter_config.json: r is 0; see https://docs/x/y"


# -- registering -------------------------------------------------------------------------------------------


async def test_an_adapter_is_registered_for_the_key_s_tenant(desk: Desk) -> None:
    body = {"name": "support", "source": "hf://acme/x", "sha256": SHA256, "rollout": {"weight": 0.5}}
    answer = await desk.ask("POST", ADAPTERS, body)
    assert answer.status_code == 202
    assert (answer.json()["tenant"], answer.json()["number"]) == ("acme", 1)
    name, key, base_model, new = desk.management.calls[0]
    assert (name, key, base_model) == ("add", ("acme", "support"), None)
    assert (new.source, new.sha256, new.trusted) == ("hf://acme/x", SHA256.lower(), False)
    assert new.rollout == RolloutPlan(weight=0.5)


@pytest.mark.parametrize("place", ["body", "query"])
async def test_an_operator_names_the_tenant_and_is_trusted(desk: Desk, place: str) -> None:
    body = {"name": "support", "source": "/srv/x"} | ({"tenant": "acme"} if place == "body" else {})
    path = ADAPTERS if place == "body" else f"{ADAPTERS}?tenant=acme"
    assert (await desk.ask("POST", path, body, key="operator-key")).status_code == 202
    _, key, _, new = desk.management.calls[0]
    assert key == ("acme", "support")
    assert new.trusted


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (ADAPTERS, {}, 400),
        (ADAPTERS, {"tenant": "nobody"}, 404),
        (f"{ADAPTERS}?tenant=globex", {"tenant": "acme"}, 400),
        (f"{SUPPORT}/versions", {}, 400),
        (f"{SUPPORT}/versions?tenant=nobody", {}, 404),
    ],
)
async def test_an_operator_must_name_one_tenant_that_exists(
    desk: Desk, path: str, body: dict[str, Any], status: int
) -> None:
    body = {"source": "hf://a/b", **body} | ({"name": "support"} if path.startswith(ADAPTERS + "?") else {})
    body |= {"name": "support"} if path == ADAPTERS else {}
    answer = await desk.ask("POST", path, body, key="operator-key")
    assert answer.status_code == status
    assert error_of(answer)["param"] == "tenant"
    assert desk.management.calls == []


async def test_a_name_is_registered_once_and_free_again_when_nothing_is_left(desk: Desk) -> None:
    body = {"name": "support", "source": "hf://a/b"}
    desk.management.put("support")
    answer = await desk.ask("POST", ADAPTERS, body)
    assert answer.status_code == 409
    assert error_of(answer)["code"] == "adapter_exists"
    desk.management.put("support", "acme", VersionState.RETIRED, QUARANTINED)
    assert (await desk.ask("POST", ADAPTERS, body)).status_code == 202


async def test_of_two_registrations_at_once_one_wins(desk: Desk) -> None:
    body = {"name": "support", "source": "hf://a/b"}
    desk.management.held.clear()
    first = asyncio.create_task(desk.ask("POST", ADAPTERS, body))
    await desk.management.asked.wait()
    assert (await desk.ask("POST", ADAPTERS, body)).status_code == 409
    assert (await desk.ask("GET", SUPPORT)).status_code == 404
    desk.management.held.set()
    assert (await first).status_code == 202


async def test_a_version_is_registered_from_json(desk: Desk) -> None:
    desk.management.put("support")
    answer = await desk.ask("POST", f"{SUPPORT}/versions", {"source": "s3://b/k", "rollout": {}})
    assert answer.status_code == 202
    assert answer.json()["number"] == 2
    assert desk.management.calls[0][3].rollout == RolloutPlan()


async def test_parameters_of_an_upload_do_not_go_with_json(desk: Desk) -> None:
    answer = await desk.ask("POST", f"{SUPPORT}/versions?weight=0.5", {"source": "s3://b/k"})
    assert answer.status_code == 400
    assert error_of(answer)["code"] == "invalid_query"


BAD_VERSIONS: list[tuple[dict[str, Any], str, str]] = [
    ({"source": None}, "source", "invalid_type"),
    ({"source": 5}, "source", "invalid_type"),
    ({"source": ""}, "source", "invalid_value"),
    ({"source": "x" * 5000}, "source", "invalid_value"),
    ({"sha256": "abc"}, "sha256", "invalid_value"),
    ({"sha256": SHA256 + "\n"}, "sha256", "invalid_value"),
    ({"base_model": "../x"}, "base_model", "invalid_value"),
    ({"rollout": {"weight": 0}}, "rollout.weight", "invalid_value"),
    ({"rollout": {"weight": 1.01}}, "rollout.weight", "invalid_value"),
    ({"rollout": {"weight": "0.1"}}, "rollout.weight", "invalid_type"),
    ({"rollout": {"weight": True}}, "rollout.weight", "invalid_type"),
    ({"rollout": {"min_requests": 1.5}}, "rollout.min_requests", "invalid_type"),
    ({"rollout": {"promote_after": 0}}, "rollout.promote_after", "invalid_value"),
    ({"rollout": {"speed": 1}}, "rollout.speed", "unknown_parameter"),
    ({"trusted": True}, "trusted", "unknown_parameter"),
    ({"upload": "/etc/passwd"}, "upload", "unknown_parameter"),
]


@pytest.mark.parametrize(("changes", "param", "code"), BAD_VERSIONS)
@pytest.mark.parametrize("path", [ADAPTERS, f"{SUPPORT}/versions"])
async def test_a_bad_field_is_refused_by_name(
    desk: Desk, path: str, changes: dict[str, Any], param: str, code: str
) -> None:
    body = {"source": "hf://a/b", **changes} | ({"name": "support"} if path == ADAPTERS else {})
    answer = await desk.ask("POST", path, body)
    assert answer.status_code == 400
    error = error_of(answer)
    assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error")
    assert desk.management.calls == []


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e999"])
async def test_what_is_no_number_is_refused(desk: Desk, number: bytes) -> None:
    body = b'{"version": 1, "weight": %s}' % number
    answer = await desk.ask("POST", f"{SUPPORT}/rollout", content=body)
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "weight"


async def test_many_findings_are_not_all_told(desk: Desk) -> None:
    body = {"name": "x", "source": "hf://a/b"} | {f"f{n}": 1 for n in range(50)} | {"g" * 5000: 1}
    message = error_of(await desk.ask("POST", ADAPTERS, body))["message"]
    assert "and 46 more" in message
    assert len(message) < 500


@pytest.mark.parametrize("name", HOSTILE_NAMES)
async def test_hostile_names_reach_nothing(desk: Desk, name: str) -> None:
    answer = await desk.ask("POST", ADAPTERS, {"name": name, "source": "hf://a/b"})
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "name"
    assert (
        await desk.ask("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": "x"})
    ).status_code == 400
    assert desk.management.calls == []


@pytest.mark.parametrize(
    "name", ["Support", "a..b", "a%00b", "a%0ab", "x" * 64, "%2e%2e", "a@1", "..%2f..%2fetc"]
)
async def test_hostile_names_in_the_path_are_refused(desk: Desk, name: str) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/rollback"), ("POST", "/versions")):
        answer = await desk.ask(method, f"{ADAPTERS}/{name}{path}")
        assert answer.status_code in (400, 404, 405)
        assert error_of(answer)["message"]
    assert desk.management.calls == []


# -- changing ----------------------------------------------------------------------------------------------

CHANGES: list[tuple[str, str, Any, tuple[Any, ...], int]] = [
    ("POST", "/promote", None, ("promote", None), 200),
    ("POST", "/promote", {}, ("promote", None), 200),
    ("POST", "/promote", {"version": 2}, ("promote", 2), 200),
    ("POST", "/rollback", None, ("rollback",), 200),
    ("POST", "/rollout", {"version": 2}, ("rollout", 2, RolloutPlan()), 200),
    (
        "POST",
        "/rollout",
        {"version": 2, "weight": 1, "promote_after": 9, "max_latency_ratio": 2.0},
        ("rollout", 2, RolloutPlan(weight=1, min_requests=9, promote_after=9, max_latency_ratio=2.0)),
        200,
    ),
    (
        "POST",
        "/rollout",
        {"version": 2, "min_requests": 30, "promote_after": 9},
        ("rollout", 2, RolloutPlan(min_requests=30, promote_after=9)),
        200,
    ),
    ("POST", "/pin", None, ("pin", True), 200),
    ("DELETE", "/pin", None, ("pin", False), 200),
    ("POST", "/versions/2/verify", None, ("verify", 2), 202),
    ("DELETE", "/versions/2", None, ("retire", 2), 200),
    ("DELETE", "", None, ("retire", None), 200),
]


@pytest.mark.parametrize(("method", "path", "body", "call", "status"), CHANGES)
async def test_every_change_reaches_the_management(
    desk: Desk, method: str, path: str, body: Any, call: tuple[Any, ...], status: int
) -> None:
    key = desk.management.put("support", "acme", READY, READY, previous=1)
    answer = await desk.ask(method, SUPPORT + path, body)
    assert answer.status_code == status
    assert desk.management.calls == [(call[0], key, *call[1:])]


@pytest.mark.parametrize(("method", "path", "body", "call", "status"), CHANGES)
async def test_an_operator_changes_what_fleet_yaml_declares_or_the_tenant_s_that_is_named(
    desk: Desk, method: str, path: str, body: Any, call: tuple[Any, ...], status: int
) -> None:
    for tenant, query in ((None, ""), ("globex", "?tenant=globex")):
        key = desk.management.put("support", tenant, READY, READY, previous=1)
        desk.management.calls.clear()
        answer = await desk.ask(method, SUPPORT + path + query, body, key="operator-key")
        assert answer.status_code == status
        assert desk.management.calls[0][1] == key


@pytest.mark.parametrize(("method", "path", "body", "call", "status"), [*CHANGES, ("GET", "", None, (), 200)])
async def test_another_tenant_s_adapter_is_the_same_404_as_none_at_all(
    desk: Desk, method: str, path: str, body: Any, call: tuple[Any, ...], status: int
) -> None:
    absent = await desk.ask(method, SUPPORT + path, body, key="globex-key")
    absent_tenant = await desk.ask(method, f"{SUPPORT}{path}?tenant=nobody", body, key="globex-key")
    keys = [desk.management.put("support", tenant, READY, READY, previous=1) for tenant in ("acme", None)]
    before = dict(desk.management.entries)
    theirs = await desk.ask(method, SUPPORT + path, body, key="globex-key")
    named = await desk.ask(method, f"{SUPPORT}{path}?tenant=acme", body, key="globex-key")
    assert theirs.status_code == named.status_code == 404
    assert theirs.content == absent.content
    assert named.text == absent_tenant.text.replace("nobody", "acme")
    assert desk.management.entries == before
    assert not [call for call in desk.management.calls if call[1] in keys]


async def test_names_of_two_tenants_do_not_meet(desk: Desk) -> None:
    desk.management.put("support", "acme")
    answer = await desk.ask("POST", ADAPTERS, {"name": "support", "source": "hf://g/x"}, key="globex-key")
    assert answer.status_code == 202
    assert answer.json()["tenant"] == "globex"
    assert len(desk.management.entries[AdapterKey("acme", "support")].versions) == 1


@pytest.mark.parametrize("tenant", ["acme", "nobody"])
async def test_a_tenant_cannot_register_list_or_load_for_another(desk: Desk, tenant: str) -> None:
    body = {"name": "support", "source": "hf://a/b"}
    vllm = {"lora_name": "support", "lora_path": "hf://a/b"}
    for method, path, payload in (
        ("POST", ADAPTERS, {**body, "tenant": tenant}),
        ("POST", f"{ADAPTERS}?tenant={tenant}", body),
        ("POST", f"{SUPPORT}/versions?tenant={tenant}", {"source": "hf://a/b"}),
        ("POST", f"/v1/load_lora_adapter?tenant={tenant}", vllm),
        ("POST", f"/v1/unload_lora_adapter?tenant={tenant}", {"lora_name": "support"}),
        ("GET", f"{ADAPTERS}?tenant={tenant}", None),
    ):
        answer = await desk.ask(method, path, payload, key="globex-key")
        assert answer.status_code == 404
        assert error_of(answer)["message"] == f"There is no tenant `{tenant}`."
    assert desk.management.calls == []


@pytest.mark.parametrize("number", ["0", "-1", "x", "99999999999999999999", "9"])
async def test_a_version_that_cannot_be_is_refused(desk: Desk, number: str) -> None:
    desk.management.put("support")
    answer = await desk.ask("GET", f"{SUPPORT}/versions/{number}")
    assert answer.status_code == (404 if number == "9" else 400)


async def test_a_conflict_is_a_409_and_says_why(desk: Desk) -> None:
    desk.management.put("support")
    answer = await desk.ask("POST", f"{SUPPORT}/rollback")
    assert answer.status_code == 409
    assert error_of(answer)["code"] == "no_previous_version"


@pytest.mark.parametrize(("method", "path", "body", "call", "status"), CHANGES)
async def test_a_database_that_is_gone_is_a_503_and_reading_goes_on(
    desk: Desk, method: str, path: str, body: Any, call: tuple[Any, ...], status: int
) -> None:
    desk.management.put("support", "acme", READY, READY, previous=1)
    desk.management.gone = True
    answer = await desk.ask(method, SUPPORT + path, body)
    assert answer.status_code == 503
    assert error_of(answer)["code"] == "state_unavailable"
    assert 5 <= int(answer.headers["retry-after"]) <= 8
    assert (await desk.ask("GET", SUPPORT)).status_code == 200

"""A tenant's life on a running gateway: admission, changes, suspension, removal. The engines are fake."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import openai
import orjson
import pytest

from adapters.states import VersionState
from engines.secrets import cache_salt
from fleet.types import Fleet
from routing.catalog.entries import AdapterKey
from routing.errors import StateUnavailable
from routing.state import StateStore
from tests.fakes import SECRET, Client, eventually, key_of, small_fleet
from tests.integration.test_lifecycle import House, adapter_folder, fleet_in, house_of

TENANTS = "/admin/v1/tenants"


@dataclass
class Office:
    """The operator's and the tenants' ways to a gateway."""

    house: House

    async def ask(
        self, method: str, path: str, payload: Any = None, *, key: str = key_of("operator")
    ) -> Client:
        headers = [("authorization", f"Bearer {key}"), ("content-type", "application/json")]
        body = b"" if payload is None else orjson.dumps(payload)
        app = self.house.bench.gateway.app
        return await Client(app, path, method=method, headers=headers, body=body)()

    async def admit(self, name: str = "d", **fields: Any) -> str:
        """Admit a tenant; returns its first key."""
        body = {"name": name, "models": {"chat": "base"}, "key": True, **fields}
        answer = await self.ask("POST", TENANTS, body)
        assert answer.status == 201, answer.body
        return str(answer.json()["key"]["key"])

    async def change(self, name: str, **fields: Any) -> Client:
        return await self.ask("PATCH", f"{TENANTS}/{name}", fields)

    async def show(self, name: str) -> dict[str, Any]:
        answer = await self.ask("GET", f"{TENANTS}/{name}")
        assert answer.status == 200
        found: dict[str, Any] = answer.json()
        return found

    def chat(self, key: str, **fields: Any) -> Client:
        payload = {"messages": [{"role": "user", "content": "who?"}], **fields}
        headers = [("authorization", f"Bearer {key}"), ("content-type", "application/json")]
        return Client(
            self.house.bench.gateway.app, "/v1/chat/completions", body=orjson.dumps(payload), headers=headers
        )

    async def used(self, key: str) -> int:
        """The requests that /v1/usage shows to a key."""
        answer = await self.house.bench.get("/v1/usage", key=key)()
        assert answer.status == 200
        return int(answer.json()["total"]["requests"])

    async def key_for(self, tenant: str, role: str = "adapters") -> str:
        answer = await self.ask("POST", "/admin/v1/keys", {"role": role, "tenant": tenant})
        return str(answer.json()["key"])


@pytest.fixture
async def office(house: House) -> Office:
    return Office(house)


@pytest.fixture(name="house")
async def house_fixture(tmp_path: Path) -> Any:
    async with house_of(fleet_in(tmp_path), tmp_path) as house:
        yield house


def code_of(client: Client) -> tuple[int, str]:
    return client.status, client.json()["error"]["code"]


async def test_a_tenants_life_with_openais_client(office: Office) -> None:
    created = await office.ask("POST", TENANTS, {"name": "d", "like": "a", "key": True})
    assert created.status == 201
    key = created.json()["key"]["key"]
    app = office.house.bench.gateway.app
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app))
    client = openai.AsyncOpenAI(api_key=key, base_url="http://gateway/v1", http_client=http, max_retries=0)
    question: Any = {"messages": [{"role": "user", "content": "who?"}]}

    answer = await client.chat.completions.create(model="plain", **question)
    assert answer.model == "plain"
    assert [model.id async for model in client.models.list()] == ["plain"]
    assert (await office.ask("PUT", "/admin/v1/aliases/chat?tenant=d", {"model": "plain"})).status == 200
    assert (await client.chat.completions.create(model="chat", **question)).model == "chat"

    assert (await office.change("d", caps={"requests_per_minute": 1})).status == 200
    await client.chat.completions.create(model="chat", **question)
    with pytest.raises(openai.RateLimitError):
        await client.chat.completions.create(model="chat", **question)
    assert (await office.change("d", caps={"requests_per_minute": None})).status == 200
    await client.chat.completions.create(model="chat", **question)

    await office.ask("POST", f"{TENANTS}/d/suspend")
    with pytest.raises(openai.PermissionDeniedError, match="The account is suspended"):
        await client.chat.completions.create(model="chat", **question)
    await office.ask("POST", f"{TENANTS}/d/resume")
    await client.chat.completions.create(model="chat", **question)

    assert (await office.ask("DELETE", f"{TENANTS}/d")).status == 200
    with pytest.raises(openai.AuthenticationError):
        await client.chat.completions.create(model="chat", **question)
    assert office.house.bench.at_rest


async def test_a_dry_run_tells_all_and_changes_nothing(office: Office) -> None:
    answer = await office.ask("POST", f"{TENANTS}?dry_run=true", {"name": "d", "like": "a", "key": True})
    told = answer.json()
    assert (answer.status, told["dry_run"], told["key"]) == (201, True, None)
    assert "alias plain none -> base" in told["words"]
    assert (await office.ask("GET", f"{TENANTS}/d")).status == 404
    answer = await office.ask("PATCH", f"{TENANTS}/a?dry_run=true", {"weight": 2})
    assert answer.json()["words"] == ["weight 1 -> 2"]
    assert office.house.bench.gateway.fleet.now.tenants["a"].weight == 1.0
    for path in (f"{TENANTS}/a/suspend", f"{TENANTS}/a/resume"):
        assert (await office.ask("POST", f"{path}?dry_run=true")).json()["dry_run"]
    assert (await office.ask("DELETE", f"{TENANTS}/a?dry_run=true")).status == 200
    assert (await office.chat(key_of("a"), model="plain")()).status == 200


async def test_the_settings_of_another_tenant_come_without_its_keys_adapters_and_budget_use(
    office: Office,
) -> None:
    await office.change("b", budget={"monthly_tokens": 5}, caps={"max_queued": 3})
    answer = await office.ask("POST", TENANTS, {"name": "d", "like": "b", "key": True})
    key = answer.json()["key"]["key"]
    tenant = office.house.bench.gateway.fleet.now.tenants["d"]
    assert tenant.models == {"base": "base"}, "b's own adapter is b's"
    assert (tenant.band.value, tenant.caps.max_queued, tenant.key_hashes) == ("low", 3, frozenset())
    assert code_of(await office.chat(key, model="b-support")()) == (404, "model_not_found")
    assert tenant.budget is not None and tenant.budget.monthly_tokens == 5


async def test_each_value_says_what_it_comes_from(office: Office) -> None:
    await office.change("b", weight=2)
    told = await office.show("b")
    values = {value["path"]: value for value in told["values"]}
    assert values["weight"]["source"] == "run time" and values["weight"]["declared"] == 1.0
    assert values["weight"]["by"].startswith("key ") and values["weight"]["at"] > 1e9
    assert values["priority"]["source"] == "fleet.yaml"
    assert values["isolation"]["source"] == "default"
    assert (told["state"], told["revision"], told["declared"]) == ("active", 1, True)
    await office.change("b", reset=["weight"])
    assert office.house.bench.gateway.fleet.now.tenants["b"].weight == 1.0
    assert code_of(await office.change("b", reset=["weight"])) == (400, "not_set_at_run_time")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"colour": "red"}, "unknown_parameter"),
        ({"weight": "2"}, "invalid_type"),
        ({"weight": -1}, "tenant_invalid"),
        ({"priority": "urgent"}, "invalid_value"),
        ({"caps": {"rpm": 1}}, "unknown_parameter"),
        ({"caps": {"max_queued": -1}}, "tenant_invalid"),
        ({"models": {"x@2": "base"}}, "invalid_value"),
        ({"models": {"chat": "b-supporrt"}}, "tenant_invalid"),
        ({"pools": ["alone"]}, "tenant_invalid"),
        ({"isolation": "dedicated"}, "tenant_invalid"),
    ],
)
async def test_what_a_fleet_file_may_not_say_is_refused(
    office: Office, fields: dict[str, Any], code: str
) -> None:
    before = office.house.bench.gateway.fleet.now
    assert code_of(await office.change("a", **fields)) == (400, code)
    new = {"name": "d", "models": {"chat": "base"}, **fields}
    assert code_of(await office.ask("POST", TENANTS, new))[0] == 400
    assert office.house.bench.gateway.fleet.now is before
    assert (await office.show("a"))["revision"] == 0


@pytest.mark.parametrize("fields", [{}, {"reset": []}, {"revision": 0}, {"caps": {}}])
async def test_a_change_of_nothing_is_refused_and_leaves_no_event(
    office: Office, fields: dict[str, Any]
) -> None:
    assert code_of(await office.change("a", **fields)) == (400, "missing_required_parameter")
    assert (await office.show("a"))["revision"] == 0


@pytest.mark.parametrize("verb", ["suspend", "resume"])
async def test_a_dry_run_that_is_asked_for_in_the_body_does_not_act(office: Office, verb: str) -> None:
    for method, path in (("POST", f"{TENANTS}/a/{verb}"), ("DELETE", f"{TENANTS}/a")):
        assert code_of(await office.ask(method, path, {"dry_run": True})) == (400, "unknown_parameter")
    assert (await office.show("a"))["revision"] == 0


async def test_of_two_operators_at_once_the_second_is_told(office: Office) -> None:
    seen = (await office.show("a"))["revision"]
    first, second = await asyncio.gather(
        office.change("a", weight=2, revision=seen), office.change("a", weight=3, revision=seen)
    )
    refused = second if second.status == 409 else first
    assert sorted((first.status, second.status)) == [200, 409]
    error = refused.json()["error"]
    assert error["code"] == "tenant_changed"
    assert "by key " in error["message"] and " UTC " in error["message"]
    created = await asyncio.gather(
        *(office.ask("POST", TENANTS, {"name": "d", "models": {"chat": "base"}}) for _ in range(2))
    )
    assert sorted(answer.status for answer in created) == [201, 409]


async def test_who_is_suspended_reads_and_changes_nothing_and_what_waits_is_refused(tmp_path: Path) -> None:
    fleet = fleet_in(tmp_path)
    fleet = replace(fleet, base_models={"base": replace(fleet.base_models["base"], max_num_seqs=1)})
    async with house_of(fleet, tmp_path) as house:
        office, engine = Office(house), house.bench.engines["shared-0"]
        own = await office.key_for("b")
        engine.behave = engine.hold_mid_stream
        streaming = asyncio.create_task(house.bench.chat("b", stream=True)())
        await eventually(lambda: engine.running == 1)
        waiting = asyncio.create_task(house.bench.chat("b")())
        await eventually(lambda: "queued=1" in repr(house.bench.gateway.dispatcher))
        assert (await office.ask("POST", f"{TENANTS}/b/suspend")).status == 200
        assert code_of(await waiting) == (403, "account_suspended")
        assert code_of(await house.bench.chat("b")()) == (403, "account_suspended")
        for path in ("/v1/models", "/v1/usage"):
            assert code_of(await house.bench.get(path, key=key_of("b"))()) == (403, "account_suspended")
        assert (await office.ask("GET", "/admin/v1/adapters", key=own)).status == 200
        assert (await house.bench.get("/v1/usage", key=own)()).status == 200
        for method, path in (("PUT", "/admin/v1/aliases/x"), ("DELETE", "/admin/v1/aliases/x")):
            refused = await office.ask(method, path, {"model": "b-support"}, key=own)
            assert code_of(refused) == (403, "account_suspended")
        engine.release.set()
        assert (await streaming).body.endswith(b"data: [DONE]\n\n"), "what runs ends"
        await eventually(lambda: house.bench.at_rest)
        assert (await office.ask("POST", f"{TENANTS}/b/resume")).status == 200
        engine.behave = engine.answer
        assert (await house.bench.chat("b")()).status == 200
        assert await office.used(key_of("b")) == 3, "the stream, what was refused in the queue, and this one"


async def test_a_removed_tenant_ends_what_runs_and_the_next_of_its_name_inherits_nothing(
    office: Office,
) -> None:
    house = office.house
    old, engine = await office.admit("d", budget={"monthly_tokens": 10_000}), house.bench.engines["shared-0"]
    manage = await office.key_for("d")
    await house.ready(key=AdapterKey("d", "billing"))
    await office.ask("PUT", "/admin/v1/aliases/latest", {"model": "billing"}, key=manage)
    assert (await office.chat(old, model="latest")()).status == 200
    assert engine.seen[-1]["cache_salt"] == cache_salt(SECRET, "d")
    assert await office.used(old) == 1

    engine.behave = engine.hold_mid_stream
    streaming = asyncio.create_task(office.chat(old, model="billing", stream=True)())
    await eventually(lambda: engine.running == 1)
    assert (await office.ask("DELETE", f"{TENANTS}/d")).status == 200
    assert code_of(await office.chat(old)()) == (401, "invalid_api_key")
    assert code_of(await office.ask("GET", "/admin/v1/adapters", key=manage)) == (401, "invalid_api_key")
    engine.release.set()
    assert (await streaming).body.endswith(b"data: [DONE]\n\n")
    await eventually(lambda: house.directory.adapters_of("d") == [])
    await eventually(lambda: len(house.stored) == 4, "the files are gone")

    engine.behave = engine.answer
    new = await office.admit("d", budget={"monthly_tokens": 10_000})
    assert await office.used(new) == 0
    assert code_of(await office.chat(old)()) == (401, "invalid_api_key")
    assert code_of(await office.ask("GET", "/admin/v1/adapters", key=manage)) == (401, "invalid_api_key")
    for model in ("billing", "latest"):
        assert code_of(await office.chat(new, model=model)()) == (404, "model_not_found")
    assert (await office.chat(new)()).status == 200
    assert engine.seen[-1]["cache_salt"] == cache_salt(SECRET, "d#1")
    assert await office.used(new) == 1
    status = house.bench.gateway.ledger.budgets.status("d#1", 0.0)
    assert status is not None and status.used < 100
    kept = (await office.ask("GET", "/admin/v1/usage?tenant=d&group_by=tenant")).json()["data"]
    assert [(line["tenant"], line["requests"]) for line in kept] == [("d", 2), ("d#1", 1)]
    own = await office.key_for("d")
    events = (await office.ask("GET", "/admin/v1/events", key=own)).json()["data"]
    assert {event["tenant"] for event in events} == {"d#1"}, "nor what happened to the other"


async def test_what_still_runs_of_a_former_tenant_counts_in_no_cap_of_the_next_one(office: Office) -> None:
    house = office.house
    gateway, engine = house.bench.gateway, house.bench.engines["shared-0"]
    caps = {"max_concurrency": 1, "requests_per_minute": 1}
    old = await office.admit("d", caps=caps)
    engine.behave = engine.hold_mid_stream
    streaming = asyncio.create_task(office.chat(old, stream=True)())
    await eventually(lambda: engine.running == 1)
    assert (await office.ask("DELETE", f"{TENANTS}/d")).status == 200

    new = await office.admit("d", caps=caps)
    engine.behave = engine.answer
    assert (await office.chat(new)()).status == 200, "the stream of the former still runs"
    assert code_of(await office.chat(new)()) == (429, "requests_per_minute"), "its own request counts"
    assert gateway.dispatcher.admitted() == {("d", "chat"): 1}
    engine.release.set()
    assert (await streaming).body.endswith(b"data: [DONE]\n\n")
    await eventually(lambda: house.bench.at_rest)
    assert gateway.dispatcher.admitted() == {}


async def test_a_declared_tenant_that_was_removed_is_admitted_anew_without_its_declared_keys(
    tmp_path: Path,
) -> None:
    fleet = fleet_in(tmp_path)
    async with house_of(fleet, tmp_path) as house:
        office = Office(house)
        await office.ask("DELETE", f"{TENANTS}/b")
        assert (await office.show("b"))["state"] == "removed"
        assert code_of(await house.bench.chat("b")()) == (401, "invalid_api_key")
        key = await office.admit("b")
        assert code_of(await house.bench.chat("b")()) == (401, "invalid_api_key")
        assert (await office.chat(key)()).status == 200
    async with house_of(fleet, tmp_path) as house:
        office = Office(house)
        assert code_of(await house.bench.chat("b")()) == (401, "invalid_api_key")
        assert (await office.chat(key)()).status == 200
        told = await office.show("b")
        assert (told["generation"], told["account"], told["declared"]) == (1, "b#1", True)


async def test_a_restart_has_every_change_and_a_declared_fleet_that_differs_gets_them_too(
    tmp_path: Path,
) -> None:
    fleet = fleet_in(tmp_path)
    async with house_of(fleet, tmp_path) as house:
        office = Office(house)
        key = await office.admit("d")
        await office.change("a", weight=4, models={"extra": "base"})
        await office.ask("PUT", "/admin/v1/aliases/mine?tenant=a", {"model": "plain"})
        await office.ask("POST", f"{TENANTS}/b/suspend")
        changed = house.bench.gateway.fleet.now
    async with house_of(fleet, tmp_path) as house:
        assert house.bench.gateway.fleet.now == changed
        office = Office(house)
        assert (await office.chat(key)()).status == 200
        assert (await house.bench.chat("a", model="mine")()).status == 200
        assert code_of(await house.bench.chat("b")()) == (403, "account_suspended")
        other = replace(fleet, gateway=replace(fleet.gateway, max_body_bytes=10_000))
        house.bench.gateway.fleet.replace(other, 7)
        assert house.bench.gateway.fleet.now.tenants == changed.tenants
        assert house.bench.gateway.fleet.declared is other


async def test_a_gateway_that_dies_between_database_and_memory_has_the_change_after_its_restart(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = fleet_in(tmp_path)
    async with house_of(fleet, tmp_path) as house:
        monkeypatch.setattr(house.lifecycle.tenants, "_take", lambda _: None)
        assert (await Office(house).change("a", weight=4)).status == 200
        assert house.bench.gateway.fleet.now.tenants["a"].weight == 1.0
    async with house_of(fleet, tmp_path) as house:
        assert house.bench.gateway.fleet.now.tenants["a"].weight == 4.0


async def test_while_the_database_is_away_changes_are_refused_and_serving_goes_on(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise StateUnavailable("The state database does not answer.", retry_after_s=5.0)

    for name in ("change_tenant", "set_alias", "tenant_was_used"):
        monkeypatch.setattr(StateStore, name, away)
    before = office.house.bench.gateway.fleet.now
    for method, path, body in (
        ("POST", TENANTS, {"name": "d", "models": {"chat": "base"}}),
        ("PATCH", f"{TENANTS}/a", {"weight": 2}),
        ("POST", f"{TENANTS}/a/suspend", None),
        ("DELETE", f"{TENANTS}/a", None),
        ("PUT", "/admin/v1/aliases/x?tenant=a", {"model": "plain"}),
    ):
        assert code_of(await office.ask(method, path, body)) == (503, "state_unavailable"), path
    assert office.house.bench.gateway.fleet.now is before
    assert (await office.chat(key_of("a"), model="plain")()).status == 200


async def test_a_tenant_that_is_removed_while_it_uploads_leaves_no_adapter(office: Office) -> None:
    house = office.house
    await office.admit("d")
    await asyncio.gather(
        house.add(key=AdapterKey("d", "billing")),
        office.ask("DELETE", f"{TENANTS}/d"),
        return_exceptions=True,
    )
    await eventually(lambda: house.directory.adapters_of("d") == [])
    await eventually(lambda: len(house.stored) <= 4)


@pytest.mark.parametrize("role", ["inference", "adapters"])
async def test_a_tenant_that_is_removed_while_a_key_is_made_leaves_no_key(office: Office, role: str) -> None:
    await office.admit("d")
    wanted = {"role": role, "tenant": "d"}
    _, made = await asyncio.gather(
        office.ask("DELETE", f"{TENANTS}/d"), office.ask("POST", "/admin/v1/keys", wanted)
    )
    keys = (await office.ask("GET", "/admin/v1/keys")).json()["data"]
    assert [key["id"] for key in keys if key["tenant"] == "d" and key["revoked_at"] is None] == []
    assert made.status == 404 or len(keys) == 2


async def test_a_tenant_is_removed_while_it_streams_queues_and_uploads_at_once(tmp_path: Path) -> None:
    fleet = fleet_in(tmp_path)
    fleet = replace(fleet, base_models={"base": replace(fleet.base_models["base"], max_num_seqs=1)})
    async with house_of(fleet, tmp_path) as house:
        office, engine = Office(house), house.bench.engines["shared-0"]
        key = await office.admit("d")
        manage = await office.key_for("d")
        engine.behave = engine.hold_mid_stream
        streaming = asyncio.create_task(office.chat(key, stream=True)())
        await eventually(lambda: engine.running == 1)
        waiting = asyncio.create_task(office.chat(key)())
        await eventually(lambda: "queued=1" in repr(house.bench.gateway.dispatcher))
        archive = shutil.make_archive(str(tmp_path / "upload"), "gztar", adapter_folder(tmp_path / "one", 1))
        body = await asyncio.to_thread(Path(archive).read_bytes)
        headers = [("authorization", f"Bearer {manage}"), ("content-type", "application/gzip")]
        uploading = Client(house.bench.gateway.app, "/admin/v1/adapters/billing/versions", headers=headers)
        uploading.incomplete(body[:1000]).start()
        await eventually(lambda: os.listdir(tmp_path / "state" / "uploads") != [], "the upload's file")

        assert (await office.ask("DELETE", f"{TENANTS}/d")).status == 200
        assert code_of(await waiting) == (403, "tenant_removed")
        uploading.complete(body[1000:])
        await uploading.done()
        assert code_of(uploading) == (404, "tenant_not_found")
        engine.release.set()
        assert (await streaming).body.endswith(b"data: [DONE]\n\n")
        await eventually(lambda: house.bench.at_rest)
        assert house.directory.adapters_of("d") == [] and house.left_of_uploads(Path(archive)) == [
            Path(archive).name
        ]
        assert len(house.stored) == 4, "the declared ones"


async def test_a_tenant_becomes_dedicated_only_once_nothing_of_others_runs_on_its_pool(
    office: Office,
) -> None:
    house, engine = office.house, office.house.bench.engines["shared-0"]
    engine.behave = engine.hold_mid_stream
    streaming = asyncio.create_task(house.bench.chat("a", stream=True)())
    await eventually(lambda: engine.running == 1)
    assert (await office.ask("DELETE", f"{TENANTS}/a")).status == 200
    refused = await office.change("b", isolation="dedicated")
    assert code_of(refused) == (409, "tenant_would_share")
    assert "requests of a would run beside its own" in refused.json()["error"]["message"]
    assert (await office.show("b"))["revision"] == 0, "nothing was changed"
    engine.release.set()
    assert (await streaming).body.endswith(b"data: [DONE]\n\n")
    await eventually(lambda: house.bench.at_rest)
    assert (await office.change("b", isolation="dedicated")).status == 200
    refused = await office.ask(
        "POST", TENANTS, {"name": "d", "models": {"chat": "base"}, "pools": ["shared"]}
    )
    assert code_of(refused) == (400, "tenant_invalid"), "nobody joins it there"


async def test_an_alias_of_an_own_adapter_is_set_and_moved_by_the_tenant_itself(office: Office) -> None:
    house, own = office.house, await office.key_for("a")
    await house.ready(1, key=AdapterKey("a", "v1"))
    await house.ready(2, key=AdapterKey("a", "v2"))
    for model in ("v1", "v2"):
        answer = await office.ask("PUT", "/admin/v1/aliases/latest", {"model": model}, key=own)
        assert (answer.status, answer.json()["model"]) == (200, model)
        chat = await house.ask("latest")
        assert (chat.status, chat.headers["x-tenantry-adapter"], chat.json()["model"]) == (
            200,
            model,
            "latest",
        )
    listed = (await house.bench.get("/v1/models", key=key_of("a"))()).json()["data"]
    assert "latest" in [model["id"] for model in listed]
    assert (await house.ask("latest", "b")).status == 404
    await house.manager.retire(AdapterKey("a", "v2"), None)
    retired = await house.ask("latest")
    assert (
        code_of(retired) == (404, "model_retired")
        and "`v2`, which was retired" in retired.json()["error"]["message"]
    )
    assert (await office.ask("DELETE", "/admin/v1/aliases/latest", key=own)).status == 200
    assert code_of(await house.ask("latest")) == (404, "model_not_found")
    assert code_of(await office.ask("DELETE", "/admin/v1/aliases/latest", key=own)) == (
        404,
        "alias_not_found",
    )
    texts = [
        e["text"] for e in (await office.ask("GET", "/admin/v1/events?limit=200", key=own)).json()["data"]
    ]
    assert [text for text in texts if text.startswith("alias")] == [
        "alias latest v2 -> none",
        "alias latest v1 -> v2",
        "alias latest none -> v1",
    ]


@pytest.mark.parametrize(
    ("alias", "model", "expected"),
    [
        ("support", "plain", (409, "name_taken")),
        ("a-support", "plain", (409, "name_taken")),
        ("billing", "plain", (409, "name_taken")),
        ("x", "b-support", (400, "model_not_found")),
        ("x", "nothing", (400, "model_not_found")),
        ("x", "x", (400, "model_not_found")),
        ("x@2", "plain", (400, "invalid_value")),
    ],
)
async def test_an_alias_hides_no_name_and_leads_to_no_other_tenants_model(
    office: Office, alias: str, model: str, expected: tuple[int, str]
) -> None:
    await office.house.ready()
    own = await office.key_for("a")
    refused = await office.ask("PUT", f"/admin/v1/aliases/{alias}", {"model": model}, key=own)
    assert code_of(refused) == expected
    foreign = await office.ask("PUT", "/admin/v1/aliases/y?tenant=b", {"model": "b-support"}, key=own)
    assert code_of(foreign) == (404, "tenant_not_found")


async def test_no_adapter_takes_the_name_of_an_alias(office: Office) -> None:
    await office.ask("PUT", "/admin/v1/aliases/billing?tenant=a", {"model": "plain"})
    with pytest.raises(Exception, match="is an alias of this tenant"):
        await office.house.add()


async def test_every_change_is_an_event_with_who_and_what(office: Office) -> None:
    await office.admit("d")
    await office.change("d", weight=2)
    await office.ask("POST", f"{TENANTS}/d/suspend")
    await office.ask("DELETE", f"{TENANTS}/d")
    events = (await office.ask("GET", "/admin/v1/events?tenant=d")).json()["data"]
    told = [(event["text"], event["changes"].get("weight")) for event in reversed(events)]
    assert told[0][0].startswith("admitted: alias chat none -> base") and told[0][1] == [None, 1.0]
    assert told[1:3] == [("changed: weight 1 -> 2", [1.0, 2.0]), ("suspended", None)]
    assert told[3] == ("removed", [2.0, None])
    assert {event["actor"][:4] for event in events} == {"key "}
    assert (await office.ask("GET", "/admin/v1/events?tenant=d&since=9999999999")).json()["data"] == []


async def test_state_of_a_version_is_not_disturbed_by_a_suspension(office: Office) -> None:
    await office.house.ready()
    await office.ask("POST", f"{TENANTS}/a/suspend")
    await office.ask("POST", f"{TENANTS}/a/resume")
    assert office.house.state() is VersionState.READY
    assert (await office.house.ask()).status == 200


def test_the_first_of_a_name_has_the_salt_that_it_always_had() -> None:
    fleet: Fleet = small_fleet()
    assert cache_salt(SECRET, fleet.tenants["a"].account) == cache_salt(SECRET, "a")


@pytest.mark.parametrize("alias", ["meta-llama/Llama-3.1-8B-Instruct", "gpt-oss:120b", "größer als", 'a "b"'])
async def test_an_alias_may_be_any_printable_text(office: Office, alias: str) -> None:
    own = await office.key_for("a")
    path = f"/admin/v1/aliases/{alias}"  # as a server sees it, decoded
    assert (await office.ask("PUT", path, {"model": "plain"}, key=own)).json()["alias"] == alias
    assert (await office.chat(key_of("a"), model=alias)()).json()["model"] == alias
    assert (await office.ask("DELETE", path, key=own)).status == 200
    assert code_of(await office.chat(key_of("a"), model=alias)()) == (404, "model_not_found")


@pytest.mark.parametrize("alias", ["support@2", "a/../b", " x", "x\x7fy"])
async def test_what_is_no_alias_is_refused_wherever_it_is_told(office: Office, alias: str) -> None:
    set_own = await office.ask("PUT", f"/admin/v1/aliases/{alias}?tenant=a", {"model": "plain"})
    assert set_own.status == 400
    assert (await office.change("a", models={alias: "base"})).status == 400

"""Does `apply` say what becomes of what was made at run time, before and after, and then do that?"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from fleet.changes import Amended, with_changes
from fleet.tenant_change import TenantChange
from fleet.types import Fleet
from tests.fakes import Client, key_of
from tests.forms import TYPE, form
from tests.integration.test_fleets import Site, changed, site_in, without_b


async def ask(site: Site, method: str, path: str, payload: Any, key: str = "operator") -> Client:
    """Ask the admin API as an operator."""
    headers = [("authorization", f"Bearer {key_of(key)}"), ("content-type", "application/json")]
    body = orjson.dumps(payload)
    return await Client(
        site.bench.gateway.app, f"/admin/v1{path}", method=method, headers=headers, body=body
    )()


def without_sales(data: dict[str, Any]) -> None:
    """Take an adapter out, and tenant a's name for it."""
    del data["adapters"]["a-sales"], data["tenants"]["a"]["models"]["sales"]


async def test_apply_names_beforehand_what_no_longer_fits_and_keeps_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with site_in(tmp_path) as site:
        assert (await ask(site, "PATCH", "/tenants/b", {"models": {"extra": "a-sales"}})).status == 200
        put = await ask(site, "PUT", "/aliases/latest?tenant=a", {"model": "sales"})
        assert put.status == 200, put.body
        text = changed(site, without_sales)
        dry = (await site.apply(text, "dry_run=true")).json()
        assert [told.partition(":")[0] for told in dry["consequences"]] == ["tenant b", "tenant a"]
        assert "its alias latest leads nowhere" in dry["consequences"][1]
        assert dry["reasons"] == [] and "made at run time" not in caplog.text
        done = (await site.apply(text)).json()
        assert done["applied"] and done["consequences"] == dry["consequences"]
        assert caplog.text.count("made at run time: tenant ") == 2
        assert (await site.bench.chat("a", model="latest")()).status == 404
        assert (await site.bench.chat("b", model="extra")()).status == 404
        assert (await site.bench.chat("b")()).status == 200, "tenant b is as declared"

        back = (await site.apply(site.file.read_text())).json()
        assert back["consequences"] == ["tenant b: what was set at run time fits again, and counts"]
        statuses = [0]
        async with asyncio.timeout(10):
            while statuses[-1] != 200:  # its adapter is prepared anew
                statuses.append((await site.bench.chat("b", model="extra")()).status)
        assert (await site.bench.chat("a", model="latest")()).status == 200


async def test_a_tenant_whose_change_no_longer_fits_can_be_suspended_and_resumed_all_the_same(
    tmp_path: Path,
) -> None:
    async with site_in(tmp_path) as site:
        assert (await ask(site, "PATCH", "/tenants/b", {"models": {"extra": "a-sales"}})).status == 200
        assert (await site.apply(changed(site, without_sales))).json()["applied"]
        assert (await ask(site, "PATCH", "/tenants/b", {"weight": 2})).status == 400, "it still does not fit"
        for verb, status in (("suspend", 403), ("resume", 200), ("suspend", 403)):
            dry = await ask(site, "POST", f"/tenants/b/{verb}?dry_run=true", None)
            done = await ask(site, "POST", f"/tenants/b/{verb}", None)
            assert (dry.status, done.status) == (200, 200), done.body
            assert done.json()["words"] == dry.json()["words"]
            assert (await site.bench.chat("b")()).status == status
    async with site_in(tmp_path) as site:
        assert (await site.bench.chat("b")()).status == 403
        assert (await ask(site, "DELETE", "/tenants/b", None)).status == 200


async def test_a_tenant_that_the_file_drops_has_its_keys_told(tmp_path: Path) -> None:
    async with site_in(tmp_path) as site:
        made = await ask(site, "POST", "/keys", {"role": "inference", "tenant": "b"})
        assert made.status == 201
        told = (await site.apply(changed(site, without_b), "dry_run=true")).json()["consequences"]
        assert told == [
            "tenant b: what was made at run time counts for nothing while the tenant is gone: 1 key"
        ]


async def chats(site: Site, key: str) -> None:
    assert (await site.bench.chat(key)()).status == 200


async def names_a_model(site: Site, key: str) -> None:
    put = await ask(site, "PUT", f"/aliases/latest?tenant={key}", {"model": "support"})
    assert put.status == 200


async def uploads_a_file(site: Site, key: str) -> None:
    headers = [("authorization", f"Bearer {key_of(key)}"), ("content-type", TYPE)]
    body = form({"purpose": "batch"}, b"{}", "asked.jsonl")
    sent = await Client(site.bench.gateway.app, "/v1/files", headers=headers, body=body)()
    assert sent.status == 200, sent.body


@pytest.mark.parametrize("restarts", [False, True], ids=["", "after a restart"])
@pytest.mark.parametrize("leave_something", [chats, names_a_model, uploads_a_file])
async def test_who_gets_the_name_of_a_tenant_that_the_file_dropped_has_nothing_of_it(
    tmp_path: Path, leave_something: Callable[[Site, str], Awaitable[None]], restarts: bool
) -> None:
    async with site_in(tmp_path) as site:
        await leave_something(site, "b")
        assert (await site.apply(changed(site, without_b))).json()["applied"]
        made = await admitted(site) if not restarts else None
    async with site_in(tmp_path) as site:
        key = made or await admitted(site)
        shown = (await site.bench.get("/admin/v1/tenants/b", key=key_of("operator"))()).json()
        assert (shown["account"], shown["aliases"]) == ("b#1", [])
        assert (await site.bench.get("/v1/files", key=key)()).json()["data"] == []
        assert (await site.bench.get("/v1/usage", key=key)()).json()["total"]["requests"] == 0


async def admitted(site: Site) -> str:
    """Admit a tenant b; returns its key, once it has nothing of another one."""
    body = {"name": "b", "models": {"chat": "base"}, "key": True}
    answer = await ask(site, "POST", "/tenants", body)
    assert answer.status == 201, answer.body
    assert answer.json()["tenant"]["aliases"] == []
    return str(answer.json()["key"]["key"])


async def test_the_changes_are_put_on_another_fleet_once_and_beside_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def noted(declared: Fleet, changes: Mapping[str, TenantChange]) -> Amended:
        threads.append(threading.current_thread())
        return with_changes(declared, changes)

    async with site_in(tmp_path) as site:
        assert (await ask(site, "PATCH", "/tenants/b", {"weight": 2})).status == 200
        monkeypatch.setattr("routing.lifecycle.tenants.with_changes", noted)
        assert (await site.apply(changed(site, without_sales))).json()["applied"]
        assert len(threads) == 1 and threads[0] is not threading.main_thread()
        assert site.bench.gateway.fleet.now.tenants["b"].weight == 2.0

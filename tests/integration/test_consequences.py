"""Does `apply` say what becomes of what was made at run time, before and after, and then do that?"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from fleet.changes import Amended, with_changes
from fleet.tenant_change import TenantChange
from fleet.types import Fleet
from tests.fakes import Client, key_of
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


async def test_a_tenant_that_the_file_drops_has_its_keys_told(tmp_path: Path) -> None:
    async with site_in(tmp_path) as site:
        made = await ask(site, "POST", "/keys", {"role": "inference", "tenant": "b"})
        assert made.status == 201
        told = (await site.apply(changed(site, without_b), "dry_run=true")).json()["consequences"]
        assert told == [
            "tenant b: what was made at run time counts for nothing while the tenant is gone: 1 key"
        ]


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

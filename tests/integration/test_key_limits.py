"""Limits of one API key, from the client's side and the operator's. The engines are fake."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from fleet.key_hash import hash_key
from fleet.types import Fleet, KeyLimits
from tests.fakes import Client, eventually, key_of, small_fleet
from tests.integration.conftest import Bench, bench_of

BATCH = "key-of-a-for-batches"


def limited(limits: KeyLimits, **options: Any) -> Fleet:
    """The small fleet, where tenant `a` has a second key, with limits."""
    fleet = small_fleet(**options)
    tenant, digest = fleet.tenants["a"], hash_key(BATCH)
    changed = replace(tenant, key_hashes=tenant.key_hashes | {digest}, key_limits={digest: limits})
    return replace(fleet, tenants={**fleet.tenants, "a": changed})


def ask(bench: Bench, key: str, path: str = "/v1/chat/completions") -> Client:
    """A chat with a key."""
    body = {"model": "support", "max_tokens": 1, "messages": [{"role": "user", "content": "who?"}]}
    headers = [("authorization", f"Bearer {key}"), ("content-type", "application/json")]
    return Client(bench.gateway.app, path, body=orjson.dumps(body), headers=headers)


async def own_usage(bench: Bench, key: str, query: str = "") -> dict[str, Any]:
    """What `GET /v1/usage` says to a key."""
    client = await bench.get(f"/v1/usage?{query}", key=key)()
    assert client.status == 200, client.body
    told: dict[str, Any] = orjson.loads(client.body)
    return told


async def test_a_key_at_its_cap_is_refused_by_its_own_name_and_the_tenants_other_key_is_served(
    tmp_path: Path,
) -> None:
    async with bench_of(limited(KeyLimits(max_concurrency=1)), tmp_path) as bench:
        engine = bench.engines["shared-0"]
        engine.behave = engine.hold
        running = ask(bench, BATCH).start()
        await eventually(lambda: engine.running == 1)
        refused = await ask(bench, BATCH)()
        assert (refused.status, refused.error["code"]) == (429, "key_max_concurrency")
        assert float(refused.headers["retry-after"]) >= 1 and refused.headers["x-should-retry"] == "true"
        other = ask(bench, key_of("a")).start()
        await eventually(lambda: engine.running == 2)
        engine.release.set()
        assert {(await running.done()).status, (await other.done()).status} == {200}
        engine.behave = engine.answer
        assert (await ask(bench, BATCH)()).status == 200
        assert bench.gateway.dispatcher._accounts.limited_keys == 0


async def test_many_at_once_never_pass_the_keys_cap(tmp_path: Path) -> None:
    async with bench_of(limited(KeyLimits(max_concurrency=3)), tmp_path) as bench:
        engine, most = bench.engines["shared-0"], 0
        engine.behave = engine.hold
        clients = [ask(bench, BATCH).start() for _ in range(20)]
        await eventually(lambda: engine.running == 3)
        await asyncio.sleep(0)
        most = engine.running
        engine.release.set()
        statuses = [(await client.done()).status for client in clients]
        assert (most, statuses.count(200), statuses.count(429)) == (3, 3, 17)


async def test_a_client_that_leaves_gives_its_keys_place_back(tmp_path: Path) -> None:
    async with bench_of(limited(KeyLimits(max_concurrency=1)), tmp_path) as bench:
        engine = bench.engines["shared-0"]
        engine.behave = engine.hold
        client = ask(bench, BATCH).start()
        await eventually(lambda: engine.running == 1)
        client.leave()
        await client.done()
        await eventually(lambda: bench.at_rest)
        assert bench.gateway.dispatcher._accounts.limited_keys == 0


async def test_a_keys_month_holds_over_a_restart_and_its_tenants_other_key_goes_on(tmp_path: Path) -> None:
    fleet = limited(KeyLimits(monthly_tokens=60))
    async with bench_of(fleet, tmp_path) as bench:
        await eventually(lambda: bench.gateway.ledger.is_known)
        answers = [await ask(bench, BATCH)() for _ in range(8)]
        statuses = [answer.status for answer in answers]
        assert statuses == sorted(statuses) and statuses[0] == 200 and statuses[-1] == 429
        refused = answers[-1]
        assert (refused.error["code"], refused.error["type"]) == ("key_monthly_tokens", "insufficient_quota")
        assert refused.headers["x-should-retry"] == "false"
        assert "x-tenantry-key-budget-remaining-tokens" in refused.headers
        assert (await ask(bench, key_of("a"))()).status == 200
        told = (await own_usage(bench, BATCH))["key"]
        assert told["id"] == hash_key(BATCH)[:16] and told["limits"]["monthly_tokens"] == 60
        assert told["budget"]["used_tokens"] == 10 * statuses.count(200) <= 60
        assert (await own_usage(bench, key_of("a")))["key"]["budget"] is None
        lines = (await own_usage(bench, BATCH, "group_by=key"))["data"]
        assert {line["key"] for line in lines} == {hash_key(BATCH)[:16], hash_key(key_of("a"))[:16]}
    for name in ("shared-0", "alone-0"):
        os.unlink(tmp_path / f"{name}.sock")
    async with bench_of(fleet, tmp_path) as bench:
        await eventually(lambda: bench.gateway.ledger.is_known)
        assert (await ask(bench, BATCH)()).status == 429
        assert (await ask(bench, key_of("a"))()).status == 200

"""What clients see when the fleet is replaced under their requests. The engines are fake."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import orjson

from fleet.key_hash import hash_key
from fleet.types import Budget, Fleet, MetricsAccess, Tenant
from routing.asgi import Exchange
from routing.catalog.declared import Identity
from tests.fakes import eventually, key_of, small_fleet, without_tenant
from tests.integration.conftest import Bench, bench_of


def with_tenant(fleet: Fleet, tenant: Tenant) -> Fleet:
    """A fleet in which a tenant differs."""
    return replace(fleet, tenants=fleet.tenants | {tenant.name: tenant})


async def test_a_removed_tenants_stream_ends_its_queue_is_refused_and_its_key_opens_nothing(
    tmp_path: Path,
) -> None:
    async with bench_of(small_fleet(max_num_seqs=1), tmp_path) as bench:
        engine, current = bench.engines["shared-0"], bench.gateway.fleet
        engine.behave = engine.hold_mid_stream
        streaming = asyncio.create_task(bench.chat("b", stream=True)())
        await eventually(lambda: engine.running == 1)
        waiting = asyncio.create_task(bench.chat("b")())
        await eventually(lambda: "queued=1" in repr(bench.gateway.dispatcher))
        current.replace(without_tenant(current.now, "b"))
        refused = await waiting
        assert (refused.status, refused.json()["error"]["code"]) == (403, "tenant_removed")
        assert (await bench.chat("b")()).status == 401
        engine.release.set()
        client = await streaming
        assert client.body.endswith(b"data: [DONE]\n\n"), "what ran goes on to its end"
        await eventually(lambda: bench.at_rest)
        assert bench.outcomes()["completed", ""] == 1, "and is metered"
        assert bench.outcomes()["rejected", "tenant_removed"] == 1
        current.replace(small_fleet(max_num_seqs=1))
        engine.behave = engine.answer
        assert (await bench.chat("b")()).status == 200


async def test_a_tenant_that_is_removed_while_it_sends_its_body_is_unknown(bench: Bench) -> None:
    body = orjson.dumps({"messages": [{"role": "user", "content": "who?"}]})
    client = bench.post("/v1/chat/completions", body)
    started = asyncio.Event()
    read = bench.gateway.app.inference.callers.tenant

    def seen(exchange: Exchange) -> tuple[Tenant, Identity]:
        caller = read(exchange)
        if not started.is_set():
            started.set()
            bench.gateway.fleet.replace(without_tenant(bench.gateway.fleet.now, "a"))
        return caller

    bench.gateway.app.inference.callers.tenant = seen  # type: ignore[method-assign]
    await client()
    assert (client.status, client.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_a_new_tenant_is_served_by_the_next_request(bench: Bench) -> None:
    fleet = small_fleet()
    stranger = replace(fleet.tenants["a"], name="d", key_hashes=frozenset({hash_key(key_of("d"))}))
    assert (await bench.chat("d")()).status == 401
    shared = replace(fleet.pools["shared"], tenants=("a", "b", "d"))
    bench.gateway.fleet.replace(replace(with_tenant(fleet, stranger), pools=fleet.pools | {"shared": shared}))
    client = await bench.chat("d")()
    assert client.json()["choices"][0]["message"]["content"] == "I am a-support"
    salts = [seen["cache_salt"] for seen in bench.engines["shared-0"].seen]
    await bench.chat("a")()
    assert bench.engines["shared-0"].seen[-1]["cache_salt"] not in salts


async def test_settings_and_budgets_count_from_the_next_request_on(bench: Bench) -> None:
    fleet, current = small_fleet(), bench.gateway.fleet
    current.replace(replace(fleet, gateway=replace(fleet.gateway, max_body_bytes=10)))
    assert (await bench.chat("a")()).status == 413
    current.replace(replace(fleet, gateway=replace(fleet.gateway, metrics_access=MetricsAccess.OPEN)))
    assert (await bench.get("/metrics")()).status == 200
    current.replace(replace(fleet, gateway=replace(fleet.gateway, operator_key_hashes=frozenset())))
    assert (await bench.get("/metrics", key=key_of("operator"))()).status == 401
    current.replace(with_tenant(fleet, replace(fleet.tenants["a"], budget=Budget(1))))
    assert (await bench.chat("a")()).json()["error"]["code"] == "insufficient_quota"
    current.replace(fleet)
    assert (await bench.chat("a")()).status == 200


async def test_readiness_does_not_suffer(bench: Bench) -> None:
    bench.gateway.fleet.replace(small_fleet())
    assert bench.gateway.is_ready()

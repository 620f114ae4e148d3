"""Keys that everybody knows open nothing for whoever is not on this machine, on any route."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fleet.key_hash import hash_key
from tests.fakes import key_of, small_fleet
from tests.integration.conftest import Bench, bench_of

KNOWN = frozenset(hash_key(key_of(owner)) for owner in ("a", "operator"))
ELSEWHERE = "10.0.0.9"
CHAT = {"messages": [{"role": "user", "content": "who?"}]}


@pytest.fixture
async def demo(tmp_path: Path) -> AsyncIterator[Bench]:
    """A gateway for which the keys of tenant `a` and of the operator are known to everybody."""
    async with bench_of(small_fleet(), tmp_path, local_only=KNOWN) as bench:
        yield bench


@pytest.mark.parametrize(
    ("owner", "path"),
    [
        ("a", "/v1/models"),
        ("a", "/v1/usage"),
        ("operator", "/metrics"),
        ("operator", "/admin/v1/live"),
        ("operator", "/admin/v1/openapi.json"),
    ],
)
async def test_a_known_key_opens_no_route_from_elsewhere(demo: Bench, owner: str, path: str) -> None:
    assert (await demo.get(path, key=key_of(owner), peer="127.0.0.1")()).status == 200
    refused = await demo.get(path, key=key_of(owner), peer=ELSEWHERE)()
    assert (refused.status, refused.error["code"]) == (403, "demo_key")
    assert "TENANTRY_DEMO=1" in refused.error["message"]


@pytest.mark.parametrize("kind", ["chat/completions", "completions", "embeddings", "responses"])
async def test_a_known_key_runs_nothing_from_elsewhere(demo: Bench, kind: str) -> None:
    refused = await demo.post(f"/v1/{kind}", CHAT, peer=ELSEWHERE)()
    assert (refused.status, refused.error["code"]) == (403, "demo_key")
    assert not demo.engines["shared-0"].seen


async def test_a_known_key_loads_no_adapter_from_elsewhere(demo: Bench) -> None:
    for path in ("/v1/load_lora_adapter", "/admin/v1/adapters"):
        refused = await demo.post(path, {}, tenant="operator", peer=ELSEWHERE)()
        assert (refused.status, refused.error["code"]) == (403, "demo_key")


@pytest.mark.parametrize(
    ("peer", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("127.255.0.3", {}, 200),
        ("::1", {}, 200),
        ("::ffff:127.0.0.1", {}, 200),
        ("::ffff:10.0.0.9", {}, 403),
        ("172.17.0.1", {}, 403),
        ("fe80::1", {}, 403),
        ("", {}, 403),
        ("127.0.0.1", {"X-Forwarded-For": "10.0.0.9"}, 403),
        ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, 403),
        ("127.0.0.1", {"Forwarded": "for=10.0.0.9"}, 403),
        ("127.0.0.1", {"X-Real-IP": "10.0.0.9"}, 403),
        ("127.0.0.1", {"Via": "1.1 proxy"}, 403),
        (ELSEWHERE, {"X-Forwarded-For": "127.0.0.1"}, 403),
    ],
)
async def test_this_machine_is_a_loopback_peer_that_speaks_for_itself(
    demo: Bench, peer: str, headers: dict[str, str], status: int
) -> None:
    answer = await demo.post("/v1/completions", {"prompt": "who?"}, peer=peer, headers=[*headers.items()])()
    assert answer.status == status


async def test_a_key_of_ones_own_works_from_everywhere(demo: Bench) -> None:
    assert (await demo.get("/v1/models", key=key_of("b"), peer=ELSEWHERE)()).status == 200


async def test_without_known_keys_nothing_is_looked_at(bench: Bench) -> None:
    assert (await bench.get("/v1/models", key=key_of("a"), peer=ELSEWHERE)()).status == 200

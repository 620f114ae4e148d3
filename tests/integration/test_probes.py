"""What load balancers and load tools ask first: health, release, load; and BentoML's client its schema."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fleet.current import CurrentFleet
from fleet.release import VERSION
from routing.assembly import assemble
from routing.catalog.entries import ApiKey, KeyRole
from routing.openai.bodies import CONTROL
from tests.fakes import (
    SECRET,
    Client,
    ReadyLifecycle,
    eventually,
    in_folder,
    key_of,
    ledger_in,
    serving,
    small_fleet,
)
from tests.integration.conftest import Bench, known_at_start

CHAT = [{"role": "user", "content": "who?"}]


def add_key(bench: Bench, text: str, role: KeyRole, tenant: str | None) -> None:
    digest = hashlib.sha256(text.encode()).hexdigest()
    bench.gateway.directory.put_key(ApiKey(text, text, digest, role, tenant))


@pytest.mark.parametrize("key", [None, "made-up", key_of("a"), key_of("operator")])
@pytest.mark.parametrize("path", ["/health", "/ping", "/health/"])
async def test_health_is_told_to_everybody(bench: Bench, path: str, key: str | None) -> None:
    answer = await bench.get(path, key=key)()
    assert (answer.status, answer.body) == (200, b"")


async def test_health_is_that_of_readyz_and_a_503_is_no_refused_request(bench: Bench) -> None:
    bench.engines["alone-0"].ready = False
    await eventually(lambda: not bench.gateway.is_ready(), "the end of readiness")
    for path, method in (("/health", "GET"), ("/ping", "GET"), ("/ping", "POST"), ("/health", "HEAD")):
        answer = await Client(bench.gateway.app, path, method=method)()
        assert answer.status == 503 and answer.headers["retry-after"]
        assert method == "HEAD" or answer.error["code"] == "service_not_ready"
    page = await bench.get("/metrics", key=key_of("operator"))()
    assert b"service_not_ready" not in page.body
    bench.engines["alone-0"].ready = True
    await eventually(bench.gateway.is_ready, "readiness")


async def test_health_is_answered_while_the_state_is_unknown(tmp_path: Path) -> None:
    fleet = CurrentFleet(in_folder(small_fleet(), tmp_path))
    gateway = assemble(
        fleet,
        known_at_start({}),
        secret=SECRET,
        ledger=ledger_in(tmp_path),
        lifecycle_class=ReadyLifecycle,
    )
    fleet.is_known = False
    answer = await Client(gateway.app, "/health", method="GET")()
    assert answer.status == 503


@pytest.mark.parametrize("path", ["/version", "/load"])
async def test_release_and_load_are_told_to_every_role_and_to_nobody_without_a_key(
    bench: Bench, path: str
) -> None:
    add_key(bench, "manages-a", KeyRole.ADAPTERS, "a")
    statuses = {
        key: (await bench.get(path, key=key)()).status
        for key in (None, "made-up", key_of("a"), "manages-a", key_of("operator"))
    }
    assert list(statuses.values()) == [401, 401, 200, 200, 200]


async def test_the_release_is_ours(bench: Bench) -> None:
    told = (await bench.get("/version", key=key_of("a"))()).json()
    assert told == {"version": VERSION}


async def test_the_load_is_the_callers_own_and_an_operators_that_of_all(bench: Bench) -> None:
    add_key(bench, "manages-a", KeyRole.ADAPTERS, "a")
    for engine in bench.engines.values():
        engine.behave = engine.hold
    clients = [bench.chat("a", n=3).start(), bench.chat("b").start(), bench.chat("c").start()]
    await eventually(lambda: sum(engine.running for engine in bench.engines.values()) == 3, "three requests")

    async def load(key: str) -> Any:
        return (await bench.get("/load", key=key)()).json()["server_load"]

    keys = (key_of("a"), "manages-a", key_of("b"), key_of("c"), key_of("operator"))
    assert [await load(key) for key in keys] == [3, 3, 1, 1, 5]
    for engine in bench.engines.values():
        engine.release.set()
    for client in clients:
        await client.done()
    assert [await load(key) for key in keys] == [0] * 5


# Without the wait for `/readyz`, which BentoML itself answers in a service.
WITH_BENTOML = """
import json, sys
import bentoml

url, key, calls = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
client = bentoml.SyncHTTPClient(url, token=key or None, server_ready_timeout=0)
for name, fields in calls:
    try:
        told = getattr(client, name)(**fields)["model"]
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
    print(told)
"""


async def test_bentomls_client_can_be_made_and_calls_every_endpoint(bench: Bench, tmp_path: Path) -> None:
    async def told(url: str, key: str, *calls: tuple[str, dict[str, Any]]) -> list[str]:
        # A process of its own: what BentoML imports warns, and its clients leave folders behind.
        command = (sys.executable, "-c", WITH_BENTOML, url, key, json.dumps(calls))
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        return output.decode().splitlines()

    right = [(kind.name.lower(), {"model": "plain", **CONTROL[kind]}) for kind in CONTROL]
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("completion", {"model": "plain"}),
        ("chat", {"messages": CHAT, "stream": True}),
        ("chat", {"messages": CHAT, "model": "b-support"}),
    ]
    async with serving(bench.gateway.app, tmp_path / "gateway.sock") as where:
        url = where.replace("unix://", "file://")
        answers = await told(url, key_of("a"), *right, *wrong)
        assert answers[: len(right)] == ["plain"] * len(right)
        missing, streamed, unknown = answers[len(right) :]
        assert missing.startswith("TypeError: Missing required") and "stream" in streamed
        assert "model_not_found" in unknown
        assert "invalid_api_key" in (await told(url, "", right[0]))[0]

"""Replicas of a pool come and go by `apply` while requests run. Engines are fake, sockets and file real."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet.current import CurrentFleet
from fleet.file import FleetFile
from fleet.writer import write_fleet
from routing.assembly import Gateway, assemble
from routing.replicas.client import Address
from routing.replicas.discovery import Discovery, FileDiscovery, StaticDiscovery
from tests.fakes import SECRET, Client, FakeEngine, eventually, key_of, serving
from tests.integration.conftest import Bench
from tests.integration.test_lifecycle import fleet_in

NAMES = ("shared-0", "shared-1", "shared-2", "alone-0")


class Site:
    """A gateway whose shared pool gets more and fewer replicas."""

    def __init__(self, bench: Bench, file: Path) -> None:
        self.bench, self.file = bench, file

    @property
    def gateway(self) -> Gateway:
        return self.bench.gateway

    def document(self, replicas: int, **pool: Any) -> bytes:
        """The fleet file with this number of shared replicas."""
        fleet = fleet_in(self.file.parent)
        shared = replace(fleet.pools["shared"], replicas=replicas, **pool)
        return write_fleet(replace(fleet, pools=fleet.pools | {"shared": shared}), key_variables={}).encode()

    async def apply(self, replicas: int, query: str = "", **pool: Any) -> Client:
        """Apply that through the admin API."""
        headers = [("authorization", f"Bearer {key_of('operator')}"), ("content-type", "application/yaml")]
        body, path = self.document(replicas, **pool), f"/admin/v1/fleet?{query}"
        return await Client(self.gateway.app, path, body=body, headers=headers)()

    def ready(self) -> list[str]:
        """The shared replicas that are ready."""
        replicas = self.gateway.dispatcher.replicas.values()
        return sorted(replica.name for replica in replicas if replica.ready and replica.pool == "shared")


@contextlib.asynccontextmanager
async def site_in(
    folder: Path, *, from_file: bool, replicas: int, of: int | None = None
) -> AsyncIterator[Site]:
    """Serve with this number of shared replicas, as the folder says if it was served before.

    Engines for `of` of them are there.
    """
    file = folder / "fleet.yaml"
    if not file.exists():
        fleet = fleet_in(folder)
        shared = replace(fleet.pools["shared"], replicas=replicas)
        file.write_text(write_fleet(replace(fleet, pools=fleet.pools | {"shared": shared}), key_variables={}))
    loaded, _ = FleetFile(file).load()
    engines = {name: FakeEngine(name) for name in NAMES if name[-1] < str(of or replicas)}
    async with contextlib.AsyncExitStack() as stack:
        addresses = {}
        for name, engine in engines.items():
            socket = folder / f"{name}.sock"
            socket.unlink(missing_ok=True)
            addresses[name] = await stack.enter_async_context(serving(engine, socket))
        where = folder / "engines.json"
        where.write_text(json.dumps(addresses))
        discovery: Discovery = StaticDiscovery(lambda: addresses)
        if from_file:
            discovery = FileDiscovery(where, check_url=Address.parse, poll_s=0.01)
        gateway = assemble(CurrentFleet(loaded), discovery, secret=SECRET)
        gateway.fleets.begin_with(FleetFile(file))
        await gateway.start()
        stack.push_async_callback(gateway.stop)
        await eventually(gateway.is_ready, "the gateway's readiness")
        site = Site(Bench(gateway, engines), file)
        await eventually(lambda: len(site.ready()) == replicas)
        yield site
        for engine in engines.values():
            engine.release.set()
        await eventually(lambda: site.bench.at_rest, f"rest of {gateway.dispatcher!r}")


async def serves(site: Site, replicas: int, answers: list[Client]) -> None:
    """Wait until this number of shared replicas is ready, and for some more answers."""
    await eventually(lambda: len(site.ready()) == replicas)
    before = len(answers)
    await eventually(lambda: len(answers) > before + 20)


def slowly(engine: FakeEngine) -> Any:
    """A behaviour that takes a moment."""

    async def answer(body: dict[str, Any], send: Any) -> None:
        await asyncio.sleep(0.01)
        await engine.answer(body, send)

    return answer


async def test_no_request_fails_while_replicas_come_and_go_by_discovery(tmp_path: Path) -> None:
    async with site_in(tmp_path, from_file=True, replicas=2, of=3) as site:
        stop = False
        answers: list[Client] = []

        async def keep_asking(tenant: str, stream: bool) -> None:
            while not stop:
                answers.append(await site.bench.chat(tenant, stream=stream)())

        for engine in site.bench.engines.values():
            engine.behave = slowly(engine)
        clients = [asyncio.create_task(keep_asking(t, s)) for t in ("a", "b") for s in (True, False, True)]
        for count in (3, 1, 2):
            applied = await site.apply(count)
            assert applied.status == 200, applied.body
            await serves(site, count, answers)
        stop = True
        await asyncio.gather(*clients)
        assert {client.status for client in answers} == {200}
        assert all(not engine.orders for engine in site.bench.engines.values()), "they are somebody else's"


async def test_what_a_leaving_replica_runs_ends_there(tmp_path: Path) -> None:
    async with site_in(tmp_path, from_file=False, replicas=2) as site:
        last = site.bench.engines["shared-1"]
        for engine in site.bench.engines.values():
            engine.behave = engine.hold_mid_stream
        streams = [asyncio.create_task(site.bench.chat(t, stream=True)()) for t in ("a", "b") * 4]
        await eventually(lambda: last.running > 0)
        assert (await site.apply(1)).status == 200
        assert site.ready() == ["shared-0"]
        assert last.orders == [], "it is stopped only once it is empty"
        for engine in site.bench.engines.values():
            engine.release.set()
        ended = await asyncio.gather(*streams)
        assert all(client.body.endswith(b"data: [DONE]\n\n") for client in ended)
        await eventually(lambda: last.stopped, "its memory is free")
        assert last.cut == 0


async def test_an_engine_that_started_with_the_service_is_stopped_and_started_again(tmp_path: Path) -> None:
    async with site_in(tmp_path, from_file=False, replicas=2) as site:
        last = site.bench.engines["shared-1"]
        shown = (await site.apply(1, "dry_run=true")).json()
        assert [change["text"] for change in shown["changes"]] == ["replica shared-1 leaves"]
        assert (shown["reasons"], site.ready()) == ([], ["shared-0", "shared-1"])
        assert (await site.apply(1)).status == 200
        await eventually(lambda: last.stopped)
        assert (await site.bench.chat("a")()).status == 200
        assert (await site.apply(2)).status == 200
        await eventually(lambda: site.ready() == ["shared-0", "shared-1"], "it is back")
        assert last.orders == ["stop", "start"]


async def test_a_replica_without_an_engine_is_refused_with_the_remedy(tmp_path: Path) -> None:
    async with site_in(tmp_path, from_file=False, replicas=1) as site:
        for query in ("", "dry_run=true"):
            answer = await site.apply(3, query)
            body = answer.json()
            assert [reason.partition(":")[0] for reason in body["reasons"]] == ["pool shared"] * 2
            assert "TENANTRY_ENGINE_FILE" in body["reasons"][0]
        assert (await site.apply(3)).error["code"] == "fleet_refused"
        assert site.ready() == ["shared-0"]


async def test_a_replica_that_joins_waits_for_its_address(tmp_path: Path) -> None:
    async with site_in(tmp_path, from_file=True, replicas=1) as site:
        assert (await site.apply(2)).status == 200
        assert site.ready() == ["shared-0"]
        assert (await site.bench.chat("a")()).status == 200
        engine = FakeEngine("shared-1")
        async with serving(engine, tmp_path / "late.sock") as url:
            where = tmp_path / "engines.json"
            fresh = where.with_suffix(".new")
            fresh.write_text(json.dumps(json.loads(where.read_text()) | {"shared-1": url}))
            fresh.rename(where)
            await eventually(lambda: site.ready() == ["shared-0", "shared-1"])
            assert (await site.apply(1)).status == 200
            await eventually(lambda: len(site.gateway.replicas.clients) == 2, "its client is closed")


async def test_a_pool_that_shrinks_and_grows_at_once_keeps_the_engine_that_still_runs(tmp_path: Path) -> None:
    async with site_in(tmp_path, from_file=False, replicas=2) as site:
        last = site.bench.engines["shared-1"]
        for engine in site.bench.engines.values():
            engine.behave = engine.hold_mid_stream
        streams = [asyncio.create_task(site.bench.chat(t, stream=True)()) for t in ("a", "b") * 4]
        await eventually(lambda: last.running > 0)
        assert (await site.apply(1)).status == 200
        assert (await site.apply(2)).status == 200
        for engine in site.bench.engines.values():
            engine.release.set()
        ended = await asyncio.gather(*streams)
        assert all(client.body.endswith(b"data: [DONE]\n\n") for client in ended)
        await eventually(lambda: not site.gateway.replicas._leaving, "the one before has left")
        await eventually(lambda: site.ready() == ["shared-0", "shared-1"])
        assert last.orders == []


@pytest.mark.parametrize("from_file", [True, False])
async def test_a_fleet_with_fewer_replicas_counts_after_a_restart_too(
    tmp_path: Path, from_file: bool
) -> None:
    async with site_in(tmp_path, from_file=from_file, replicas=2) as site:
        assert (await site.apply(1)).status == 200
    async with site_in(tmp_path, from_file=from_file, replicas=1, of=2) as site:
        assert site.gateway.fleets.state.revision == 1

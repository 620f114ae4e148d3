"""Replicas that come, move and vanish while requests run. Engines are fake; sockets and the file are real."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleet.current import CurrentFleet
from fleet.types import Fleet
from routing.assembly import Gateway, assemble
from routing.replicas.client import Address, ReplicaClient
from routing.replicas.discovery import Discovery, FileDiscovery, StaticDiscovery
from routing.scheduling.state import Engine, Replica
from tests.fakes import (
    SECRET,
    Client,
    FakeEngine,
    ReadyLifecycle,
    eventually,
    in_folder,
    key_of,
    ledger_in,
    serving,
    small_fleet,
)
from tests.integration.conftest import Bench, bench_of


@dataclass
class Moving:
    """A bench whose engines are where a file says."""

    bench: Bench
    path: Path
    addresses: dict[str, str]
    _stack: contextlib.AsyncExitStack

    def say(self, **changes: str | None) -> None:
        """Write the file anew; `shared_0` is the replica `shared-0`, None takes its address away."""
        for key, url in changes.items():
            name = key.replace("_", "-")
            if url is None:
                self.addresses.pop(name, None)
            else:
                self.addresses[name] = url
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(self.addresses))
        fresh.rename(self.path)

    async def start(self, name: str) -> tuple[FakeEngine, str]:
        """Start another engine under that replica's name, on a socket of its own."""
        engine = FakeEngine(name)
        sockets = len(list(self.path.parent.glob("*.sock")))
        url = await self._stack.enter_async_context(serving(engine, self.path.parent / f"{sockets}.sock"))
        return engine, url

    def is_ready(self, name: str = "shared-0") -> bool:
        return self.bench.gateway.dispatcher.replicas[name].ready

    def is_moving(self) -> bool:
        """Whether `shared-0` is not ready yet where it is now."""
        return self.bench.gateway.replicas._probers["shared-0"]._moving is not None

    def client(self, name: str = "shared-0") -> ReplicaClient:
        """Return the client through which a replica is reached."""
        gateway = self.bench.gateway
        return gateway.replicas.clients[gateway.dispatcher.replicas[name]]

    def client_of(self, name: str = "shared-0") -> str:
        """The address through which a replica is reached."""
        return self.client(name).url


@contextlib.asynccontextmanager
async def moving_of(fleet: Fleet, folder: Path) -> AsyncIterator[Moving]:
    """A gateway that follows a file."""
    path, known = folder / "engines.json", dict[str, str]()

    def find(addresses: Mapping[str, str]) -> Discovery:
        known.update(addresses)
        path.write_text(json.dumps(known))
        return FileDiscovery(path, check_url=Address.parse, poll_s=0.01)

    async with contextlib.AsyncExitStack() as stack, bench_of(fleet, folder, find) as bench:
        yield Moving(bench, path, known, stack)


@pytest.fixture
async def moving(tmp_path: Path) -> AsyncIterator[Moving]:
    """One shared replica."""
    async with moving_of(small_fleet(), tmp_path) as moving:
        yield moving


@pytest.fixture
async def moving_pair(tmp_path: Path) -> AsyncIterator[Moving]:
    """Two shared replicas."""
    async with moving_of(small_fleet(replicas=2), tmp_path) as moving:
        yield moving


# -- it moves ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [1, 2])
async def test_a_replica_moves_under_load_without_a_failed_request(tmp_path: Path, replicas: int) -> None:
    async with moving_of(small_fleet(replicas=replicas), tmp_path) as moving:
        bench, clients, over = moving.bench, list[Client](), asyncio.Event()

        async def load(model: str) -> None:
            while not over.is_set():
                clients.append(await bench.chat(model=model, stream=len(clients) % 2 == 0)())

        users = [asyncio.ensure_future(load(model)) for model in ("support", "sales", "plain") * 2]
        await eventually(lambda: len(clients) > 20)
        engine, url = await moving.start("shared-0")
        moving.say(shared_0=url)
        await eventually(lambda: len(engine.seen) > 20, "requests at the new address")
        old = bench.engines["shared-0"]
        await eventually(lambda: old.running == 0)
        await bench.kill("shared-0")
        seen, sent = len(old.seen), len(clients)
        await eventually(lambda: len(clients) > sent + 20)
        over.set()
        await asyncio.gather(*users)
        assert {client.status for client in clients} == {200}
        assert all(client.ended for client in clients)
        assert len(old.seen) == seen
        assert bench.outcomes() == {("completed", ""): len(clients)}


async def test_what_runs_where_a_replica_was_ends_there(moving: Moving) -> None:
    old, bench = moving.bench.engines["shared-0"], moving.bench
    old.behave = old.hold_mid_stream
    running = bench.chat(model="support", stream=True).start()
    await eventually(lambda: running.body != b"")
    before = moving.client()
    engine, url = await moving.start("shared-0")
    moving.say(shared_0=url)
    await eventually(lambda: moving.client_of() == url)
    assert (await bench.chat(model="support")()).status == 200
    assert (len(old.seen), len(engine.seen)) == (1, 1)
    assert not before._upstream.is_closed
    old.release.set()
    await running.done()
    assert running.body.endswith(b"data: [DONE]\n\n")
    await eventually(lambda: before._upstream.is_closed, "the end of the old client")


async def test_a_replica_is_served_where_it_was_until_it_is_ready_where_it_is(moving: Moving) -> None:
    engine, url = await moving.start("shared-0")
    engine.ready = False
    moving.say(shared_0=url)
    await eventually(lambda: moving.is_moving())
    assert (await moving.bench.chat(model="support")()).status == 200
    assert not engine.seen
    engine.ready = True
    await eventually(lambda: moving.client_of() == url)
    assert (await moving.bench.chat(model="support")()).status == 200
    assert engine.desired["adapters"], "it was told what it may serve before it was asked"
    assert len(engine.seen) == 1


async def test_a_replica_is_not_used_where_it_moves_to_before_it_was_told_what_to_serve(
    moving: Moving,
) -> None:
    engine, url = await moving.start("shared-0")
    engine.deaf = 2
    moving.say(shared_0=url)
    await eventually(lambda: moving.client_of() == url)
    assert engine.deaf == 0 and engine.desired["adapters"]


async def test_a_replica_that_is_not_where_it_was_either_is_not_ready(moving: Moving) -> None:
    moving.say(shared_0="unix:///nowhere.sock")
    await eventually(lambda: moving.is_moving())
    await moving.bench.kill("shared-0")
    await eventually(lambda: not moving.is_ready())
    waiting = moving.bench.chat(model="support").start()
    _, url = await moving.start("shared-0")
    moving.say(shared_0=url)
    await eventually(moving.is_ready)
    assert (await waiting.done()).status == 200
    assert (await moving.bench.chat(model="support")()).status == 200


async def test_a_move_that_is_taken_back_changes_nothing(moving: Moving) -> None:
    where = moving.client_of()
    moving.say(shared_0="unix:///nowhere.sock")
    await eventually(lambda: moving.is_moving())
    moving.say(shared_0=where)
    await eventually(lambda: not moving.is_moving())
    assert moving.is_ready() and moving.client_of() == where
    assert (await moving.bench.chat(model="support")()).status == 200


async def test_what_hangs_where_a_replica_was_is_answered_by_another_one(moving_pair: Moving) -> None:
    bench = moving_pair.bench
    other, old = bench.engines["shared-1"], bench.engines["shared-0"]
    old.behave = old.hold
    other.ready = False
    await eventually(lambda: not moving_pair.is_ready("shared-1"))
    client = bench.chat(model="support").start()
    await eventually(lambda: old.running == 1)
    other.ready = True
    await eventually(lambda: moving_pair.is_ready("shared-1"))
    old.ready = False
    engine, url = await moving_pair.start("shared-0")
    moving_pair.say(shared_0=url)
    await client.done()
    assert (client.status, client.headers["x-tenantry-replica"]) == (200, "shared-1")
    assert old.aborted == 1 and not engine.seen


# -- it vanishes -------------------------------------------------------------------------------------------


async def test_a_replica_that_vanished_gets_nothing_new_ends_what_it_runs_and_comes_back(
    moving: Moving,
) -> None:
    bench, engine = moving.bench, moving.bench.engines["shared-0"]
    where = moving.client_of()
    engine.behave = engine.hold
    running = bench.chat(model="support").start()
    await eventually(lambda: engine.running == 1)
    moving.say(shared_0=None)
    await eventually(lambda: not moving.is_ready())
    waiting = bench.chat(model="support").start()
    assert (await bench.chat("c", model="support")()).status == 200, "other pools go on"
    await asyncio.sleep(1.2)  # a probe comes by, and does not take it back
    assert not moving.is_ready()
    engine.release.set()
    assert (await running.done()).status == 200
    assert len(engine.seen) == 1
    moving.say(shared_0=where)
    await eventually(moving.is_ready)
    assert (await waiting.done()).status == 200
    assert (await bench.chat(model="support")()).status == 200
    assert len(engine.seen) == 3


async def test_a_replica_that_vanished_gets_nothing_new_from_that_moment_on(moving: Moving) -> None:
    rest = {name: url for name, url in moving.addresses.items() if name != "shared-0"}
    moving.bench.gateway.replicas._take(rest)  # no probe has come by since
    assert not moving.is_ready()


async def test_while_a_replica_is_away_another_one_serves(moving_pair: Moving) -> None:
    bench = moving_pair.bench
    moving_pair.say(shared_0=None)
    await eventually(lambda: not moving_pair.is_ready())
    clients = [await bench.chat(model=model)() for model in ("support", "sales", "plain")]
    assert {client.headers["x-tenantry-replica"] for client in clients} == {"shared-1"}


async def test_a_replica_comes_back_somewhere_else(moving: Moving) -> None:
    moving.say(shared_0=None)
    await eventually(lambda: not moving.is_ready())
    engine, url = await moving.start("shared-0")
    moving.say(shared_0=url)
    await eventually(moving.is_ready)
    assert moving.client_of() == url
    assert (await moving.bench.chat(model="support")()).status == 200
    assert len(engine.seen) == 1, "where it was, it is not asked any more"


async def test_a_file_that_is_broken_changes_nothing(moving: Moving) -> None:
    moving.path.write_text("no mapping")
    await asyncio.sleep(0.1)
    assert moving.is_ready()
    moving.path.unlink()
    await asyncio.sleep(0.1)
    assert (await moving.bench.chat(model="support")()).status == 200


async def test_names_that_the_fleet_does_not_declare_are_logged_once_and_ignored(
    moving: Moving, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "tenantry.gateway")
    moving.say(stranger="http://10.0.0.1:1")
    moving.say(stranger="http://10.0.0.2:2")
    await eventually(lambda: "stranger" in caplog.text)
    moving.say(stranger="http://10.0.0.3:3")
    _, url = await moving.start("shared-0")
    moving.say(shared_0=url)
    await eventually(lambda: moving.client_of() == url)
    assert caplog.text.count("stranger") == 1
    page = await moving.bench.get("/metrics/stranger", key=key_of("operator"))()
    assert page.status == 404


# -- at the start ------------------------------------------------------------------------------------------


def gateway_of(discovery: Discovery, folder: Path) -> Gateway:
    return assemble(
        CurrentFleet(in_folder(small_fleet(), folder)),
        discovery,
        secret=SECRET,
        ledger=ledger_in(folder),
        lifecycle_class=ReadyLifecycle,
    )


async def test_without_a_file_the_gateway_starts_and_waits(tmp_path: Path) -> None:
    path = tmp_path / "engines.yaml"
    async with contextlib.AsyncExitStack() as stack:
        names = ("shared-0", "alone-0")
        where = {n: await stack.enter_async_context(serving(FakeEngine(n), tmp_path / n)) for n in names}
        gateway = gateway_of(FileDiscovery(path, check_url=Address.parse, poll_s=0.01), tmp_path)
        await gateway.start()
        stack.push_async_callback(gateway.stop)
        headers = [("authorization", f"Bearer {key_of('operator')}")]
        page = await Client(gateway.app, "/metrics/shared-0", method="GET", headers=headers)()
        assert (page.status, gateway.is_ready()) == (503, False)
        path.write_text(json.dumps(where))
        await eventually(gateway.is_ready, "the gateway's readiness")
        page = await Client(gateway.app, "/metrics/shared-0", method="GET", headers=headers)()
        assert page.json() == {"vllm": "shared-0"}


@pytest.mark.parametrize(
    ("addresses", "error", "says"),
    [
        ({"shared-0": "http://10.0.0.1:1"}, RuntimeError, "no address is known for alone-0"),
        ({}, RuntimeError, "no address is known for alone-0, shared-0"),
        ({"shared-0": "10.0.0.1", "alone-0": "http://10.0.0.1:1"}, ValueError, "not the address"),
    ],
)
async def test_what_is_known_at_start_must_be_complete_and_right(
    tmp_path: Path, addresses: dict[str, str], error: type[Exception], says: str
) -> None:
    gateway = gateway_of(StaticDiscovery(lambda: addresses), tmp_path)
    with pytest.raises(error, match=says):
        await gateway.start()


# -- it joins and leaves -----------------------------------------------------------------------------------


def another(name: str) -> Replica:
    """One more replica of the pool `shared`."""
    return Replica(name, "shared", Engine(name, "base", 2, 8, max_resident=8))


async def test_a_replica_joins_under_load_once_it_knows_its_adapters_and_leaves_under_streams(
    moving: Moving,
) -> None:
    bench, registry = moving.bench, moving.bench.gateway.replicas
    clients, over = list[Client](), asyncio.Event()

    async def load(model: str) -> None:
        while not over.is_set():
            clients.append(await bench.chat(model=model, stream=len(clients) % 2 == 0)())

    users = [asyncio.ensure_future(load(model)) for model in ("support", "sales", "plain") * 4]
    await eventually(lambda: len(clients) > 20)
    engine, url = await moving.start("shared-9")
    engine.deaf = 3  # it is not told at once
    moving.say(shared_9=url)
    registry.join(another("shared-9"))
    await eventually(lambda: engine.deaf < 2, "its first probes")
    assert not engine.seen and not moving.is_ready("shared-9")
    await eventually(lambda: len(engine.seen) > 20, "requests on it")
    assert {adapter["id"] for adapter in engine.desired["adapters"]} >= {
        body["model"] for body in engine.seen if body["model"] != "base"
    }

    engine.behave = engine.hold_mid_stream
    answered = len(engine.seen)
    await eventually(lambda: len(engine.seen) > answered and engine.running > 0, "streams that it has begun")
    client = moving.client("shared-9")
    registry.leave("shared-9")
    sent = len(clients)
    await eventually(lambda: len(clients) > sent + 50, "requests on the one that stays")
    running, seen, sent = engine.running, len(engine.seen), len(clients)
    await eventually(lambda: len(clients) > sent + 20)
    assert running and (engine.running, len(engine.seen)) == (running, seen), (
        "nothing new comes, nothing ends"
    )
    assert not client._upstream.is_closed
    engine.release.set()
    await eventually(lambda: client._upstream.is_closed, "the end of its client")
    over.set()
    await asyncio.gather(*users)
    assert {client.status for client in clients} == {200}
    assert all(client.ended for client in clients)
    assert all(client.body.endswith(b"data: [DONE]\n\n") for client in clients if b"data: " in client.body)
    assert (engine.running, engine.aborted) == (0, 0)
    assert bench.outcomes() == {("completed", ""): len(clients)}


async def test_a_replica_that_has_left_is_shown_nowhere(moving: Moving) -> None:
    gateway, where = moving.bench.gateway, moving.client_of()
    engine, url = await moving.start("shared-9")
    moving.say(shared_9=url)
    gateway.replicas.join(another("shared-9"))
    await eventually(lambda: moving.is_ready("shared-9"))
    moving.say(shared_0=None)
    await eventually(lambda: not moving.is_ready())
    assert (await moving.bench.chat(model="support")()).status == 200 and engine.seen

    async def shown() -> list[bool]:
        """Say whether each page knows it."""
        key = key_of("operator")
        paths = ("/admin/v1/replicas", "/admin/v1/scheduler?decisions=0", "/metrics")
        pages = [(await moving.bench.get(path, key=key)()).body for path in paths]
        live = (await moving.bench.get("/admin/v1/live", key=key)()).json()
        names = [replica["name"] for pool in live["pools"] for replica in pool["replicas"]]
        own = (await moving.bench.get("/metrics/shared-9", key=key)()).status == 200
        gauge = b'tenantry_replica_ready{pool="shared",replica="shared-9"}'
        return [b"shared-9" in pages[0], b"shared-9" in pages[1], gauge in pages[2], "shared-9" in names, own]

    assert await shown() == [True] * 5
    gateway.replicas.leave("shared-9")
    assert await shown() == [False] * 5
    waiting = moving.bench.chat(model="support").start()
    moving.say(shared_0=where)
    assert (await waiting.done()).headers["x-tenantry-replica"] == "shared-0"


async def test_the_last_replica_of_a_pool_may_leave_and_another_one_join(moving: Moving) -> None:
    gateway = moving.bench.gateway
    gateway.replicas.leave("shared-0")
    refused = await moving.bench.chat(model="support")()
    assert (refused.status, refused.error["code"]) == (503, "no_replica_ready")
    assert (await moving.bench.chat("c", model="support")()).status == 200, "other pools go on"
    assert not gateway.is_ready()
    gateway.replicas.join(another("shared-0"))
    assert (await moving.bench.chat(model="support")()).status == 200
    assert gateway.is_ready()

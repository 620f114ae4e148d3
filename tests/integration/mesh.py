"""A gateway in front of fake hosts whose models take turns. The hosts are as strict as real ones."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engines import protocol
from engines.health import EngineHealth, EngineState, Place
from fleet.current import CurrentFleet
from fleet.file import FleetFile
from fleet.pool_settings import ResidencySettings
from fleet.types import BaseModel, Caps, Fleet, Pool, Slo, Strategy, Tenant
from routing.assembly import Gateway, assemble
from routing.lifecycle import Lifecycle
from routing.replicas.discovery import StaticDiscovery
from routing.scheduling.state import Replica
from routing.turns.pool import PoolTurns
from tests.fakes import (
    SECRET,
    Client,
    FakeEngine,
    ReadyLifecycle,
    eventually,
    in_folder,
    key_of,
    ledger_in,
    read_body,
    respond,
    serving,
    small_fleet,
)
from tests.integration.conftest import Bench

MODELS = ("one", "two", "three")
SWITCH_S = 0.01


def mesh_fleet(
    models: tuple[str, ...] = MODELS,
    *,
    hosts: int = 1,
    awake: int = 1,
    slo: Slo = Slo(),  # noqa: B008 - frozen
    caps: Caps = Caps(),  # noqa: B008 - frozen
    max_num_seqs: int = 8,
    **residency: Any,
) -> Fleet:
    """Two tenants that may use every model of a mesh."""
    small = small_fleet()

    def tenant(name: str) -> Tenant:
        key_hash = hashlib.sha256(key_of(name).encode()).hexdigest()
        return Tenant(name, frozenset({key_hash}), {m: m for m in models}, models[0], caps=caps)

    pool = Pool(
        "mesh",
        Strategy.MODEL_MESH,
        models,
        hosts,
        (),
        ("a", "b"),
        slo=slo,
        awake=awake,
        residency=ResidencySettings(**residency),
    )
    return replace(
        small,
        base_models={m: BaseModel(m, f"/models/{m}", max_num_seqs=max_num_seqs) for m in models},
        adapters={},
        tenants={name: tenant(name) for name in ("a", "b")},
        pools={"mesh": pool},
    )


class MeshEngine(FakeEngine):
    """One model of a fake host."""

    def __init__(self, name: str, model: str) -> None:
        super().__init__(name)
        self.serves = model
        self.stopped, self.ready = True, False
        self.never_loads = ""  # why
        self.loading = asyncio.Event()  # a start waits for it
        self.loading.set()
        self.probed = 0
        self.is_told = asyncio.Event()  # a probe's answer comes after it, and is old by then
        self.is_told.set()
        self.took_s: dict[str, float] = {}
        self.source = ""  # where its files are, of the last start
        self.broken: set[str] = set()  # sources with which no engine starts

    def health(self) -> EngineHealth:
        way = next(iter(self.took_s), "")
        place = Place(awake=1, way=way, took_s=self.took_s, source=self.source)
        return replace(super().health(), place=place)

    async def answer(self, body: dict[str, Any], send: Any) -> None:
        """Answer as this model, whatever the request names: a wrong one shows."""
        await super().answer(body | {"model": self.serves}, send)

    async def come(self) -> None:
        self.stopped, self.ready, self.failure = False, False, ""
        await asyncio.sleep(SWITCH_S)
        await self.loading.wait()
        if self.stopped:
            return
        if self.never_loads or self.source in self.broken:
            self.failure = self.never_loads or "RuntimeError: size mismatch for lm_head"
            return
        self.come_back()
        self.took_s = {"cold": SWITCH_S}

    async def go(self) -> None:
        self.cut = max(self.cut, self.running)
        self.stopped, self.ready, self.failure = True, False, ""


class FakeHost:
    """A host with one engine for each model. It never has more awake than it may."""

    def __init__(self, name: str, models: tuple[str, ...], most: int) -> None:
        self.engines = {model: MeshEngine(f"{name}.{model}", model) for model in models}
        self.name = name
        self.orders: list[tuple[str, str, str | None]] = []
        self.refused: list[str] = []
        self.prepared: list[str] = []  # models whose weights are to be read ahead
        self.most_seen = 0
        self.obeys = asyncio.Event()  # an order is answered after it
        self.obeys.set()
        self.mute = False  # it answers no probe, as one that is too busy
        self._most = most
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {k.decode(): v.decode() for k, v in scope.get("headers", ())}
        engine = self.engine(headers[protocol.MODEL_HEADER])
        if scope["path"] == protocol.READY_PATH:
            engine.probed += 1
            if self.mute:
                await respond(send, 500, [])  # nothing that says how its engine stands
                return
            if not (told := engine.is_told).is_set():
                status, health = (200 if engine.ready else 503), engine.health().to_json()
                await told.wait()
                await respond(send, status, health)
                return
        if scope["path"] != protocol.ENGINE_PATH:
            await engine(scope, receive, send)
            return
        told = json.loads(await read_body(receive))
        if told["order"] == "prepare":
            self.prepared.append(engine.serves)
            await respond(send, 200, engine.health().to_json())
            return
        self.orders.append((told["order"], engine.serves, told.get("instead_of")))
        await self.obeys.wait()
        if told["order"] == "start":
            engine.source = told.get("source") or ""
        why_not = self._follow(engine, told["order"], told.get("instead_of"))
        if why_not:
            self.refused.append(why_not)
            await respond(send, 409, {"error": why_not})
        else:
            await respond(send, 200, engine.health().to_json())

    def _follow(self, engine: MeshEngine, order: str, instead_of: str | None) -> str:
        if order in ("stop", "leave"):
            self._do(engine.go())
            return ""
        going = None if instead_of is None else self.engines[instead_of]
        awake = {one.serves for one in self.engines.values() if not one.stopped}
        left = awake - {engine.serves, instead_of}
        if len(left) >= self._most:
            return f"{sorted(left)} are awake"
        self.most_seen = max(self.most_seen, len(left) + 1)
        engine.stopped = False
        self._do(self._switch(engine, going))
        return ""

    async def _switch(self, engine: MeshEngine, going: MeshEngine | None) -> None:
        if going is not None:
            await going.go()
        await engine.come()

    def _do(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def engine(self, model: str) -> MeshEngine:
        """One model, also one of which nothing was heard before."""
        return self.engines.setdefault(model, MeshEngine(f"{self.name}.{model}", model))

    def restart(self) -> None:
        """Be killed and come back: everything is on disk."""
        for engine in self.engines.values():
            engine.stopped, engine.ready, engine.failure = True, False, ""


@dataclass
class Mesh(Bench):
    """A gateway and its hosts."""

    hosts: dict[str, FakeHost] = None  # type: ignore[assignment]
    folder: Path = None  # type: ignore[assignment]

    async def revive(self, host: str) -> None:
        """Bring a host back that was killed: everything is on disk."""
        self.hosts[host].restart()
        server = self._engine_servers[host] = contextlib.AsyncExitStack()
        await server.enter_async_context(serving(self.hosts[host], self.folder / f"{host}.sock"))

    def ask(self, model: str, tenant: str = "a", **fields: Any) -> Client:
        """A chat with one model."""
        return self.chat(tenant, model=model, **fields)

    @property
    def pool(self) -> PoolTurns:
        return self.gateway.turns.pools["mesh"]

    def engine(self, model: str, host: str = "mesh-0") -> MeshEngine:
        return self.hosts[host].engines[model]

    async def keep_busy(self, model: str) -> tuple[MeshEngine, asyncio.Task[Client]]:
        """Have an awake model run a request that ends once its engine is released."""
        engine = self.engine(model)
        engine.behave = engine.hold
        running = asyncio.create_task(self.ask(model)())
        await eventually(lambda: engine.running == 1)
        return engine, running

    def replica(self, model: str, host: str = "mesh-0") -> Replica:
        return self.gateway.dispatcher.replicas[f"{host}.{model}"]

    def awake(self) -> set[str]:
        """Models whose turn is now."""
        return {r.engine.base_model for r in self.gateway.dispatcher.replicas.values() if not r.asleep}

    def admin(self, path: str, method: str = "POST", body: Any = None) -> Client:
        """A call of the admin API, as an operator."""
        headers = [
            ("authorization", f"Bearer {key_of('operator')}"),
            ("content-type", "application/json"),
        ]
        payload = b"" if body is None else json.dumps(body).encode()
        return Client(self.gateway.app, f"/admin/v1/{path}", method=method, headers=headers, body=payload)


def said(client: Client) -> str:
    """What a whole answer says."""
    return str(client.json()["choices"][0]["message"]["content"])


def all_engines(hosts: dict[str, FakeHost]) -> Iterator[MeshEngine]:
    return (engine for host in hosts.values() for engine in host.engines.values())


@contextlib.asynccontextmanager
async def mesh_of(
    fleet: Fleet,
    folder: Path,
    *,
    prepare: Any = None,
    lifecycle_class: type[Lifecycle] = ReadyLifecycle,
    file: FleetFile | None = None,
) -> AsyncIterator[Mesh]:
    """Start a gateway with fake hosts; at the end every counter must be at zero."""
    pool = fleet.pools["mesh"]
    hosts = {host.name: FakeHost(host.name, host.base_models, pool.awake or 1) for host in pool.hosts}
    if prepare is not None:
        prepare(hosts)
    async with contextlib.AsyncExitStack() as stack:
        servers, addresses = {}, {}
        for name, host in hosts.items():
            (folder / f"{name}.sock").unlink(missing_ok=True)
            servers[name] = await stack.enter_async_context(contextlib.AsyncExitStack())
            addresses[name] = await servers[name].enter_async_context(serving(host, folder / f"{name}.sock"))

        async def close_those_that_were_revived() -> None:
            for server in servers.values():
                await server.aclose()

        stack.push_async_callback(close_those_that_were_revived)
        gateway: Gateway = assemble(
            CurrentFleet(in_folder(fleet, folder)),
            StaticDiscovery(lambda: addresses),
            secret=SECRET,
            ledger=None if file is not None else ledger_in(folder, budgets={}, currency=None),
            lifecycle_class=lifecycle_class,
        )
        if file is not None:
            gateway.fleets.begin_with(file)
        await gateway.start()
        stack.push_async_callback(gateway.stop)
        await eventually(gateway.is_ready, "the gateway's readiness")
        mesh = Mesh(gateway, {engine.name: engine for engine in all_engines(hosts)}, servers, hosts, folder)
        yield mesh
        for engine in all_engines(hosts):
            engine.release.set()
            engine.loading.set()
        await eventually(lambda: mesh.at_rest, f"rest of {gateway.dispatcher!r}")


def is_stopped(engine: MeshEngine) -> bool:
    """Whether it is on disk."""
    return engine.health().state is EngineState.STOPPED

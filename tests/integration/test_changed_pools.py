"""Pools and base models come and go by `apply` while requests run. The engines are fake."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.states import VersionState
from fleet.current import CurrentFleet
from fleet.file import FleetFile
from fleet.types import BaseModel, Fleet, Isolation, Pool, Strategy
from fleet.writer import write_fleet
from routing.assembly import Gateway, assemble
from routing.catalog.entries import AdapterKey, Rollout, RolloutPlan
from routing.replicas.client import Address
from routing.replicas.discovery import Discovery, FileDiscovery, StaticDiscovery
from tests.fakes import (
    SECRET,
    Client,
    FakeEngine,
    engines_of,
    entry_of,
    eventually,
    key_of,
    serving,
    version_of,
    without_tenant,
)
from tests.integration.conftest import Bench
from tests.integration.test_lifecycle import fleet_in, house_of


def with_extra(fleet: Fleet, *, source: str = "/models/extra") -> Fleet:
    """The fleet with a second base model in a pool of its own, which tenant b calls too."""
    tenant = fleet.tenants["b"]
    model = BaseModel("extra", source, max_num_seqs=1)
    pool = Pool("extra", Strategy.REPLICA_PER_MODEL, ("extra",), 1, (), ("b",))
    return replace(
        fleet,
        base_models=fleet.base_models | {"extra": model},
        pools=fleet.pools | {"extra": pool},
        tenants=fleet.tenants | {"b": replace(tenant, models=tenant.models | {"extra": "extra"})},
    )


def without_alone(fleet: Fleet) -> Fleet:
    """The fleet without a tenant and the pool that is its alone."""
    smaller = without_tenant(fleet, "c")
    adapters = {name: adapter for name, adapter in fleet.adapters.items() if name != "c-support"}
    return replace(smaller, adapters=adapters, pools={n: p for n, p in smaller.pools.items() if n != "alone"})


class Site:
    """A gateway of which pools come and go."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench, self.folder = bench, folder
        self.fleet = fleet_in(folder)

    @property
    def gateway(self) -> Gateway:
        return self.bench.gateway

    async def apply(self, fleet: Fleet, query: str = "") -> Client:
        """Apply a fleet through the admin API."""
        body = write_fleet(fleet, key_variables={}).encode()
        headers = [("authorization", f"Bearer {key_of('operator')}"), ("content-type", "application/yaml")]
        return await Client(self.gateway.app, f"/admin/v1/fleet?{query}", body=body, headers=headers)()

    async def models(self, tenant: str) -> set[str]:
        """What a tenant may call."""
        answer = (await self.bench.get("/v1/models", key=key_of(tenant))()).json()
        return {model["id"] for model in answer["data"]}

    async def seen(self, path: str) -> str:
        """What an operator sees."""
        return (await self.bench.get(path, key=key_of("operator"))()).body.decode()


@contextlib.asynccontextmanager
async def site_in(folder: Path, *, from_file: bool, fleet: Fleet | None = None) -> AsyncIterator[Site]:
    """Serve a fleet, or what the folder says if it was served before; engines of every pool are there."""
    file = folder / "fleet.yaml"
    if not file.exists():
        file.write_text(write_fleet(fleet or fleet_in(folder), key_variables={}))
    loaded, _ = FleetFile(file).load()
    engines = engines_of(with_extra(loaded) if from_file and "extra" not in loaded.pools else loaded)
    async with contextlib.AsyncExitStack() as stack:
        addresses = {}
        for name, engine in engines.items():
            socket = folder / f"{name}.sock"
            socket.unlink(missing_ok=True)
            addresses[name] = await stack.enter_async_context(serving(engine, socket))
        (folder / "engines.json").write_text(json.dumps(addresses))
        discovery: Discovery = StaticDiscovery(lambda: addresses)
        if from_file:
            discovery = FileDiscovery(folder / "engines.json", check_url=Address.parse, poll_s=0.01)
        gateway = assemble(CurrentFleet(loaded), discovery, secret=SECRET)
        gateway.fleets.begin_with(FleetFile(file))
        await gateway.start()
        stack.push_async_callback(gateway.stop)
        await eventually(gateway.is_ready, "the gateway's readiness")
        site = Site(Bench(gateway, engines), folder)
        yield site
        for engine in engines.values():
            engine.release.set()
        await eventually(lambda: site.bench.at_rest, f"rest of {gateway.dispatcher!r}")


# -- a pool that comes -------------------------------------------------------------------------------------


async def test_a_new_pool_with_a_new_base_model_serves_once_its_engine_is_ready(tmp_path: Path) -> None:
    async with site_in(tmp_path, from_file=True) as site:
        engine = site.bench.engines["extra-0"]
        engine.ready = False
        applied = await site.apply(with_extra(site.fleet))
        assert applied.status == 200, applied.body
        assert [str(change["text"]) for change in applied.json()["changes"]] == [
            "added",
            "alias extra none -> extra",
            "added",
        ]
        assert site.gateway.is_ready(), "what is new does not take the others out of service"
        assert "extra" in await site.models("b") and "extra" not in await site.models("a")
        waiting = asyncio.create_task(site.bench.chat("b", model="extra")())
        await eventually(lambda: site.gateway.dispatcher.queued() == {("b", "extra"): 1})
        assert (await site.bench.chat("a")()).status == 200
        engine.ready = True
        assert (await waiting).status == 200
        assert [body["model"] for body in engine.seen] == ["extra"]
        assert 'tenantry_replica_ready{pool="extra",replica="extra-0"} 1' in await site.seen("/metrics")
        assert '"extra-0"' in await site.seen("/admin/v1/replicas")
        assert '"extra"' in await site.seen("/admin/v1/scheduler")
        engine.ready = False
        await eventually(lambda: not site.gateway.is_ready(), "it counts from then on")


async def test_where_engines_start_with_the_service_a_new_pool_is_refused_with_the_remedy(
    tmp_path: Path,
) -> None:
    async with site_in(tmp_path, from_file=False) as site:
        for query in ("", "dry_run=true"):
            (reason,) = (await site.apply(with_extra(site.fleet), query)).json()["reasons"]
            assert reason.startswith("pool extra: replica extra-0 has no engine")
            assert "TENANTRY_ENGINE_FILE" in reason
        assert set(site.gateway.dispatcher.groups) == {("shared", "base"), ("alone", "base")}


# -- a pool that goes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("from_file", [True, False])
async def test_what_runs_in_a_removed_pool_ends_and_what_waits_is_refused(
    tmp_path: Path, from_file: bool
) -> None:
    whole = with_extra(fleet_in(tmp_path))
    async with site_in(tmp_path, from_file=from_file, fleet=whole) as site:
        engine = site.bench.engines["extra-0"]
        engine.behave = engine.hold_mid_stream
        stream = asyncio.create_task(site.bench.chat("b", model="extra", stream=True)())
        await eventually(lambda: engine.running == 1)
        waiting = asyncio.create_task(site.bench.chat("b", model="extra")())
        await eventually(lambda: site.gateway.dispatcher.queued() != {})
        assert (await site.apply(site.fleet)).status == 200
        refused = await waiting
        assert (refused.status, refused.error["code"]) == (404, "model_retired")
        assert (await site.bench.chat("b", model="extra")()).error["code"] == "model_not_found"
        assert site.gateway.is_ready()
        assert "extra" not in await site.models("b")
        assert '"extra-0"' not in await site.seen("/admin/v1/replicas")
        assert engine.orders == [], "it still runs something"
        engine.release.set()
        assert (await stream).body.endswith(b"data: [DONE]\n\n")
        await eventually(lambda: engine.stopped is not from_file, "its memory is free, where it is ours")
        site.gateway.dispatcher.sweep()
        assert len(list(site.gateway.dispatcher.all_groups())) == 2
        assert engine.cut == 0


async def test_an_engine_of_a_pool_that_comes_back_starts_with_the_settings_of_then(tmp_path: Path) -> None:
    async with site_in(tmp_path, from_file=False) as site:
        engine = site.bench.engines["alone-0"]
        assert (await site.apply(without_alone(site.fleet))).status == 200
        await eventually(lambda: engine.stopped)
        assert (await site.bench.chat("c")()).status == 401
        base = replace(site.fleet.base_models["base"], max_loras=1)
        assert (
            await site.apply(replace(site.fleet, base_models={"base": base}), "restart=true")
        ).status == 200
        await eventually(lambda: site.gateway.dispatcher.replicas["alone-0"].ready, "it is back")
        assert engine.orders == ["stop", "start"]
        assert engine.declared is not None and engine.declared.max_loras == 1
        restarts = site.gateway.restarts
        await eventually(lambda: restarts.of("shared").ended_s is not None, "the end of the restart")
        await eventually(lambda: site.gateway.dispatcher.replicas["shared-0"].engine.slots == 1)
        for _ in range(500):
            if (await site.bench.chat("c")()).status == 200:  # its adapter is prepared anew
                break
            await asyncio.sleep(0.01)
        assert (await site.bench.chat("c")()).status == 200


async def test_a_pool_does_not_come_back_with_other_weights_than_its_engine_has(tmp_path: Path) -> None:
    async with site_in(tmp_path, from_file=False, fleet=with_extra(fleet_in(tmp_path))) as site:
        assert (await site.apply(site.fleet)).status == 200
        other = await site.apply(with_extra(site.fleet, source="/models/newer"))
        assert other.status == 409
        assert (
            "replica extra-0 was started with other base models, weights or devices"
            in other.json()["reasons"][0]
        )
        assert (await site.apply(with_extra(site.fleet))).status == 200
        await eventually(lambda: site.gateway.dispatcher.replicas["extra-0"].ready)
        assert (await site.bench.chat("b", model="extra")()).status == 200


@pytest.mark.parametrize("from_file", [True, False])
async def test_pools_that_were_applied_count_after_a_restart(tmp_path: Path, from_file: bool) -> None:
    async with site_in(tmp_path, from_file=from_file) as site:
        assert (await site.apply(without_alone(site.fleet))).status == 200
        if from_file:
            assert (await site.apply(with_extra(without_alone(site.fleet)))).status == 200
    async with site_in(tmp_path, from_file=from_file) as site:
        assert {pool for pool, _ in site.gateway.dispatcher.groups} == (
            {"shared", "extra"} if from_file else {"shared"}
        )
        assert (await site.bench.chat("b", model="extra")()).status == (200 if from_file else 404)
        alone = site.bench.engines["alone-0"]
        await eventually(lambda: alone.stopped is not from_file, "it started with the service for nobody")


# -- rollouts and trials -----------------------------------------------------------------------------------


async def test_a_rollout_rests_while_no_pool_serves_it_and_that_is_told(tmp_path: Path) -> None:
    whole = with_extra(fleet_in(tmp_path))
    async with site_in(tmp_path, from_file=False, fleet=whole) as site:
        key = AdapterKey("c", "own")
        entry = replace(
            entry_of("own", tenant="c", versions=[version_of(key, 1), version_of(key, 2)]),
            rollout=Rollout(2, RolloutPlan()),
        )
        site.gateway.directory.put(entry)
        site.gateway.lifecycle.engines.mark_changed()
        await eventually(lambda: len(site.bench.engines["alone-0"].desired["adapters"]) == 3)
        assert (await site.bench.chat("c", model="own")()).status == 200
        tenant = whole.tenants["c"]
        plain = replace(tenant, models={"extra": "extra"}, default_model=None, isolation=Isolation.SHARED)
        after = without_alone(whole)
        extra = replace(after.pools["extra"], tenants=("b", "c"))
        after = replace(after, tenants=after.tenants | {"c": plain}, pools=after.pools | {"extra": extra})
        applied = await site.apply(after)
        assert applied.status == 200, applied.body
        assert applied.json()["consequences"] == [
            "tenant c: its adapter own answers nothing: no pool of the tenant has base model base any more"
        ]
        assert (await site.bench.chat("c", model="own")()).status == 404
        assert site.gateway.directory.adapter(key) == entry, "it is kept as it is"
        assert (await site.apply(whole)).status == 200
        await eventually(lambda: site.gateway.dispatcher.replicas["alone-0"].ready)
        assert (await site.bench.chat("c", model="own")()).status == 200, "and goes on"
        site.gateway.directory.remove(key)


@pytest.mark.parametrize("elsewhere", [True, False])
async def test_a_version_whose_pool_is_removed_is_tried_elsewhere_or_says_why_it_is_not(
    tmp_path: Path, elsewhere: bool
) -> None:
    fleet, key = fleet_in(tmp_path), AdapterKey("c", "own")

    def stop(engine: FakeEngine) -> None:
        engine.ready = engine.name != "alone-0"

    async with house_of(fleet, tmp_path, prepare=stop, wait=False) as house:
        await eventually(lambda: house.lifecycle.is_reconciled)
        await house.add(7, key=key)
        await eventually(lambda: house.state(1, key) is VersionState.VERIFYING)
        await asyncio.sleep(0.05)
        shared: Any = fleet.pools["shared"]
        kept = replace(shared, tenants=("a", "b", "c") if elsewhere else ("a", "b"))
        tenants = {name: replace(fleet.tenants[name], models={}, default_model=None) for name in "abc"}
        house.bench.gateway.fleet.replace(
            replace(fleet, tenants=tenants, adapters={}, pools={"shared": kept})
        )
        wanted = VersionState.READY if elsewhere else VersionState.QUARANTINED
        await house.until(wanted, 1, key)
        version = house.entry(key).version(1)
        assert version is not None
        assert ("no pool serves base model `base`" in version.reason) is not elsewhere

"""Engines get new settings by `apply` with a rolling restart, while requests come. The engines are fake."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet.writer import write_fleet
from routing.lifecycle import restarts as restarts_module
from routing.lifecycle.ports import RestartState
from tests.fakes import Client, FakeEngine, eventually, key_of
from tests.integration.test_fleets import Data, Site, changed, site_in
from tests.integration.test_lifecycle import fleet_in

RESTART = "restart=true"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarts_module, "POLL_S", 0.005)


@contextlib.asynccontextmanager
async def serving_with(folder: Path, *, replicas: int = 2) -> AsyncIterator[Site]:
    """A gateway with this number of shared replicas, each of two slots."""
    file = folder / "fleet.yaml"
    if not file.exists():
        fleet = fleet_in(folder)
        shared = replace(fleet.pools["shared"], replicas=replicas)
        file.write_text(write_fleet(replace(fleet, pools=fleet.pools | {"shared": shared}), key_variables={}))
    async with site_in(folder) as site:
        yield site


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Site]:
    async with serving_with(tmp_path) as site:
        yield site


def setting(**values: Any) -> Callable[[Data], None]:
    """Give the base model other settings."""
    return lambda data: data["base_models"]["base"].update(values)


def slots(site: Site) -> dict[str, int]:
    """What the scheduler counts by."""
    return {name: replica.engine.slots for name, replica in site.bench.gateway.dispatcher.replicas.items()}


async def shown(site: Site) -> dict[str, bool]:
    """Which engines run with other settings than the fleet has, as operators see it."""
    answer = (await site.bench.get("/admin/v1/replicas", key=key_of("operator"))()).json()
    return {replica["name"]: replica["outdated"] for replica in answer["data"]}


async def ended(site: Site, pool: str = "shared") -> dict[str, Any]:
    """Wait for the end of a pool's restart; gives it as operators see it."""
    restarts = site.bench.gateway.restarts
    await eventually(lambda: restarts.of(pool).state is not RestartState.RUNNING, "the end of the restart")
    path = f"/admin/v1/pools/{pool}/restart"
    return dict((await site.bench.get(path, key=key_of("operator"))()).json())


def states(restart: dict[str, Any]) -> list[str]:
    return [step["state"] for step in restart["replicas"]]


async def restart(site: Site, pool: str = "shared") -> Client:
    """Restart a pool as an operator."""
    headers = [("authorization", f"Bearer {key_of('operator')}")]
    return await Client(site.bench.gateway.app, f"/admin/v1/pools/{pool}/restart", headers=headers)()


async def eventually_told(site: Site, words: str) -> None:
    """Wait until an event says so."""
    events = ""
    for _ in range(500):
        events = (await site.bench.get("/admin/v1/events", key=key_of("operator"))()).body.decode()
        if words in events:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"no event says {words!r}: {events}")


class Watched:
    """An engine's behaviour that takes a moment, and sees whether more adapters run than it has slots."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.most = engine, 0
        self.running: list[str] = []
        self.is_over = False

    async def __call__(self, body: dict[str, Any], send: Any) -> None:
        self.running.append(body["model"])
        adapters = {model for model in self.running if "@" in model}
        assert self.engine.declared is not None
        self.is_over = self.is_over or len(adapters) > self.engine.declared.max_loras
        await asyncio.sleep(0.005)
        await self.engine.answer(body, send)
        self.running.remove(body["model"])


# -- refused -----------------------------------------------------------------------------------------------


async def test_without_a_restart_it_is_refused_with_the_option_that_it_needs(pair: Site) -> None:
    text = changed(pair, setting(max_loras=4, max_num_seqs=3))
    refused = await pair.apply(text)
    assert (refused.status, refused.error["code"]) == (409, "fleet_refused")
    why = "this needs a restart of its engines, one after the other: apply with --restart (?restart=true)"
    assert refused.json()["reasons"] == [
        f"base model base: max_num_seqs 8 -> 3: {why}",
        f"base model base: max_loras 2 -> 4: {why}",
    ]
    dry = (await pair.apply(text, f"dry_run=true&{RESTART}")).json()
    assert (dry["applied"], dry["reasons"], dry["restarts"]) == (False, [], ["shared", "alone"])
    assert {change["needs"] for change in dry["changes"]} == {"engines"}
    assert (await pair.shown())["revision"] == 0
    assert all(engine.orders == [] for engine in pair.bench.engines.values())


async def test_other_weights_are_refused_with_it_too(pair: Site) -> None:
    refused = await pair.apply(changed(pair, setting(source="/models/other", max_loras=4)), RESTART)
    assert refused.status == 409
    assert refused.json()["reasons"] == [
        "base model base: source changed: this needs a restart of the service"
    ]


@pytest.mark.parametrize("values", [{"max_loras": -1}, {"vllm_args": ["--api-key", "x"]}, {"dtype": "int4"}])
async def test_wrong_settings_are_refused_before_anything_restarts(pair: Site, values: Data) -> None:
    refused = await pair.apply(changed(pair, setting(**values)), RESTART)
    assert (refused.status, refused.error["code"]) == (400, "fleet_invalid")
    assert all(engine.orders == [] for engine in pair.bench.engines.values())


async def test_an_adapter_that_would_fit_no_more_is_named(pair: Site) -> None:
    refused = await pair.apply(changed(pair, setting(max_lora_rank=1)), RESTART)
    assert refused.status == 409
    assert len(refused.json()["reasons"]) == 4
    assert all(
        "it has rank 8, and max_lora_rank of `base` would be 1" in r for r in refused.json()["reasons"]
    )


async def test_while_a_pool_restarts_it_is_refused_with_who_began_that(pair: Site) -> None:
    back = asyncio.Event()

    async def come_back_later(_: str) -> None:
        pair.bench.engines["shared-0"].ready = False
        await back.wait()
        pair.bench.engines["shared-0"].come_back()

    pair.bench.engines["shared-0"].follow = come_back_later
    await restart(pair)
    text = changed(pair, setting(max_loras=4))
    refused = await pair.apply(text, RESTART)
    assert refused.status == 409
    assert "pool shared is being restarted, by key " in refused.json()["reasons"][0]
    back.set()
    await ended(pair)
    assert (await pair.apply(text, RESTART)).status == 200
    assert states(await ended(pair)) == ["done", "done"]
    await ended(pair, "alone")


# -- done --------------------------------------------------------------------------------------------------


async def test_pools_restart_one_after_the_other_and_no_request_fails(pair: Site) -> None:
    stop, answers = False, list[Client]()
    watched = {name: Watched(engine) for name, engine in pair.bench.engines.items()}
    for name, engine in pair.bench.engines.items():
        engine.behave = watched[name]

    async def keep_asking(tenant: str, **fields: Any) -> None:
        while not stop:
            answers.append(await pair.bench.chat(tenant, **fields)())

    models = [("a", "support"), ("a", "sales"), ("b", "support"), ("a", "plain"), ("c", "support")]
    clients = [asyncio.create_task(keep_asking(tenant, model=model)) for tenant, model in models]
    await eventually(lambda: len(answers) > 20)
    applied = (await pair.apply(changed(pair, setting(max_loras=1, max_num_seqs=3)), RESTART)).json()
    assert (applied["applied"], applied["restarts"]) == (True, ["shared", "alone"])
    seen = set()
    while pair.bench.gateway.restarts.of("alone").ended_s is None:
        seen.add(tuple(sorted(slots(pair).items())))
        await asyncio.sleep(0.001)
    before = len(answers)
    await eventually(lambda: len(answers) > before + 20)
    stop = True
    await asyncio.gather(*clients)
    assert states(await ended(pair)) == ["done", "done"] and states(await ended(pair, "alone")) == ["done"]
    assert {client.status for client in answers} == {200}
    assert not any(engine.is_over for engine in watched.values()), "never more adapters than slots"
    assert seen >= {
        (("alone-0", 2), ("shared-0", 1), ("shared-1", 2)),
        (("alone-0", 2), ("shared-0", 1), ("shared-1", 1)),
    }, "each counts by what it runs"
    models_of = {engine.declared for engine in pair.bench.engines.values()}
    assert models_of == {pair.bench.gateway.fleet.now.base_models["base"]}
    figures = [replica.engine for replica in pair.bench.gateway.dispatcher.replicas.values()]
    assert {(engine.slots, engine.max_sequences) for engine in figures} == {(1, 3)}
    assert set((await shown(pair)).values()) == {False}


async def test_requests_are_held_where_a_pool_has_one_replica(tmp_path: Path) -> None:
    async with serving_with(tmp_path, replicas=1) as site:
        engine, back = site.bench.engines["shared-0"], asyncio.Event()

        async def come_back_later(_: str) -> None:
            engine.ready = False
            await back.wait()
            engine.come_back()

        engine.follow = come_back_later
        assert (await site.apply(changed(site, setting(max_model_len=64)), RESTART)).status == 200
        await eventually(lambda: not engine.ready)
        waiting = [asyncio.create_task(site.bench.chat(tenant)()) for tenant in ("a", "b")]
        await eventually(lambda: site.bench.gateway.dispatcher.queued() != {})
        assert site.bench.gateway.is_ready()
        back.set()
        assert [(await client).status for client in waiting] == [200, 200]
        await ended(site)


async def test_a_change_that_engines_do_not_notice_restarts_none(pair: Site) -> None:
    media = changed(pair, setting(media_tokens={"image": 5}))
    applied = (await pair.apply(media, RESTART)).json()
    assert (applied["applied"], applied["restarts"]) == (True, [])
    assert all(engine.orders == [] for engine in pair.bench.engines.values())


# -- where it goes wrong -----------------------------------------------------------------------------------


async def test_it_ends_at_the_first_engine_that_does_not_start_and_the_old_file_takes_it_back(
    pair: Site,
) -> None:
    old = pair.file.read_text()
    engine = pair.bench.engines["shared-0"]

    async def start(_: str) -> None:
        engine.ready = False
        wanted = engine.next_declared or engine.declared
        assert wanted is not None
        if wanted.gpu_memory_utilization:
            engine.fail("No available memory for the cache blocks")
        else:
            engine.come_back()

    engine.follow = start
    assert (await pair.apply(changed(pair, setting(gpu_memory_utilization=0.1)), RESTART)).status == 200
    failed = await ended(pair)
    assert (failed["state"], states(failed)) == ("failed", ["failed", "waiting"])
    assert "No available memory" in failed["replicas"][0]["reason"]
    assert (await ended(pair, "alone"))["state"] == "cancelled"
    await eventually_told(pair, "not restarted: pool shared has not come through")
    assert (await pair.bench.chat("a")()).status == 200, "the others go on with the old settings"
    assert await shown(pair) == {"shared-0": False, "shared-1": True, "alone-0": True}
    assert (await pair.apply(old)).status == 409, "not silently"
    assert (await pair.apply(old, RESTART)).json()["restarts"] == ["shared"]
    back = await ended(pair)
    assert (back["state"], states(back)) == ("done", ["done", "kept"])
    assert pair.bench.engines["shared-1"].orders == pair.bench.engines["alone-0"].orders == []
    assert await shown(pair) == {"shared-0": False, "shared-1": False, "alone-0": False}


async def test_a_host_that_keeps_its_settings_is_told_from_one_that_takes_new_ones(pair: Site) -> None:
    engine = pair.bench.engines["shared-0"]

    async def ignore(_: str) -> None:
        engine.next_declared = None
        engine.come_back()

    engine.follow = ignore
    await pair.apply(changed(pair, setting(max_loras=4)), RESTART)
    failed = await ended(pair)
    assert states(failed) == ["failed", "waiting"]
    assert "has not taken the new settings" in failed["replicas"][0]["reason"]
    assert slots(pair)["shared-0"] == 2


async def test_after_a_gateway_that_died_before_the_restart_it_is_seen_and_done_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving_with(tmp_path) as site:
        with monkeypatch.context() as patched:
            patched.setattr(restarts_module.RollingRestarts, "renew", lambda *_: None)
            text = changed(site, setting(max_loras=4))
            assert (await site.apply(text, RESTART)).status == 200
        assert all(engine.orders == [] for engine in site.bench.engines.values())
    async with serving_with(tmp_path) as site:
        assert (await site.shown())["revision"] == 1
        assert site.bench.gateway.fleet.now.base_models["base"].max_loras == 4
        assert slots(site) == {"shared-0": 2, "shared-1": 2, "alone-0": 2}
        assert set((await shown(site)).values()) == {True}
        page = (await site.bench.get("/metrics", key=key_of("operator"))()).body.decode()
        assert 'tenantry_replica_outdated{pool="shared",replica="shared-0"} 1' in page
        assert (await restart(site)).status == 202
        assert states(await ended(site)) == ["done", "done"]
        assert await shown(site) == {"shared-0": False, "shared-1": False, "alone-0": True}
        assert slots(site) == {"shared-0": 4, "shared-1": 4, "alone-0": 2}
        again = (await site.apply(text, RESTART)).json()
        assert (again["applied"], again["changes"], again["restarts"]) == (False, [], ["alone"])
        assert states(await ended(site, "alone")) == ["done"]


async def test_a_host_that_starts_anew_with_its_own_file_is_seen(pair: Site) -> None:
    await pair.apply(changed(pair, setting(max_loras=4)), RESTART)
    await ended(pair)
    await ended(pair, "alone")
    engine = pair.bench.engines["shared-0"]
    assert engine.declared is not None
    engine.die("its machine was restarted")
    replica = pair.bench.gateway.dispatcher.replicas["shared-0"]
    await eventually(lambda: not replica.ready and not replica.engine.settings, "what comes may have others")
    engine.next_declared = replace(engine.declared, max_loras=2)
    engine.come_back()
    await eventually(lambda: pair.bench.gateway.dispatcher.replicas["shared-0"].ready)
    assert await shown(pair) == {"shared-0": True, "shared-1": False, "alone-0": False}
    assert slots(pair)["shared-0"] == 2

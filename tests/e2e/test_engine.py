"""One real engine, spoken to as the gateway does: adapters are told, tried, loaded, put out, pinned, removed.

Four slots, sixteen places in host memory, 64 adapters that all answer differently. In this order.
TENANTRY_TRAFFIC_S sets how long the random traffic goes on, seconds.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
from safetensors.numpy import load_file, save_file

from adapters.layout import CONFIG_FILE, WEIGHTS_FILE
from benchmarks.adapters import (
    Answer,
    EngineClient,
    differs,
    drive,
    folder_in,
    make_adapters,
    named,
    references,
)
from engines import protocol
from engines.residency import EngineAdapter, FaultKind, Residency
from engines.secrets import internal_token
from tests.e2e.serving import Service, serving

pytestmark = pytest.mark.engine

SECRET = "secret of the tests"
SLOTS, PLACES = 4, 16
TRAFFIC_S = float(os.environ.get("TENANTRY_TRAFFIC_S", "10"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One replica of the demo fleet, alone."""
    folder = tmp_path_factory.mktemp("engine")
    with serving(
        "service:Gateway", folder, "--arg", "replica=shared-0", env={"TENANTRY_SECRET": SECRET}
    ) as service:
        yield service


@pytest.fixture(scope="module")
def store(service: Service) -> Path:
    """Where the gateway of this machine would have its adapters."""
    return service.log.parent / "state/adapters"


@pytest.fixture(scope="module")
def adapters(store: Path) -> list[EngineAdapter]:
    """All answer differently."""
    return make_adapters(store, 64)


@pytest.fixture(scope="module")
def known() -> dict[str, Answer]:
    """What each adapter answers alone; filled by the first test that asks."""
    return {}


@pytest_asyncio.fixture
async def engine(service: Service) -> AsyncIterator[EngineClient]:
    """A client of the engine."""
    client = EngineClient(service.url, internal_token(SECRET.encode()))
    yield client
    await client.close()


async def until(
    engine: EngineClient, condition: Callable[[Residency], bool], what: str, *, within_s: float = 15.0
) -> Residency:
    """Poll the engine's residency until the condition holds. Raises `AssertionError`."""
    end_s = time.monotonic() + within_s
    while True:
        residency = await engine.residency()
        if condition(residency):
            return residency
        assert time.monotonic() < end_s, f"{what}: not within {within_s:g} s; {residency}"
        await asyncio.sleep(0.1)


def ids(adapters: Sequence[EngineAdapter]) -> set[str]:
    """Their ids."""
    return {adapter.id for adapter in adapters}


def changed(
    store: Path, adapter: EngineAdapter, name: str, change: Callable[[str, Any], Any]
) -> EngineAdapter:
    """A copy of an adapter with every tensor changed."""
    made, source = named(f"bad/{name}@0"), folder_in(store, adapter)
    folder = folder_in(store, made)
    folder.mkdir(parents=True)
    weights = load_file(source / WEIGHTS_FILE)
    save_file({name: change(name, tensor) for name, tensor in weights.items()}, folder / WEIGHTS_FILE)
    shutil.copyfile(source / CONFIG_FILE, folder / CONFIG_FILE)
    return made


async def test_an_engine_that_was_told_nothing_serves_the_base_model_alone(
    engine: EngineClient, adapters: list[EngineAdapter]
) -> None:
    assert (await engine.residency()).revision == 0
    assert (await engine.ask(None))[0]
    refused = await engine.post(adapters[0].id)
    assert refused.status_code == 503
    assert refused.headers[protocol.FAULT_HEADER] == protocol.FAULT_ENGINE


async def test_the_most_wanted_adapters_are_loaded_before_anybody_asks(
    engine: EngineClient, adapters: list[EngineAdapter]
) -> None:
    told = await engine.tell(adapters)
    assert told.revision == 1
    residency = await until(engine, lambda r: len(r.host) == PLACES, "sixteen adapters in host memory")
    assert set(residency.host) == ids(adapters[:PLACES])
    residency = await until(engine, lambda r: len(r.slots) == SLOTS, "four in slots")
    assert set(residency.slots) <= set(residency.host)
    assert (residency.draining, residency.faults) == ((), ())


async def test_a_trained_adapter_passes_its_trial_and_broken_ones_fail_and_harm_nobody(
    engine: EngineClient, store: Path, adapters: list[EngineAdapter]
) -> None:
    before = await engine.ask(adapters[0].id)
    untrained = changed(
        store, adapters[0], "untrained", lambda name, t: np.zeros_like(t) if "lora_B" in name else t
    )
    exploding = changed(store, adapters[0], "exploding", lambda _, t: np.full_like(t, 1e38))
    too_large = changed(
        store,
        adapters[0],
        "large",
        lambda name, t: np.tile(t, (4, 1) if "lora_A" in name else (1, 4)),
    )
    config = folder_in(store, too_large) / CONFIG_FILE
    config.write_text(config.read_text().replace('"r": 8', '"r": 32'))
    emptied = changed(store, adapters[0], "emptied", lambda _, t: t)
    (folder_in(store, emptied) / WEIGHTS_FILE).write_bytes(b"")
    missing = named("bad/missing@0")
    await engine.tell([*adapters, untrained, exploding, too_large, emptied, missing])

    report = await engine.trial(adapters[40].id)
    assert report.passed and report.difference > 0.1 and 0 < report.load_s < 5
    report = await engine.trial(untrained.id)
    assert not report.passed and "answers like the base model" in report.reason
    report = await engine.trial(exploding.id)
    assert not report.passed and "not finite" in report.reason
    report = await engine.trial(too_large.id)
    assert not report.passed and "rank" in report.reason
    reports = [report, await engine.trial(emptied.id)]
    assert not reports[-1].passed and "register it again" in reports[-1].reason
    assert not any(str(store) in report.reason for report in reports), "no path for tenants to see"
    refused = await engine.post(missing.id)
    assert refused.headers[protocol.FAULT_HEADER] == protocol.FAULT_ENGINE, "it is not at fault"

    faults = dict((await engine.residency()).faults)
    assert faults[emptied.id].kind is FaultKind.LOAD and too_large.id in faults
    assert missing.id not in faults
    assert not differs(await engine.ask(adapters[0].id), before), "as before the broken ones ran"
    await engine.tell(adapters)
    residency = await until(engine, lambda r: not r.draining, "removal of the broken ones")
    assert not residency.faults, "forgotten with the adapter"


async def test_an_adapter_that_was_put_out_is_loaded_again_and_answers_as_before(
    engine: EngineClient, adapters: list[EngineAdapter], known: dict[str, Answer]
) -> None:
    known |= await references(engine, adapters)  # in order, so that the last sixteen stay
    residency = await until(
        engine,
        lambda r: set(r.host) == ids(adapters[-PLACES:]) and set(r.slots) == ids(adapters[-SLOTS:]),
        "the last ones in host memory and slots",
    )
    assert residency.host[-1] == adapters[-1].id, "used last, evicted last"
    assert adapters[0].id not in residency.host
    assert not differs(await engine.ask(adapters[0].id), known[adapters[0].id])
    page = await engine.metrics()
    assert 'tenantry_adapters_resident{tier="host"} 16.0' in page
    assert 'tenantry_adapter_load_seconds_count{tier="disk"}' in page
    assert "vllm:num_requests_running" in page
    assert "vllm:lora_requests_info" not in page, "a series for each set of adapters"
    evictions = [line for line in page.splitlines() if line.startswith("tenantry_adapter_evictions_total")]
    assert len(evictions) == 2 and all(float(line.split()[-1]) > 0 for line in evictions)


async def test_a_pinned_adapter_keeps_its_slot_through_more_traffic_than_there_are_slots(
    engine: EngineClient, adapters: list[EngineAdapter], known: dict[str, Answer]
) -> None:
    """vLLM alone would put an adapter of the running batch out of its slot here, and die of it."""
    pins = [replace(adapter, pinned=True) for adapter in adapters[:SLOTS]]
    await engine.tell([*pins, *adapters[SLOTS:]])
    residency = await until(engine, lambda r: len(r.pinned) == SLOTS - 1, "three pins")
    assert set(residency.pinned) == ids(pins[:-1])
    assert "not pinned" in dict(residency.faults)[pins[-1].id].reason, "one slot stays for all others"
    answers = await asyncio.gather(*(engine.ask(adapter.id) for adapter in adapters[10:30]))
    assert not any(differs(a, known[b.id]) for a, b in zip(answers, adapters[10:30], strict=True))
    residency = await until(engine, lambda r: adapters[29].id in r.host, "the traffic's traces")
    assert set(residency.slots) > ids(pins[:-1])
    await engine.tell(adapters)
    await until(engine, lambda r: not r.pinned, "all pins gone")
    await asyncio.gather(*(engine.ask(adapter.id) for adapter in adapters[10:30]))
    await until(engine, lambda r: not set(r.slots) & ids(pins), "their slots taken by others")


async def test_a_pin_waits_for_a_running_batch_that_fills_every_slot(
    engine: EngineClient, adapters: list[EngineAdapter]
) -> None:
    async def watch(adapter: EngineAdapter) -> int:
        async with engine.stream(adapter.id, 120) as times:
            return sum([1 async for _ in times])

    running = [asyncio.create_task(watch(adapter)) for adapter in adapters[:SLOTS]]
    await until(engine, lambda r: set(r.slots) == ids(adapters[:SLOTS]), "four running adapters")
    await engine.tell([replace(adapters[20], pinned=True), *adapters[:20], *adapters[21:]])
    assert min(await asyncio.gather(*running)) >= 120
    await until(engine, lambda r: r.pinned == (adapters[20].id,), "the pin, once there is a slot")
    await engine.tell(adapters)
    await until(engine, lambda r: not r.pinned, "the pin gone")


async def test_a_removed_adapter_ends_its_running_request_first_and_is_then_gone(
    engine: EngineClient, adapters: list[EngineAdapter], known: dict[str, Answer]
) -> None:
    leaving, rest = adapters[5], [*adapters[:5], *adapters[6:]]
    async with engine.stream(leaving.id, 200) as times:
        await anext(times)
        await engine.tell(rest)
        residency = await engine.residency()
        assert residency.draining == (leaving.id,) and leaving.id in residency.host
        assert (await engine.post(leaving.id)).status_code == 503, "nothing new"
        assert not differs(await engine.ask(adapters[6].id), known[adapters[6].id])
        assert sum([1 async for _ in times]) >= 199, "the stream was cut"
    residency = await until(engine, lambda r: not r.draining, "the removal", within_s=5)
    assert leaving.id not in {*residency.host, *residency.slots}


async def test_an_adapter_wanted_again_while_it_drains_stays(
    engine: EngineClient, adapters: list[EngineAdapter], known: dict[str, Answer]
) -> None:
    await engine.tell(adapters)
    async with engine.stream(adapters[7].id, 150) as times:
        await anext(times)
        await engine.tell(adapters[8:])
        assert adapters[7].id in (await engine.residency()).draining
        await engine.tell(adapters)
        assert not differs(await engine.ask(adapters[7].id), known[adapters[7].id])
        assert sum([1 async for _ in times]) >= 149
    assert adapters[7].id in (await engine.residency()).host


async def test_a_client_that_leaves_lets_its_adapter_go(
    engine: EngineClient, adapters: list[EngineAdapter]
) -> None:
    async with engine.stream(adapters[9].id, 450) as times:
        await anext(times)
    await engine.tell([*adapters[:9], *adapters[10:]])
    await until(engine, lambda r: not r.draining, "the removal", within_s=3)
    await engine.tell(adapters)


async def test_what_makes_no_sense_is_refused_and_changes_nothing(
    engine: EngineClient, service: Service, adapters: list[EngineAdapter]
) -> None:
    before = (await engine.residency()).revision
    url, token = service.url + protocol.ADAPTERS_PATH, internal_token(SECRET.encode())
    twice = [{"id": "a", "digest": "a" * 64, "pinned": False, "size_bytes": 1}] * 2
    async with httpx.AsyncClient(headers={protocol.TOKEN_HEADER: token}) as client:
        for body in (b"", b"[]", b"{}", b"[" * 100_000, b'{"revision":1,"adapters":[{"id":"a"}]}'):
            assert (await client.put(url, content=body)).status_code == 400
        assert (await client.put(url, json={"revision": 9, "adapters": twice})).status_code == 400
        assert (await client.put(url, content=b" " * (8 * 2**20 + 1))).status_code == 413
        assert (await client.delete(url)).status_code == 405
        unknown = await client.post(service.url + protocol.TRIAL_PATH, json={"id": "nobody"})
        assert unknown.status_code == 503
    async with httpx.AsyncClient() as stranger:
        assert (await stranger.get(url)).status_code == 401
    assert (await engine.residency()).revision == before


async def test_random_traffic_over_all_adapters_is_answered_by_the_right_ones(
    engine: EngineClient, known: dict[str, Answer]
) -> None:
    result = await drive(engine, known, seconds=TRAFFIC_S, at_once=8, seed=random.randrange(10**6))
    assert not result.errors, result.errors[:5]
    assert not result.wrong, result.wrong[:5]
    assert result.cold_s and result.warm_s, "both kinds came up"


async def test_a_killed_engine_comes_back_with_all_it_should_have(
    engine: EngineClient, service: Service, adapters: list[EngineAdapter], known: dict[str, Answer]
) -> None:
    wanted = [replace(adapters[30], pinned=True), *adapters[:30], *adapters[31:]]
    await engine.tell(wanted)
    before = await until(engine, lambda r: r.pinned == (adapters[30].id,), "the pin")
    service.engine_cores()[0].kill()
    down = await until(engine, lambda r: not r.host, "an honest word while it is down")
    assert (down.worker, down.slots, down.pinned) == (before.worker, (), ())
    assert down.revision == before.revision
    assert (await engine.post(adapters[0].id)).headers[protocol.FAULT_HEADER] == protocol.FAULT_ENGINE
    back = await until(
        engine, lambda r: len(r.host) == PLACES and bool(r.pinned), "everything back", within_s=180
    )
    assert (back.worker, back.engine_starts) == (before.worker, before.engine_starts + 1)
    assert set(back.host) == ids(wanted[:PLACES])
    assert not differs(await engine.ask(adapters[30].id), known[adapters[30].id])

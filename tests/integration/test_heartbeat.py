"""A stream that has nothing to say yet: a comment keeps its connection, and counts as nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet.types import Caps, Fleet
from routing.flights.heartbeat import COMMENT
from tests.fakes import Client, FakeEngine, eventually, small_fleet
from tests.integration.conftest import Bench, bench_of

EVERY_S = 0.02


def beating(fleet: Fleet) -> Fleet:
    return replace(fleet, gateway=replace(fleet.gateway, heartbeat_s=EVERY_S))


@pytest.fixture(name="bench")
async def bench_fixture(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench_of(beating(small_fleet(replicas=2)), tmp_path) as bench:
        yield bench


def shared(bench: Bench) -> list[FakeEngine]:
    return [engine for engine in bench.engines.values() if engine.name.startswith("shared")]


def hold(bench: Bench) -> None:
    for engine in shared(bench):
        engine.behave = engine.hold


async def until_beats(client: Client, number: int = 2) -> None:
    await eventually(lambda: client.body.count(COMMENT) >= number, f"{number} comments")


async def test_a_stream_that_is_silent_gets_comments_between_whole_events(bench: Bench) -> None:
    hold(bench)
    client = bench.chat("a", stream=True).start()
    await until_beats(client)
    assert (client.status, client.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert client.headers["x-tenantry-model"] == "support"
    for engine in shared(bench):
        engine.release.set()
    await client.done()
    events = [event for event in client.body.split(b"\n\n") if event and not event.startswith(b":")]
    assert all(event.startswith(b"data: ") for event in events) and events[-1] == b"data: [DONE]"
    assert bench.outcomes() == {("completed", ""): 1}


async def test_a_whole_answer_gets_none(bench: Bench) -> None:
    hold(bench)
    client = bench.chat("a").start()
    await eventually(lambda: any(engine.running for engine in shared(bench)), "the request")
    await asyncio.sleep(3 * EVERY_S)
    assert (client.status, client.body) == (0, b"")
    for engine in shared(bench):
        engine.release.set()
    await client.done()
    assert client.status == 200 and client.json()["model"] == "support"


async def test_nothing_is_sent_where_it_is_not_wanted(tmp_path: Path) -> None:
    async with bench_of(small_fleet(), tmp_path) as bench:
        hold(bench)
        client = bench.chat("a", stream=True).start()
        await eventually(lambda: any(engine.running for engine in shared(bench)), "the request")
        await asyncio.sleep(3 * EVERY_S)
        assert client.status == 0
        bench.engines["shared-0"].release.set()
        await client.done()
        assert COMMENT not in client.body


async def test_another_replica_may_still_be_asked(bench: Bench) -> None:
    hold(bench)
    client = bench.chat("a", stream=True).start()
    await until_beats(client)
    broken = next(engine for engine in shared(bench) if engine.running)
    for engine in shared(bench):
        if engine is not broken:
            engine.behave = engine.answer
    await bench.kill(broken.name)
    await client.done()
    assert b"data: [DONE]" in client.body and b"error" not in client.body
    assert bench.outcomes() == {("completed", ""): 1}


@pytest.mark.parametrize(
    ("behave", "code"), [("break_down", "engine_failed"), ("refuse_request", "invalid_request")]
)
async def test_what_goes_wrong_then_comes_as_an_event(bench: Bench, behave: str, code: str) -> None:
    async def later(body: dict[str, Any], send: Any, engine: FakeEngine) -> None:
        await until_beats(client)
        await getattr(engine, behave)(body, send)

    for engine in shared(bench):
        engine.behave = lambda body, send, engine=engine: later(body, send, engine)  # type: ignore[misc]
    client = bench.chat("a", stream=True)
    await client()
    assert client.status == 200 and client.ended
    last = client.body.split(b"\n\n")[-2]
    assert last.startswith(b'data: {"error":') and code.encode() in last


async def test_one_that_waits_too_long_is_told_in_an_event(tmp_path: Path) -> None:
    fleet = beating(small_fleet(max_num_seqs=1, caps=Caps(queue_timeout_s=0.2)))
    async with bench_of(fleet, tmp_path) as bench:
        hold(bench)
        first = bench.chat("a").start()
        await eventually(lambda: bench.engines["shared-0"].running == 1, "a full engine")
        second = await bench.chat("a", stream=True)()
        assert second.status == 200 and b"queue_timeout" in second.body and COMMENT in second.body
        bench.engines["shared-0"].release.set()
        await first.done()
        assert bench.outcomes()[("expired", "queue_timeout")] == 1


async def test_the_first_byte_is_the_answers_own(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    hold(bench)
    client = bench.chat("a", stream=True).start()
    await until_beats(client, 3)
    for engine in shared(bench):
        engine.release.set()
    await client.done()
    bench.gateway.ended.flush()
    page = bench.gateway.metrics.page().decode()
    (sum_,) = [
        float(line.rpartition(" ")[2])
        for line in page.splitlines()
        if line.startswith("tenantry_time_to_first_token_seconds_sum{")
    ]
    assert sum_ >= 3 * EVERY_S


@pytest.mark.parametrize("engine_is", ["silent", "queued"])
async def test_a_client_that_leaves_meanwhile_leaves_nothing_behind(tmp_path: Path, engine_is: str) -> None:
    async with bench_of(beating(small_fleet(max_num_seqs=1)), tmp_path) as bench:
        hold(bench)
        others = [bench.chat("a").start()] if engine_is == "queued" else []
        if others:
            await eventually(lambda: bench.engines["shared-0"].running == 1, "a full engine")
        client = bench.chat("a", stream=True).start()
        await until_beats(client)
        client.leave()
        await client.done()
        bench.engines["shared-0"].release.set()
        for other in others:
            await other.done()
        assert bench.outcomes()[("cancelled", "client_gone")] == 1
        assert not [task for task in asyncio.all_tasks() if "_beat" in repr(task) and not task.cancelling()]


async def test_a_client_that_takes_nothing_is_told_nothing_twice(bench: Bench) -> None:
    hold(bench)
    client = bench.chat("a", stream=True)
    client.reading.clear()
    client.start()
    await eventually(lambda: any(engine.running for engine in shared(bench)), "the request")
    await asyncio.sleep(3 * EVERY_S)
    for engine in shared(bench):
        engine.release.set()
    await asyncio.sleep(EVERY_S)
    client.reading.set()
    await client.done()
    assert client.body.endswith(b"data: [DONE]\n\n") and client.body.count(COMMENT) <= 1

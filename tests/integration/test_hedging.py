"""When is a second replica asked too, and who wins? The engines are fake, the sockets are real."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from fleet.types import Fleet, GatewaySettings
from tests.fakes import FakeEngine, Send, begin_stream, eventually, small_fleet
from tests.integration.conftest import Bench, bench_of

HEDGE_AFTER_S = 0.03
Behaviour = Callable[[dict[str, Any], Send], Awaitable[None]]


@dataclass
class Duel:
    """A bench whose request is held by whoever is asked first, and by the second one too."""

    bench: Bench
    asked: list[FakeEngine] = field(default_factory=list)  # in order
    endings: dict[str, Behaviour] = field(default_factory=dict)  # by engine; else it answers

    @property
    def first(self) -> FakeEngine:
        return self.asked[0]

    @property
    def second(self) -> FakeEngine:
        return self.asked[1]

    def end(self, engine: FakeEngine, ending: Behaviour) -> None:
        """Let an engine that holds a request end it in that way."""
        self.endings[engine.name] = ending
        engine.release.set()

    async def both(self) -> None:
        """Wait until both are at it."""
        await eventually(lambda: len(self.asked) == 2, "the hedge")


def hedging(fleet: Fleet, hedge_after_s: float | None = HEDGE_AFTER_S) -> Fleet:
    """The fleet with hedging in its shared pool."""
    shared = replace(fleet.pools["shared"], hedge_after_s=hedge_after_s)
    return replace(fleet, pools={**fleet.pools, "shared": shared})


@contextlib.asynccontextmanager
async def duel_of(fleet: Fleet, folder: Path) -> AsyncIterator[Duel]:
    """A duel on that fleet."""
    async with bench_of(fleet, folder) as bench:
        duel = Duel(bench)

        def held_by(engine: FakeEngine) -> Behaviour:
            async def hold(body: dict[str, Any], send: Send) -> None:
                duel.asked.append(engine)
                await engine.release.wait()
                await duel.endings.get(engine.name, engine.answer)(body, send)

            return hold

        for engine in bench.engines.values():
            engine.behave = held_by(engine)
        yield duel


@pytest.fixture
async def duel(tmp_path: Path) -> AsyncIterator[Duel]:
    """Two replicas, and hedging."""
    settings = GatewaySettings(log_requests=True)
    async with duel_of(hedging(small_fleet(replicas=2, settings=settings)), tmp_path) as duel:
        yield duel


# -- who wins ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_the_second_replica_wins_and_the_slow_one_is_cancelled_at_once(
    duel: Duel, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tenantry.request")
    client = duel.bench.chat(model="support", stream=stream).start()
    await duel.both()
    duel.second.release.set()
    await client.done()
    assert client.status == 200
    assert client.headers["x-tenantry-replica"] == duel.second.name
    await eventually(lambda: duel.first.aborted == 1, "the abort of the slow one")
    assert duel.second.aborted == 0
    assert duel.bench.outcomes() == {("completed", ""): 1}
    record = duel.bench.logged(caplog)[-1]
    assert (record["hedged"], record["attempts"], record["replica"]) == (True, 2, duel.second.name)
    assert (record["prompt_tokens"], record["completion_tokens"]) == (7, 3), "the winner's alone"
    assert record["queue_s"] < HEDGE_AFTER_S, "it was granted a replica at once"


@pytest.mark.parametrize("stream", [False, True])
async def test_the_first_replica_wins_and_the_hedge_is_cancelled_at_once(duel: Duel, stream: bool) -> None:
    client = duel.bench.chat(model="support", stream=stream).start()
    await duel.both()
    duel.first.release.set()
    await client.done()
    assert client.status == 200
    assert client.headers["x-tenantry-replica"] == duel.first.name
    await eventually(lambda: duel.second.aborted == 1, "the abort of the hedge")
    assert duel.first.aborted == 0
    assert duel.bench.outcomes() == {("completed", ""): 1}


async def test_two_that_answer_at_once_give_one_answer(duel: Duel) -> None:
    clients = [duel.bench.chat(model=model, stream=True).start() for model in ("support", "sales")]
    await eventually(lambda: len(duel.asked) == 4)
    for engine in duel.bench.engines.values():
        engine.release.set()
    for client in clients:
        await client.done()
        assert client.body.count(b"data: [DONE]") == 1
    assert duel.bench.outcomes() == {("completed", ""): 2}


async def test_a_stream_that_has_begun_without_an_event_is_silent_too(duel: Duel) -> None:
    async def headers_only(body: dict[str, Any], send: Send) -> None:
        await begin_stream(send)
        await asyncio.Event().wait()

    duel.bench.engines["shared-0"].behave = headers_only
    duel.bench.engines["shared-1"].release.set()
    clients = [await duel.bench.chat(model=m, stream=True)() for m in ("support", "sales", "plain")]
    assert [client.status for client in clients] == [200, 200, 200]
    assert {client.headers["x-tenantry-replica"] for client in clients} == {"shared-1"}


# -- no hedge ----------------------------------------------------------------------------------------------


async def test_an_answer_that_has_begun_is_not_hedged(duel: Duel) -> None:
    for engine in duel.bench.engines.values():
        engine.behave = engine.hold_mid_stream
    client = duel.bench.chat(model="support", stream=True).start()
    await eventually(lambda: client.body != b"")
    await asyncio.sleep(4 * HEDGE_AFTER_S)
    assert sum(len(engine.seen) for engine in duel.bench.engines.values()) == 1
    for engine in duel.bench.engines.values():
        engine.release.set()
    await client.done()


@pytest.mark.parametrize(
    ("replicas", "hedge_after_s"), [(2, None), (1, HEDGE_AFTER_S)], ids=["not set", "one replica"]
)
async def test_no_second_replica_is_asked(tmp_path: Path, replicas: int, hedge_after_s: float | None) -> None:
    async with duel_of(hedging(small_fleet(replicas=replicas), hedge_after_s), tmp_path) as duel:
        client = duel.bench.chat(model="support").start()
        await eventually(lambda: len(duel.asked) == 1)
        await asyncio.sleep(4 * HEDGE_AFTER_S)
        assert len(duel.asked) == 1
        duel.first.release.set()
        assert (await client.done()).status == 200


async def test_a_hedge_waits_for_room_and_takes_it_from_nobody(tmp_path: Path) -> None:
    async with duel_of(hedging(small_fleet(replicas=2, max_num_seqs=1)), tmp_path) as duel:
        clients = [duel.bench.chat(model="support").start() for _ in range(2)]
        await eventually(lambda: len(duel.asked) == 2)
        await asyncio.sleep(4 * HEDGE_AFTER_S)
        assert len(duel.asked) == 2, "both replicas are full"
        duel.first.release.set()
        await eventually(lambda: len(duel.asked) == 3, "the hedge, once there is room")
        assert duel.asked[2] is duel.first
        for client in clients:
            assert (await client.done()).status == 200
        await eventually(lambda: duel.second.aborted == 1)


# -- somebody fails ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_where_the_first_replica_breaks_the_hedge_becomes_the_attempt(duel: Duel, stream: bool) -> None:
    client = duel.bench.chat(model="support", stream=stream).start()
    await duel.both()
    await duel.bench.kill(duel.first.name)
    await eventually(lambda: duel.first.running == 0)
    duel.second.release.set()
    await client.done()
    assert (client.status, client.headers["x-tenantry-replica"]) == (200, duel.second.name)
    assert len(duel.asked) == 2, "nobody is asked anew"
    assert duel.bench.outcomes() == {("completed", ""): 1}


async def test_where_the_hedge_breaks_the_first_replica_goes_on(duel: Duel) -> None:
    client = duel.bench.chat(model="support").start()
    await duel.both()
    duel.end(duel.second, duel.second.say_loading)
    await eventually(lambda: duel.second.running == 0)
    duel.first.release.set()
    await client.done()
    assert (client.status, client.headers["x-tenantry-replica"]) == (200, duel.first.name)
    assert duel.bench.outcomes() == {("completed", ""): 1}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["first, then hedge", "hedge, then first"])
async def test_where_both_break_the_client_waits_until_one_is_back(
    duel: Duel, order: tuple[int, int]
) -> None:
    client = duel.bench.chat(model="support").start()
    await duel.both()
    for place in order:
        engine = duel.asked[place]
        duel.end(engine, engine.say_loading)
        await eventually(lambda: engine.running == 0)  # noqa: B023  it is waited for at once
        engine.ready = False
    for engine in duel.asked:
        engine.behave = engine.answer
    duel.first.come_back()
    await client.done()
    assert (client.status, client.headers["x-tenantry-replica"]) == (200, duel.first.name)
    assert duel.bench.outcomes() == {("completed", ""): 1}


async def test_a_request_that_one_replica_finds_wrong_is_answered_at_once(duel: Duel) -> None:
    client = duel.bench.chat(model="support").start()
    await duel.both()
    duel.end(duel.second, duel.second.refuse_request)
    await client.done()
    assert (client.status, client.error["param"]) == (400, "max_tokens")
    await eventually(lambda: duel.first.aborted == 1)
    assert sum(duel.bench.outcomes().values()) == 1


async def test_where_one_replica_fails_on_the_request_the_others_answer_counts(duel: Duel) -> None:
    client = duel.bench.chat(model="support").start()
    await duel.both()
    duel.end(duel.first, duel.first.break_down)
    await eventually(lambda: duel.first.running == 0)
    duel.second.release.set()
    await client.done()
    assert (client.status, client.headers["x-tenantry-replica"]) == (200, duel.second.name)
    assert duel.bench.gateway.dispatcher.replicas[duel.first.name].ready, "one bad request is not its end"


@pytest.mark.parametrize("place", [0, 1], ids=["the first", "the hedge"])
async def test_a_replica_that_hangs_is_left_to_the_other_one(duel: Duel, place: int) -> None:
    client = duel.bench.chat(model="support").start()
    await duel.both()
    hanging, other = duel.asked[place], duel.asked[1 - place]
    hanging.ready = False
    await eventually(lambda: hanging.aborted == 1, "the end of waiting for it")
    other.release.set()
    await client.done()
    assert (client.status, client.headers["x-tenantry-replica"]) == (200, other.name)
    assert len(duel.asked) == 2, "the other one is not asked anew"


# -- the request ends otherwise ----------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_stops_both(duel: Duel, stream: bool) -> None:
    client = duel.bench.chat(model="support", stream=stream).start()
    await duel.both()
    client.leave()
    await client.done()
    await eventually(lambda: duel.first.aborted == duel.second.aborted == 1, "both aborts")
    assert duel.bench.outcomes() == {("cancelled", "client_gone"): 1}


async def test_a_deadline_stops_both(tmp_path: Path) -> None:
    settings = GatewaySettings(request_timeout_s=0.3, log_requests=False)
    fleet = hedging(small_fleet(replicas=2, settings=settings))
    async with duel_of(fleet, tmp_path) as duel:
        client = await duel.bench.chat(model="support")()
        assert (client.status, client.error["code"]) == (504, "engine_timeout")
        await eventually(lambda: [engine.aborted for engine in duel.asked] == [1, 1], "both aborts")
        assert duel.bench.outcomes() == {("failed", "engine_timeout"): 1}


async def test_a_shutdown_stops_both(tmp_path: Path) -> None:
    settings = GatewaySettings(shutdown_grace_s=0.05, log_requests=False)
    async with duel_of(hedging(small_fleet(replicas=2, settings=settings)), tmp_path) as duel:
        client = duel.bench.chat(model="support").start()
        await duel.both()
        await duel.bench.gateway.drain()
        await client.done()
        assert (client.status, client.error["code"]) == (503, "shutting_down")
        await eventually(lambda: [engine.aborted for engine in duel.asked] == [1, 1], "both aborts")
        assert duel.bench.outcomes() == {("failed", "shutting_down"): 1}

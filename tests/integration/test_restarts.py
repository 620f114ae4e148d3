"""A pool's engines are restarted one after the other under load. The engines are fake, the sockets real."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fleet.types import Caps
from routing.lifecycle import restarts as restarts_module
from routing.lifecycle.ports import RestartState, StepState
from tests.fakes import Client, FakeEngine, eventually, key_of, small_fleet
from tests.integration.conftest import Bench, bench_of


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarts_module, "POLL_S", 0.005)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Bench]:
    """Two shared replicas."""
    async with bench_of(small_fleet(replicas=2), tmp_path) as bench:
        yield bench


def restart(bench: Bench, query: str = "", *, pool: str = "shared", method: str = "POST") -> Client:
    """A call of the admin API, as an operator."""
    headers = [("authorization", f"Bearer {key_of('operator')}")]
    path = f"/admin/v1/pools/{pool}/restart?{query}"
    return Client(bench.gateway.app, path, method=method, headers=headers)


async def ended(bench: Bench, pool: str = "shared") -> Any:
    """Wait for the end of a pool's restart; gives the admin API's answer."""
    restarts = bench.gateway.restarts
    await eventually(lambda: restarts.of(pool).state is not RestartState.RUNNING, "the end of the restart")
    return (await restart(bench, pool=pool, method="GET")()).json()


def states(answer: Any) -> list[str]:
    return [step["state"] for step in answer["replicas"]]


def slowly(engine: FakeEngine) -> Any:
    """A behaviour that takes a moment."""

    async def answer(body: dict[str, Any], send: Any) -> None:
        await asyncio.sleep(0.01)
        await engine.answer(body, send)

    return answer


async def keep_busy(pair: Bench, *, stream: bool = False) -> list[asyncio.Task[Client]]:
    """Have both shared replicas run something that they end once they may."""
    shared = [pair.engines["shared-0"], pair.engines["shared-1"]]
    for replica in pair.gateway.dispatcher.replicas.values():
        replica.engine.health.restarted(0.0, slow_start=False)
    pair.gateway.dispatcher.sweep()
    for engine in shared:
        engine.behave = engine.hold_mid_stream if stream else engine.hold
    clients = [asyncio.create_task(pair.chat(tenant, stream=stream)()) for tenant in ("a", "b") * 4]
    await eventually(lambda: sum(engine.running for engine in shared) == 8)
    assert all(engine.running for engine in shared)
    return clients


def breakers(bench: Bench) -> set[str]:
    return {
        str(replica.engine.health.snapshot(0.0).breaker)
        for replica in bench.gateway.dispatcher.replicas.values()
    }


async def test_no_request_fails_while_all_replicas_restart(pair: Bench) -> None:
    stop = False
    answers: list[Client] = []

    async def keep_asking(tenant: str, **fields: Any) -> None:
        while not stop:
            answers.append(await pair.chat(tenant, **fields)())

    for engine in pair.engines.values():
        engine.behave = slowly(engine)
    clients = [asyncio.create_task(keep_asking(t, stream=s)) for t in ("a", "b") for s in (True, False, True)]
    await eventually(lambda: len(answers) > 10)
    begun = await restart(pair)()
    assert begun.status == 202
    done = await ended(pair)
    before = len(answers)
    await eventually(lambda: len(answers) > before + 10)
    stop = True
    await asyncio.gather(*clients)
    assert (done["state"], states(done)) == ("done", ["done", "done"])
    assert [pair.engines[name].orders for name in ("shared-0", "shared-1", "alone-0")] == [
        ["restart"],
        ["restart"],
        [],
    ]
    assert {client.status for client in answers} == {200}
    assert all(b"[DONE]" in client.body or b'"choices"' in client.body for client in answers)
    assert all(engine.cut == 0 for engine in pair.engines.values()), "each had ended what it ran"
    assert breakers(pair) == {"closed"}
    assert {outcome for outcome, _ in pair.outcomes()} == {"completed"}


async def test_what_runs_ends_before_the_engine_restarts_and_new_requests_go_elsewhere(pair: Bench) -> None:
    first, second = pair.engines["shared-0"], pair.engines["shared-1"]
    streams = await keep_busy(pair, stream=True)
    began_with = first.running
    await restart(pair, "replica=shared-0")()
    await eventually(lambda: pair.gateway.restarts.of("shared").steps[0].state is StepState.DRAINING)
    before = second.running
    streams += [asyncio.create_task(pair.chat(tenant, stream=True)()) for tenant in ("a", "b")]
    await eventually(lambda: second.running == before + 2, "new ones go to the other replica")
    assert first.running == began_with
    (step,) = (await restart(pair, method="GET")()).json()["replicas"]
    assert step == {"replica": "shared-0", "state": "draining", "in_flight": began_with, "reason": ""}
    assert first.orders == []
    first.release.set()
    second.release.set()
    assert {(await stream).body.endswith(b"data: [DONE]\n\n") for stream in streams} == {True}
    assert states(await ended(pair)) == ["done"]
    assert (first.orders, second.orders) == (["restart"], [])


async def test_requests_are_held_where_the_pool_has_one_replica(bench: Bench) -> None:
    engine = bench.engines["shared-0"]
    back = asyncio.Event()

    async def come_back_later(order: str) -> None:
        engine.ready = False
        await back.wait()
        engine.come_back()

    engine.follow = come_back_later
    await restart(bench)()
    await eventually(lambda: engine.orders == ["restart"])
    held = [asyncio.create_task(bench.chat("a")()) for _ in range(3)]
    await eventually(lambda: "queued=3" in repr(bench.gateway.dispatcher))
    seen: list[bool] = []

    async def look_all_the_time() -> None:
        while True:
            seen.append(bench.gateway.is_ready())
            await asyncio.sleep(0)

    looking = asyncio.create_task(look_all_the_time())
    await eventually(lambda: len(seen) > 10)
    back.set()
    assert [(await client).status for client in held] == [200, 200, 200]
    assert states(await ended(bench)) == ["done"]
    looking.cancel()
    assert all(seen), "so that requests come here, and wait"


async def test_a_held_request_waits_no_longer_than_its_tenant_allows(tmp_path: Path) -> None:
    fleet = small_fleet(caps=Caps(queue_timeout_s=0.3))
    async with bench_of(fleet, tmp_path) as bench:
        engine = bench.engines["shared-0"]
        engine.follow = fall_silent
        engine.ready = True
        await restart(bench)()
        await eventually(lambda: engine.orders == ["restart"])
        refused = await bench.chat("a")()
        assert refused.error["code"] == "queue_timeout"
        engine.come_back()
        assert states(await ended(bench)) == ["done"]


async def fall_silent(order: str) -> None:
    """Do nothing that would be a restart."""


async def test_it_stops_at_a_replica_that_does_not_come_back(pair: Bench) -> None:
    first, second = pair.engines["shared-0"], pair.engines["shared-1"]

    async def break_down(order: str) -> None:
        first.fail("CUDA out of memory")

    first.follow = break_down
    await restart(pair)()
    answer = await ended(pair)
    assert (answer["state"], states(answer)) == ("failed", ["failed", "waiting"])
    assert answer["replicas"][0]["reason"] == "its engine does not start: CUDA out of memory"
    assert second.orders == []
    assert (await pair.chat("a")()).status == 200
    first.come_back()
    await eventually(lambda: pair.gateway.dispatcher.replicas["shared-0"].ready, "it may still come back")
    assert states(await again(pair)) == ["done", "done"], "and the pool can be restarted again"


async def again(bench: Bench) -> Any:
    for engine in bench.engines.values():
        engine.follow = engine.obey
    assert (await restart(bench)()).status == 202
    return await ended(bench)


async def test_a_replica_that_answers_nothing_is_given_up_after_a_while(
    pair: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts_module, "BACK_WITHIN_S", 0.05)
    pair.engines["shared-0"].follow = fall_silent
    await restart(pair)()
    answer = await ended(pair)
    assert states(answer) == ["failed", "waiting"]
    assert answer["replicas"][0]["reason"] == "its engine is not ready after 0.05 s"


async def test_a_replica_that_cannot_be_reached_is_not_waited_for(pair: Bench) -> None:
    await pair.kill("shared-0")
    await restart(pair)()
    answer = await ended(pair)
    assert (answer["state"], states(answer)) == ("failed", ["failed", "waiting"])
    assert (await pair.chat("a")()).status == 200


async def test_a_second_restart_of_a_pool_is_refused_and_another_pools_is_not(pair: Bench) -> None:
    running = await keep_busy(pair)
    await restart(pair)()
    refused = await restart(pair)()
    assert (refused.status, refused.error["code"]) == (409, "restart_running")
    assert (await restart(pair, pool="alone")()).status == 202
    for other in pair.engines.values():
        other.release.set()
    assert {(await client).status for client in running} == {200}
    await ended(pair)
    await ended(pair, "alone")


@pytest.mark.parametrize(
    ("pool", "query", "status", "code"),
    [
        ("nothing", "", 404, "pool_not_found"),
        ("shared", "replica=alone-0", 404, "replica_not_found"),
        ("shared", "replica=../x", 400, None),
        ("shared", "drain_s=-1", 400, None),
        ("shared", "drain_s=nan", 400, None),
        ("shared", "speed=2", 400, "unknown_parameter"),
    ],
)
async def test_a_restart_of_what_is_not_there_changes_nothing(
    bench: Bench, pool: str, query: str, status: int, code: str | None
) -> None:
    refused = await restart(bench, query, pool=pool)()
    assert refused.status == status
    assert code is None or refused.error["code"] == code
    assert (await restart(bench, method="GET")()).error["code"] == "no_restart"
    assert all(not engine.orders for engine in bench.engines.values())


async def test_what_an_operator_has_drained_restarts_and_stays_drained(pair: Bench) -> None:
    dispatcher = pair.gateway.dispatcher
    dispatcher.set_draining("shared-0", True)
    await restart(pair)()
    assert states(await ended(pair)) == ["done", "done"]
    assert [dispatcher.replicas[name].draining for name in ("shared-0", "shared-1")] == [True, False]
    assert (await pair.chat("a")()).status == 200
    assert pair.engines["shared-0"].seen == []


async def test_what_takes_too_long_is_cut_off_and_nothing_is_blamed_for_it(bench: Bench) -> None:
    engine = bench.engines["shared-0"]
    engine.behave = engine.hold_mid_stream
    streams = [asyncio.create_task(bench.chat(tenant, stream=True)()) for tenant in ("a", "b", "a", "b")]
    await eventually(lambda: engine.running == 4)

    async def end_all(order: str) -> None:
        engine.ready = False
        engine.behave = engine.die_mid_stream
        engine.release.set()
        await asyncio.sleep(0.02)
        engine.come_back()

    engine.follow = end_all
    await restart(bench, "drain_s=0")()
    assert states(await ended(bench)) == ["done"]
    await asyncio.gather(*streams)
    engine.behave = engine.answer
    assert (await bench.chat("a")()).status == 200
    assert breakers(bench) == {"closed"}


async def test_it_is_cancelled_when_the_gateway_shuts_down(pair: Bench) -> None:
    engine = pair.engines["shared-0"]
    engine.follow = fall_silent
    await restart(pair)()
    await eventually(lambda: engine.orders == ["restart"])
    await pair.gateway.drain()
    last = pair.gateway.restarts.of("shared")
    assert last.state is RestartState.CANCELLED
    assert [step.state for step in last.steps] == [StepState.RESTARTING, StepState.WAITING]
    assert not any(replica.restarting for replica in pair.gateway.dispatcher.replicas.values())


async def test_it_goes_on_where_its_caller_leaves(pair: Bench) -> None:
    client = restart(pair).start()
    client.leave()
    with contextlib.suppress(Exception):
        await client.done()
    assert states(await ended(pair)) == ["done", "done"]


async def test_a_replica_that_leaves_meanwhile_is_skipped(pair: Bench) -> None:
    running = await keep_busy(pair)
    await restart(pair)()
    pair.gateway.replicas.leave("shared-1")
    for engine in pair.engines.values():
        engine.release.set()
    assert {(await client).status for client in running} == {200}
    assert states(await ended(pair)) == ["done", "left"]

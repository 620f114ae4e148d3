"""How a request ends when something goes wrong on the way. The engines are fake, the sockets are real."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from fleet.types import Caps, GatewaySettings
from routing.flights.endings import Abort
from routing.types import Outcome
from tests.fakes import FakeEngine, Send, eventually, small_fleet
from tests.integration.conftest import Bench, bench_of

IMPATIENT = Caps(queue_timeout_s=0.5)


def replicas_of(bench: Bench) -> list[FakeEngine]:
    """The engines of the shared pool."""
    return [engine for engine in bench.engines.values() if engine.name.startswith("shared")]


# -- the client leaves -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_before_the_first_byte_stops_the_engine(
    bench: Bench, stream: bool
) -> None:
    engine = bench.engines["shared-0"]
    engine.behave = engine.hold
    client = bench.chat(model="support", stream=stream).start()
    await eventually(lambda: engine.running == 1)
    client.leave()
    await client.done()
    await eventually(lambda: engine.aborted == 1, "the abort in the engine")
    assert client.status == 0
    assert bench.outcomes() == {("cancelled", "client_gone"): 1}


async def test_a_client_that_leaves_in_mid_stream_stops_the_engine(bench: Bench) -> None:
    engine = bench.engines["shared-0"]
    engine.behave = engine.hold_mid_stream
    client = bench.chat(model="support", stream=True).start()
    await eventually(lambda: client.body != b"")
    client.leave()
    await client.done()
    await eventually(lambda: engine.aborted == 1, "the abort in the engine")
    assert bench.outcomes() == {("cancelled", "client_gone"): 1}


async def test_a_client_that_leaves_while_it_waits_never_reaches_an_engine(tmp_path: Path) -> None:
    async with bench_of(small_fleet(max_num_seqs=1), tmp_path) as bench:
        engine = bench.engines["shared-0"]
        engine.behave = engine.hold
        running, waiting = bench.chat(model="support").start(), bench.chat(model="support").start()
        await eventually(lambda: len(bench.gateway.dispatcher.queued()) == 1)
        waiting.leave()
        await waiting.done()
        engine.release.set()
        await running.done()
        assert len(engine.seen) == 1
        assert bench.outcomes() == {("cancelled", "client_gone"): 1, ("completed", ""): 1}


async def test_a_client_that_has_left_before_its_request_was_looked_at_is_cancelled(bench: Bench) -> None:
    engine = bench.engines["shared-0"]
    engine.behave = engine.hold
    client = bench.chat(model="support").start()
    client.leave()
    await client.done()
    assert bench.outcomes() == {("cancelled", "client_gone"): 1}


async def test_a_client_that_reads_slowly_holds_the_engine_back(bench: Bench) -> None:
    engine = bench.engines["shared-0"]
    engine.behave = engine.flood
    client = bench.chat(model="support", stream=True).start()
    await eventually(lambda: client.sends > 10)
    client.reading.clear()
    await asyncio.sleep(0.1)  # until every buffer on the way is full
    tracemalloc.start()
    before, sent = tracemalloc.get_traced_memory()[0], client.sends
    await asyncio.sleep(0.3)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert client.sends == sent
    assert grown < 2**20, f"{grown} bytes were kept for a client that reads nothing"
    client.reading.set()
    client.leave()
    await client.done()


async def test_a_client_that_stays_but_reads_nothing_is_cancelled(tmp_path: Path) -> None:
    settings = GatewaySettings(stall_timeout_s=0.05, log_requests=False)
    async with bench_of(small_fleet(settings=settings), tmp_path) as bench:
        engine = bench.engines["shared-0"]
        engine.behave = engine.flood
        client = bench.chat(model="support", stream=True).start()
        await eventually(lambda: client.sends > 10)
        client.reading.clear()
        await client.done()
        assert bench.outcomes() == {("cancelled", "client_stalled"): 1}


@pytest.mark.parametrize("leaves_first", [True, False])
async def test_a_grant_that_comes_as_the_client_leaves_is_given_back(
    tmp_path: Path, leaves_first: bool
) -> None:
    async with bench_of(small_fleet(max_num_seqs=1), tmp_path) as bench:
        engine = bench.engines["shared-0"]
        engine.behave = engine.hold
        clients = [bench.chat(model="support").start() for _ in range(2)]
        await eventually(lambda: len(bench.gateway.dispatcher.queued()) == 1 and engine.running == 1)
        running, waiting = sorted(bench.gateway.flights, key=lambda f: f.ticket.replica is None)
        if leaves_first:
            waiting.abort(Abort.CLIENT_GONE)  # cancels its task, which has not run yet when its turn comes
        bench.gateway.dispatcher.settle(running.ticket, Outcome.COMPLETED)
        assert waiting.ticket.replica is not None
        waiting.abort(Abort.CLIENT_GONE)
        engine.release.set()
        for client in clients:
            await client.done()
        assert len(engine.seen) == 1
        assert bench.outcomes() == {("cancelled", "client_gone"): 1, ("completed", ""): 1}


@pytest.mark.parametrize("waits", [True, False])
async def test_a_request_that_the_server_cancels_has_its_outcome_too(tmp_path: Path, waits: bool) -> None:
    async with bench_of(small_fleet(max_num_seqs=1), tmp_path) as bench:
        engine = bench.engines["shared-0"]
        engine.behave = engine.hold
        clients = [bench.chat(model="support").start() for _ in range(2)]
        await eventually(lambda: len(bench.gateway.dispatcher.queued()) == 1 and engine.running == 1)
        cancelled = clients.pop(1 if waits else 0)
        assert cancelled._task is not None
        cancelled._task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled.done()
        engine.release.set()
        assert (await clients[0].done()).status == 200
        assert bench.outcomes() == {("failed", "shutting_down"): 1, ("completed", ""): 1}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_whose_connection_breaks_as_it_is_written_to_has_left(
    bench: Bench, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(message: dict[str, Any]) -> None:
        raise BrokenPipeError

    client = bench.chat(model="support", stream=stream)
    monkeypatch.setattr(client, "_send", broken)
    await client()
    assert bench.outcomes() == {("cancelled", "client_gone"): 1}


async def test_a_client_that_does_not_even_take_its_error_is_let_go(tmp_path: Path) -> None:
    settings = GatewaySettings(stall_timeout_s=0.05, log_requests=False)
    async with bench_of(small_fleet(settings=settings), tmp_path) as bench:
        engine = bench.engines["shared-0"]
        engine.behave = engine.hold_mid_stream
        client = bench.chat(model="support", stream=True).start()
        await eventually(lambda: client.body != b"")
        client.reading.clear()
        await bench.kill("shared-0")
        await client.done()
        assert bench.outcomes() == {("failed", "engine_failed"): 1}


# -- the engine fails --------------------------------------------------------------------------------------


@pytest.mark.parametrize("death", ["die_mid_stream", "report_death_mid_stream"])
async def test_a_stream_whose_engine_dies_ends_with_an_openai_error(bench: Bench, death: str) -> None:
    engine = bench.engines["shared-0"]
    engine.behave = getattr(engine, death)
    client = await bench.chat(model="support", stream=True)()
    *_, last, rest = client.body.split(b"\n\n")
    assert rest == b""
    error = json.loads(last.removeprefix(b"data: "))["error"]
    assert (error["type"], error["code"]) == ("server_error", "engine_failed")
    assert b"EngineCore" not in client.body
    assert client.ended
    assert bench.outcomes() == {("failed", "engine_failed"): 1}


async def test_a_stream_cut_by_the_engines_end_gets_its_error_too(bench: Bench) -> None:
    engine = bench.engines["shared-0"]
    engine.behave = engine.hold_mid_stream
    client = bench.chat(model="support", stream=True).start()
    await eventually(lambda: client.body != b"")
    await bench.kill("shared-0")
    await client.done()
    assert b'data: {"error"' in client.body
    assert client.ended


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_moves_on_while_nothing_was_sent(pair: Bench, stream: bool) -> None:
    for engine in pair.engines.values():
        engine.behave = engine.say_loading
    pair.engines["shared-1"].behave = pair.engines["shared-1"].answer
    clients = [await pair.chat(model=model, stream=stream)() for model in ("support", "sales", "plain")]
    assert [client.status for client in clients] == [200, 200, 200]
    assert {client.headers["x-tenantry-replica"] for client in clients} == {"shared-1"}


async def test_a_request_moves_on_from_a_replica_that_is_gone(pair: Bench) -> None:
    for engine in pair.engines.values():
        engine.behave = engine.hold
    clients = [pair.chat(model=model).start() for model in ("support", "sales", "plain")]
    await eventually(lambda: sum(e.running for e in pair.engines.values()) == 3)
    busy = max(pair.engines.values(), key=lambda engine: engine.running)
    await pair.kill(busy.name)
    for engine in pair.engines.values():
        engine.release.set()
    assert [(await client.done()).status for client in clients] == [200, 200, 200]


async def test_an_answer_that_breaks_off_in_its_body_is_asked_of_another_replica(pair: Bench) -> None:
    async def half(body: dict[str, Any], send: Send) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"1000")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"half":', "more_body": True})
        await asyncio.Event().wait()

    for engine in pair.engines.values():
        engine.behave = half
    client = pair.chat(model="support").start()
    await eventually(lambda: any(engine.running for engine in pair.engines.values()))
    first, other = sorted(replicas_of(pair), key=lambda engine: -engine.running)
    other.behave = other.answer
    await asyncio.sleep(0.05)  # half of the answer has come
    await pair.kill(first.name)
    await client.done()
    assert (client.status, client.headers["x-tenantry-replica"]) == (200, other.name)
    assert b"half" not in client.body
    assert pair.outcomes() == {("completed", ""): 1}


@pytest.mark.parametrize("death", ["die_mid_stream", "report_death_mid_stream"])
async def test_an_answer_that_has_begun_is_asked_of_nobody_else(pair: Bench, death: str) -> None:
    for engine in replicas_of(pair):
        engine.behave = getattr(engine, death)
    client = await pair.chat(model="support", stream=True)()
    assert b'"code":"engine_failed"' in client.body and client.ended
    assert sum(len(engine.seen) for engine in replicas_of(pair)) == 1
    assert pair.outcomes() == {("failed", "engine_failed"): 1}


# -- the engine hangs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_replica_that_hangs_has_not_answered_another_one_answers_once(
    pair: Bench, stream: bool
) -> None:
    for engine in replicas_of(pair):
        engine.behave = engine.hold
    models = ["support", "sales", "plain"] * 2
    clients = [pair.chat(model=model, stream=stream).start() for model in models]
    await eventually(lambda: sum(e.running for e in replicas_of(pair)) == len(models))
    hanging, other = sorted(replicas_of(pair), key=lambda engine: -engine.running)
    stuck = hanging.running
    other.behave = other.answer
    other.release.set()
    hanging.ready = False
    for client in clients:
        await client.done()
    assert {client.status for client in clients} == {200}
    assert {client.headers["x-tenantry-replica"] for client in clients} == {other.name}
    assert (hanging.aborted, len(other.seen)) == (stuck, len(models))
    assert pair.outcomes() == {("completed", ""): len(models)}


async def test_where_there_is_no_other_replica_they_wait_for_the_one_that_hangs(bench: Bench) -> None:
    engine = bench.engines["shared-0"]
    engine.behave = engine.hold
    clients = [bench.chat(model=model).start() for model in ("support", "plain")]
    await eventually(lambda: engine.running == 2)
    engine.ready = False
    replica = bench.gateway.dispatcher.replicas["shared-0"]
    await eventually(lambda: not replica.ready)
    await asyncio.sleep(1.2)  # the next probe does not give it up either
    assert (engine.running, engine.aborted) == (2, 0)
    engine.release.set()
    assert [(await client.done()).status for client in clients] == [200, 200]
    assert len(engine.seen) == 2


async def test_an_answer_that_has_begun_stays_with_the_replica_that_hangs(pair: Bench) -> None:
    for engine in replicas_of(pair):
        engine.behave = engine.hold_mid_stream
    client = pair.chat(model="support", stream=True).start()
    await eventually(lambda: client.body != b"")
    hanging, other = sorted(replicas_of(pair), key=lambda engine: -engine.running)
    hanging.ready = False
    replica = pair.gateway.dispatcher.replicas[hanging.name]
    await eventually(lambda: not replica.ready)
    hanging.release.set()
    await client.done()
    assert client.body.endswith(b"data: [DONE]\n\n")
    assert (hanging.aborted, len(other.seen)) == (0, 0)


async def test_with_no_other_replica_the_client_is_told_when_to_retry(tmp_path: Path) -> None:
    async with bench_of(small_fleet(caps=IMPATIENT), tmp_path) as bench:
        bench.engines["shared-0"].behave = bench.engines["shared-0"].say_loading
        client = await bench.chat(model="support")()
        assert (client.status, client.error["code"]) == (503, "queue_timeout")
        assert "0.5 s" in client.error["message"] and "is not ready" in client.error["message"]
        assert 5 <= int(client.headers["retry-after"]) <= 8
        assert bench.outcomes() == {("expired", "queue_timeout"): 1}


# -- the only engine restarts, or is late ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["it restarts", "it gives no answer", "it does not start at first"])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_comes_while_the_only_engine_is_away_is_answered_when_it_is_back(
    bench: Bench, how: str, stream: bool
) -> None:
    engine, replica = bench.engines["shared-0"], bench.gateway.dispatcher.replicas["shared-0"]
    if how == "it does not start at first":
        engine.fail("no compiler")
    elif how == "it restarts":
        engine.die("killed")
    else:
        engine.ready = False
    await eventually(lambda: not replica.ready)
    assert not bench.gateway.is_ready(), "a load balancer sees that"
    clients = [bench.chat(model=model, stream=stream).start() for model in ("support", "plain") * 3]
    assert (await bench.chat("c", model="support")()).status == 200, "other pools go on"
    await eventually(lambda: sum(bench.gateway.dispatcher.queued().values()) == len(clients))
    engine.come_back()
    assert {(await client.done()).status for client in clients} == {200}
    assert len(engine.seen) == len(clients)
    await eventually(bench.gateway.is_ready)


async def test_many_calls_in_the_second_in_which_an_engine_is_late_are_all_answered(bench: Bench) -> None:
    engine, replica = bench.engines["shared-0"], bench.gateway.dispatcher.replicas["shared-0"]
    engine.ready = False
    await eventually(lambda: not replica.ready)
    clients = [bench.chat(model="support").start() for _ in range(63)]
    await eventually(lambda: sum(bench.gateway.dispatcher.queued().values()) == 63)
    engine.ready = True
    assert {(await client.done()).status for client in clients} == {200}
    assert bench.outcomes() == {("completed", ""): 63}


async def test_what_an_engine_refuses_that_does_not_run_is_asked_again_when_it_does(bench: Bench) -> None:
    engine, replica = bench.engines["shared-0"], bench.gateway.dispatcher.replicas["shared-0"]
    engine.behave = engine.say_loading  # it has died, and no probe has seen it
    engine.ready = False
    assert replica.ready
    client = bench.chat(model="support").start()
    await eventually(lambda: len(engine.seen) == 1)
    engine.behave = engine.answer
    engine.come_back()
    assert (await client.done()).status == 200
    assert len(engine.seen) == 2


async def test_what_an_engine_was_at_when_it_died_is_not_given_to_the_next_one(bench: Bench) -> None:
    engine = bench.engines["shared-0"]
    engine.behave = engine.die_of_it
    client = await bench.chat(model="support")()
    assert (client.status, client.error["code"]) == (503, "no_replica_ready")
    assert 5 <= int(client.headers["retry-after"]) <= 8
    assert len(engine.seen) == 1


async def test_a_client_that_leaves_while_it_waits_for_an_engine_leaves_nothing_behind(bench: Bench) -> None:
    engine, replica = bench.engines["shared-0"], bench.gateway.dispatcher.replicas["shared-0"]
    engine.ready = False
    await eventually(lambda: not replica.ready)
    client = bench.chat(model="support").start()
    await eventually(lambda: len(bench.gateway.dispatcher.queued()) == 1)
    client.leave()
    await client.done()
    assert bench.at_rest
    engine.ready = True
    await eventually(lambda: replica.ready)
    assert not engine.seen


async def test_what_waits_for_an_engine_is_bounded_and_the_rest_is_refused_at_once(tmp_path: Path) -> None:
    async with bench_of(small_fleet(caps=Caps(max_queued=4)), tmp_path) as bench:
        engine, replica = bench.engines["shared-0"], bench.gateway.dispatcher.replicas["shared-0"]
        engine.ready = False
        await eventually(lambda: not replica.ready)
        waiting = [bench.chat(model="support").start() for _ in range(4)]
        await eventually(lambda: sum(bench.gateway.dispatcher.queued().values()) == 4)
        refused = await bench.chat(model="support")()
        assert (refused.status, refused.error["code"]) == (429, "max_queued")
        engine.ready = True
        assert {(await client.done()).status for client in waiting} == {200}


async def test_an_engine_that_never_answers_is_given_up(tmp_path: Path) -> None:
    settings = GatewaySettings(request_timeout_s=0.05, log_requests=False)
    async with bench_of(small_fleet(settings=settings), tmp_path) as bench:
        engine = bench.engines["shared-0"]
        engine.behave = engine.hold
        client = await bench.chat(model="support")()
        assert (client.status, client.error["code"]) == (504, "engine_timeout")
        assert "retry-after" in client.headers


# -- the gateway stops -------------------------------------------------------------------------------------


async def test_on_shutdown_what_runs_finishes_and_what_waits_is_refused(tmp_path: Path) -> None:
    async with bench_of(small_fleet(max_num_seqs=1), tmp_path) as bench:
        engine = bench.engines["shared-0"]
        engine.behave = engine.hold
        running, waiting = bench.chat(model="support").start(), bench.chat(model="support").start()
        await eventually(lambda: len(bench.gateway.dispatcher.queued()) == 1)
        draining = asyncio.ensure_future(bench.gateway.drain())
        await waiting.done()
        late = await bench.chat(model="support")()
        for client in (waiting, late):
            assert (client.status, client.error["code"]) == (503, "shutting_down")
        assert not bench.gateway.is_ready()
        assert not draining.done()
        engine.release.set()
        assert (await running.done()).status == 200
        await draining
        assert bench.outcomes() == {
            ("completed", ""): 1,
            ("failed", "shutting_down"): 1,  # it had been queued
            ("rejected", "shutting_down"): 1,
        }


async def test_on_shutdown_what_loses_its_replica_is_not_queued_again(bench: Bench) -> None:
    engine = bench.engines["shared-0"]
    engine.behave = engine.hold
    client = bench.chat(model="support").start()
    await eventually(lambda: engine.running == 1)
    draining = asyncio.ensure_future(bench.gateway.drain())
    await eventually(lambda: bench.gateway.flights.draining)
    await bench.kill("shared-0")
    await client.done()
    await draining
    assert (client.status, client.error["code"]) == (503, "shutting_down")
    assert bench.outcomes() == {("failed", "shutting_down"): 1}


async def test_what_outlives_the_grace_period_ends_with_an_error(tmp_path: Path) -> None:
    settings = GatewaySettings(shutdown_grace_s=0.05, log_requests=False)
    async with bench_of(small_fleet(settings=settings), tmp_path) as bench:
        engine = bench.engines["shared-0"]
        engine.behave = engine.hold_mid_stream
        client = bench.chat(model="support", stream=True).start()
        await eventually(lambda: client.body != b"")
        await bench.gateway.drain()
        await client.done()
        assert b'"code":"shutting_down"' in client.body
        assert client.ended
        assert bench.outcomes() == {("failed", "shutting_down"): 1}

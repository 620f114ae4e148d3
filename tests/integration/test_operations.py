"""What operators see and do while requests run: a gateway with fake engines, its log lines, its admin API."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fleet.types import Caps, Fleet, SchedulerSettings
from routing.errors import NotFound
from tests.fakes import Client, eventually, key_of, small_fleet
from tests.integration.conftest import Bench, bench_of
from tests.integration.test_lifecycle import fleet_in, house_of

REPLICAS = "/admin/v1/replicas"
SCHEDULER = "/admin/v1/scheduler"


async def admin(bench: Bench, method: str, path: str) -> Client:
    """Ask the admin API as an operator."""
    headers = [("authorization", f"Bearer {key_of('operator')}")]
    return await Client(bench.gateway.app, path, method=method, headers=headers)()


def queued(bench: Bench) -> int:
    return sum(bench.gateway.dispatcher.queued().values())


# -- draining ----------------------------------------------------------------------------------------------


async def test_a_drained_replica_ends_what_it_runs_and_gets_nothing_new(pair: Bench) -> None:
    for engine in pair.engines.values():
        engine.behave = engine.hold
    running = pair.chat(model="support").start()
    await eventually(lambda: any(engine.running for engine in pair.engines.values()))
    (drained,) = [name for name, engine in pair.engines.items() if engine.running]
    (other,) = {"shared-0", "shared-1"} - {drained}
    answer = await admin(pair, "POST", f"{REPLICAS}/{drained}/drain")
    assert (answer.status, answer.json()["state"], answer.json()["in_flight"]) == (200, "draining", 1)
    later = pair.chat(model="support").start()
    await eventually(lambda: pair.engines[other].running == 1)
    for engine in pair.engines.values():
        engine.release.set()
    assert [(await client.done()).status for client in (running, later)] == [200, 200]
    assert later.headers["x-tenantry-replica"] == other
    listed = {replica["name"]: replica for replica in (await admin(pair, "GET", REPLICAS)).json()["data"]}
    assert (listed[drained]["state"], listed[drained]["in_flight"], listed[drained]["leases"]) == (
        "draining",
        0,
        {},
    )
    answer = await admin(pair, "POST", f"{REPLICAS}/{drained}/resume")
    assert answer.json()["state"] == "ready"
    assert (await pair.chat(model="support")()).headers["x-tenantry-replica"] == drained, "its home"


async def test_when_the_last_replica_drains_its_pool_says_when_to_come_again(tmp_path: Path) -> None:
    async with bench_of(small_fleet(max_num_seqs=1), tmp_path) as bench:
        engine = bench.engines["shared-0"]
        engine.behave = engine.hold
        running = bench.chat(model="support").start()
        await eventually(lambda: engine.running == 1)
        waiting = bench.chat(model="support").start()
        await eventually(lambda: queued(bench) == 1)
        await admin(bench, "POST", f"{REPLICAS}/shared-0/drain")
        for refused in (await waiting.done(), await bench.chat(model="support")()):
            assert (refused.status, refused.error["code"]) == (503, "no_replica_ready")
            assert 5 <= int(refused.headers["retry-after"]) <= 8
            assert refused.headers["x-should-retry"] == "true"
        assert (await bench.chat("c", model="support")()).status == 200, "another pool goes on"
        assert bench.gateway.is_ready(), "the gateway itself is well"
        engine.release.set()
        assert (await running.done()).status == 200
        await admin(bench, "POST", f"{REPLICAS}/shared-0/resume")
        assert (await bench.chat(model="support")()).status == 200


async def test_drains_are_among_the_events_once_each(tmp_path: Path) -> None:
    async with house_of(fleet_in(tmp_path), tmp_path) as house:
        for draining in (True, True, False, False):
            await house.manager.set_draining("shared-0", draining)
        found = [e for e in await house.manager.events(100, None) if e.subject == "replica shared-0"]
        assert [event.text.partition(":")[0] for event in found] == ["resumed", "drained"]
        with pytest.raises(NotFound):
            await house.manager.set_draining("shared-9", True)


async def test_a_drain_needs_no_database(bench: Bench) -> None:
    """`bench` has none: serving does not depend on it, and neither does what operators do to serving."""
    assert (await admin(bench, "POST", f"{REPLICAS}/shared-0/drain")).status == 200
    assert (await admin(bench, "POST", f"{REPLICAS}/shared-9/drain")).status == 404
    assert (await admin(bench, "POST", f"{REPLICAS}/shared-0/resume")).status == 200


# -- a request that was refused or delayed, explained ------------------------------------------------------


@dataclass
class Logged:
    """A bench whose log lines are read."""

    bench: Bench
    lines: pytest.LogCaptureFixture

    def line(self, request_id: str) -> dict[str, Any]:
        """The one log line of a request."""
        (line,) = [line for line in self.bench.logged(self.lines) if line["request_id"] == request_id]
        return dict(line)

    def ask(self, request_id: str, tenant: str = "a", model: str = "support") -> Client:
        """Ask under an id of one's own."""
        payload = {"model": model, "messages": [{"role": "user", "content": "who?"}]}
        headers = [("x-request-id", request_id)]
        return self.bench.post("/v1/chat/completions", payload, tenant=tenant, headers=headers)

    async def decisions(self, request_id: str) -> list[tuple[str, str]]:
        """What the admin API has of it, the oldest first."""
        answer = await admin(self.bench, "GET", f"{SCHEDULER}?request={request_id}")
        return [(d["action"], d["reason"]) for d in reversed(answer.json()["decisions"])]

    async def hold(self) -> Client:
        """Have the one replica of the shared pool run a request until it is released."""
        engine = self.bench.engines["shared-0"]
        engine.behave = engine.hold
        running = self.ask("running").start()
        await eventually(lambda: engine.running == 1)
        return running

    async def release(self, *clients: Client) -> None:
        self.bench.engines["shared-0"].release.set()
        for client in clients:
            assert (await client.done()).status == 200


def logging_fleet(*, scheduler: SchedulerSettings | None = None, **options: Any) -> Fleet:
    """`small_fleet` with its log lines on."""
    fleet = small_fleet(**options)
    settings = replace(fleet.gateway, log_requests=True, scheduler=scheduler or fleet.gateway.scheduler)
    return replace(fleet, gateway=settings)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "tenantry.request")
    return caplog


@pytest.fixture
async def one_at_a_time(tmp_path: Path, lines: pytest.LogCaptureFixture) -> AsyncIterator[Logged]:
    """One replica that runs one sequence."""
    async with bench_of(logging_fleet(max_num_seqs=1), tmp_path) as bench:
        yield Logged(bench, lines)


async def test_a_cap_is_named_with_its_limit(tmp_path: Path, lines: pytest.LogCaptureFixture) -> None:
    async with bench_of(logging_fleet(caps=Caps(max_concurrency=1)), tmp_path) as bench:
        logged = Logged(bench, lines)
        running = await logged.hold()
        await logged.ask("over")()
        line = logged.line("over")
        assert (line["outcome"], line["status"], line["reason"]) == ("rejected", 429, "max_concurrency")
        assert line["explanation"] == "The cap max_concurrency of 1 is reached for `support`."
        assert (line["replica"], line["attempts"], line["queue_s"]) == (None, 0, None)
        assert line["retry_after_s"] > 0
        assert await logged.decisions("over") == [("rejected", "max_concurrency")]
        await logged.release(running)


async def test_a_rate_is_named_with_its_limit(tmp_path: Path, lines: pytest.LogCaptureFixture) -> None:
    async with bench_of(logging_fleet(caps=Caps(requests_per_minute=1)), tmp_path) as bench:
        logged = Logged(bench, lines)
        assert (await logged.ask("first")()).status == 200
        await logged.ask("second")()
        line = logged.line("second")
        assert (line["outcome"], line["status"], line["reason"]) == ("rejected", 429, "requests_per_minute")
        assert "requests_per_minute of 1" in line["explanation"]


async def test_an_overload_says_that_it_is_nobody_s_cap(
    tmp_path: Path, lines: pytest.LogCaptureFixture
) -> None:
    fleet = logging_fleet(max_num_seqs=1, scheduler=SchedulerSettings(max_queued=1))
    async with bench_of(fleet, tmp_path) as bench:
        logged = Logged(bench, lines)
        running = await logged.hold()
        await logged.ask("too-much")()
        line = logged.line("too-much")
        assert (line["outcome"], line["status"], line["reason"]) == ("rejected", 503, "overloaded")
        assert "More requests wait" in line["explanation"]
        await logged.release(running)


async def test_a_queue_timeout_says_for_how_long_and_for_what_it_waited(
    tmp_path: Path, lines: pytest.LogCaptureFixture
) -> None:
    fleet = logging_fleet(max_num_seqs=1, caps=Caps(queue_timeout_s=0.05))
    async with bench_of(fleet, tmp_path) as bench:
        logged = Logged(bench, lines)
        running = await logged.hold()
        await logged.ask("late")()
        line = logged.line("late")
        assert (line["outcome"], line["status"], line["reason"]) == ("expired", 503, "queue_timeout")
        assert (line["waits_for"], line["picked"], line["replica"]) == ("no_room", None, None)
        assert line["explanation"].startswith("The request waited 0.05 s for a free replica")
        assert line["total_s"] >= 0.05
        assert await logged.decisions("late") == [("queued", "no_room"), ("expired", "queue_timeout")]
        await logged.release(running)


async def test_a_wait_for_a_slot_says_so_and_how_long_it_was(
    tmp_path: Path, lines: pytest.LogCaptureFixture
) -> None:
    async with bench_of(logging_fleet(slots=1), tmp_path) as bench:
        logged = Logged(bench, lines)
        running = await logged.hold()
        waiting = logged.ask("no-slot", model="sales").start()
        await eventually(lambda: queued(bench) == 1)
        await logged.release(running, waiting)
        line = logged.line("no-slot")
        assert (line["outcome"], line["waits_for"], line["picked"]) == ("completed", "no_slot", "resident")
        assert line["replica"] == "shared-0"
        assert 0 < line["queue_s"] <= line["total_s"]
        assert await logged.decisions("no-slot") == [("queued", "no_slot"), ("granted", "resident")]


async def test_a_wait_for_room_says_so(one_at_a_time: Logged) -> None:
    running = await one_at_a_time.hold()
    waiting = one_at_a_time.ask("no-room").start()
    await eventually(lambda: queued(one_at_a_time.bench) == 1)
    await one_at_a_time.release(running, waiting)
    line = one_at_a_time.line("no-room")
    assert (line["waits_for"], line["queue_s"] > 0) == ("no_room", True)
    assert one_at_a_time.line("running")["waits_for"] is None


async def test_a_retry_on_another_replica_is_counted_and_names_the_one_that_answered(
    tmp_path: Path, lines: pytest.LogCaptureFixture
) -> None:
    async with bench_of(logging_fleet(replicas=2), tmp_path) as bench:
        logged = Logged(bench, lines)
        assert (await logged.ask("first")()).status == 200
        home = logged.line("first")["replica"]
        (other,) = {"shared-0", "shared-1"} - {home}
        bench.engines[home].behave = bench.engines[home].say_loading
        assert (await logged.ask("moved")()).status == 200
        line = logged.line("moved")
        assert (line["outcome"], line["replica"], line["attempts"]) == ("completed", other, 2)
        assert line["failed_on"] == [home]
        granted = (await admin(bench, "GET", f"{SCHEDULER}?request=moved")).json()["decisions"]
        assert [d["replica"] for d in reversed(granted) if d["action"] == "granted"] == [home, other]


async def test_a_pool_without_a_ready_replica_is_named(one_at_a_time: Logged) -> None:
    one_at_a_time.bench.gateway.dispatcher.set_draining("shared-0", True)
    await one_at_a_time.ask("nobody")()
    line = one_at_a_time.line("nobody")
    assert (line["outcome"], line["status"], line["reason"]) == ("rejected", 503, "no_replica_ready")
    assert (line["pool"], line["retry_after_s"]) == ("shared", 5.0)
    assert await one_at_a_time.decisions("nobody") == [("rejected", "no_replica_ready")]


async def test_the_scheduler_shows_a_real_gateway(one_at_a_time: Logged) -> None:
    bench = one_at_a_time.bench
    running = await one_at_a_time.hold()
    waiting = one_at_a_time.ask("waiting").start()
    await eventually(lambda: queued(bench) == 1)
    answer = await admin(bench, "GET", SCHEDULER)
    shared = next(pool for pool in answer.json()["pools"] if pool["name"] == "shared")
    assert shared["queued_by_band"]["standard"] == 1
    assert shared["waiting"][0]["waits_for"] == "no_room"
    assert shared["replicas"][0]["sequences"] == shared["replicas"][0]["leases"][0]["sequences"] == 1
    await one_at_a_time.release(running, waiting)


# -- the live picture --------------------------------------------------------------------------------------

LIVE = "/admin/v1/live"


async def test_what_was_settled_and_what_waits_is_in_the_live_picture(tmp_path: Path) -> None:
    async with bench_of(small_fleet(max_num_seqs=1), tmp_path) as bench:
        assert (await bench.chat(model="support", stream=True)()).status == 200
        engine = bench.engines["shared-0"]
        engine.behave = engine.break_down
        for _ in range(3):
            assert (await bench.chat("b", model="support")()).status == 502
        engine.behave = engine.hold
        running = bench.chat(model="support").start()
        await eventually(lambda: engine.running == 1)
        waiting = bench.chat(model="sales").start()
        await eventually(lambda: queued(bench) == 1)
        picture = (await admin(bench, "GET", LIVE)).json()
        models = {(m["tenant"], m["model"]): m for m in picture["models"]}
        assert next(iter(models)) == ("b", "support"), "the worst comes first"
        assert (models["b", "support"]["verdict"], models["b", "support"]["failed"]) == ("failing", 3)
        assert models["a", "support"]["first_token_p99_s"] > 0
        assert (models["a", "sales"]["queued"], models["a", "sales"]["verdict"]) == (1, "green")
        (shared,) = (pool for pool in picture["pools"] if pool["name"] == "shared")
        assert [slot["use"] for slot in shared["replicas"][0]["in_slots"]] == ["running"]
        engine.release.set()
        assert [(await client.done()).status for client in (running, waiting)] == [200, 200]


async def test_a_drain_for_shutdown_ends_the_stream_and_is_not_held_up_by_it(bench: Bench) -> None:
    headers = [("authorization", f"Bearer {key_of('operator')}")]
    viewer = Client(bench.gateway.app, f"{LIVE}/stream", method="GET", headers=headers).start()
    await eventually(lambda: b"event: snapshot" in viewer.body)
    await bench.gateway.drain()
    await viewer.done()
    assert viewer.body.endswith(b"event: end\ndata: {}\n\n")
    assert bench.gateway.live.is_idle
    refused = await admin(bench, "GET", f"{LIVE}/stream")
    assert (refused.status, refused.error["code"]) == (503, "shutting_down")

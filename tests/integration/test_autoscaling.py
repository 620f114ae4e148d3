"""A pool with a range of replicas, from none on. Engines are fake; sockets and the file are real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.pool_settings import Scaling
from fleet.types import Caps, Fleet
from routing.scheduling.replica_figures import ReplicaState
from routing.scheduling.report import PoolReport
from tests.fakes import eventually, key_of, small_fleet
from tests.integration.test_discovery import Moving, moving_of
from tests.integration.test_restarts import ended, restart


def ranged_fleet(most: int) -> Fleet:
    """A shared pool of none to so many replicas."""
    fleet = small_fleet(replicas=most, max_num_seqs=4, caps=Caps(queue_timeout_s=0.3))
    shared = replace(fleet.pools["shared"], scaling=Scaling(0, hold_s=30.0))
    return replace(fleet, pools=fleet.pools | {"shared": shared})


@pytest.fixture
async def ranged(tmp_path: Path) -> AsyncIterator[Moving]:
    """A shared pool of none to two replicas; both are there."""
    async with moving_of(ranged_fleet(2), tmp_path) as moving:
        await eventually(lambda: moving.is_ready("shared-0") and moving.is_ready("shared-1"))
        yield moving


def shown(moving: Moving) -> PoolReport:
    """What operators see of the pool."""
    return next(pool for pool in moving.bench.gateway.dispatcher.report().pools if pool.name == "shared")


async def emptied(moving: Moving) -> dict[str, str]:
    """Take every replica of the pool away, as whoever scales it does; return where they were."""
    addresses = dict(moving.addresses)
    moving.say(shared_0=None, shared_1=None)
    await eventually(lambda: not (moving.is_ready("shared-0") or moving.is_ready("shared-1")))
    return addresses


def without_the_second(moving: Moving) -> None:
    """Want one replica, and take the other one away."""
    moving.say(shared_1=None)
    scale = moving.bench.gateway.dispatcher.groups["shared", "base"].scale
    scale.take(replace(moving.bench.gateway.fleet.now.pools["shared"], scaling=Scaling(0), replicas=1))


def desired_on_page(moving: Moving) -> float | None:
    page = moving.bench.gateway.metrics.page().decode()
    lines = [line for line in page.splitlines() if line.startswith("tenantry_pool_desired_replicas{")]
    assert all('pool="shared"' in line for line in lines), "the other pool's number is fixed"
    return float(lines[0].rpartition(" ")[2]) if lines else None


async def test_a_request_is_held_until_the_first_replica_is_there(ranged: Moving) -> None:
    addresses = await emptied(ranged)
    assert ranged.bench.gateway.is_ready(), "requests are to come, and to wait"
    clients = [ranged.bench.chat(model="support").start() for _ in range(3)]
    dispatcher = ranged.bench.gateway.dispatcher
    await eventually(lambda: len(list(dispatcher.waiting())) == 3)
    assert {ticket.waits_for for ticket in dispatcher.waiting()} == {"from_zero"}
    await eventually(lambda: (desired_on_page(ranged) or 0) >= 1)
    await asyncio.sleep(0.9)  # three of its tenants' timeouts
    ranged.say(shared_0=addresses["shared-0"])
    answers = [await client.done() for client in clients]
    assert {client.status for client in answers} == {200}
    assert not ranged.bench.engines["shared-1"].seen


async def test_what_is_held_is_refused_when_the_first_engine_fails(tmp_path: Path) -> None:
    async with moving_of(ranged_fleet(1), tmp_path) as moving:
        await eventually(moving.is_ready)
        address = moving.addresses["shared-0"]
        moving.say(shared_0=None)
        await eventually(lambda: not moving.is_ready())
        moving.bench.engines["shared-0"].fail("CUDA out of memory")
        client = moving.bench.chat(model="support").start()
        await eventually(lambda: bool(list(moving.bench.gateway.dispatcher.waiting())))
        moving.say(shared_0=address)
        answer = await client.done()
        assert (answer.status, answer.error["code"]) == (503, "queue_timeout")
        assert "does not start" in answer.error["message"] and "CUDA" not in answer.error["message"]


async def test_a_client_that_leaves_while_it_is_held_leaves_nothing_behind(ranged: Moving) -> None:
    await emptied(ranged)
    client = ranged.bench.chat(model="support").start()
    await eventually(lambda: bool(list(ranged.bench.gateway.dispatcher.waiting())))
    client.leave()
    await eventually(lambda: ranged.bench.at_rest)


async def test_a_replica_that_need_not_be_there_is_away_for_operators_and_scrapers(ranged: Moving) -> None:
    without_the_second(ranged)
    await eventually(lambda: shown(ranged).replicas[1].state is ReplicaState.AWAY)
    page = ranged.bench.gateway.metrics.page().decode()
    assert 'tenantry_replica_ready{pool="shared",replica="shared-0"}' in page
    assert 'tenantry_replica_ready{pool="shared",replica="shared-1"}' not in page


async def test_a_restart_of_the_pool_leaves_out_replicas_that_need_not_be_there(ranged: Moving) -> None:
    without_the_second(ranged)
    await eventually(lambda: shown(ranged).replicas[1].state is ReplicaState.AWAY)
    gateway = ranged.bench.gateway
    await restart(ranged.bench)()
    answer = await ended(ranged.bench)
    assert (answer["state"], [step["replica"] for step in answer["replicas"]]) == ("done", ["shared-0"])
    gateway.restarts.renew(["shared"])
    answer = await ended(ranged.bench)
    assert (answer["state"], [step["replica"] for step in answer["replicas"]]) == ("done", ["shared-0"])


async def test_nothing_is_sent_to_where_a_replica_was_that_is_gone(ranged: Moving) -> None:
    """Its address may be somebody else's by now, and each call shows the token."""
    path, key = "/metrics/shared-1", key_of("operator")
    assert (await ranged.bench.get(path, key=key)()).status == 200
    ranged.say(shared_1=None)
    await eventually(lambda: ranged.bench.gateway.dispatcher.replicas["shared-1"].engine.told is None)
    assert (await ranged.bench.get(path, key=key)()).status == 503, "though what is there would answer"


async def test_operators_see_what_is_wanted_and_why(ranged: Moving) -> None:
    await eventually(lambda: shown(ranged).replicas_desired == 2, "what is there as it begins")
    answer = await ranged.bench.get("/admin/v1/scheduler", key=key_of("operator"))()
    pool = next(pool for pool in answer.json()["pools"] if pool["name"] == "shared")
    assert (pool["replicas_least"], pool["replicas_most"], pool["replicas_desired"]) == (0, 2, 2)
    assert pool["desired_reason"].startswith("the gateway has just begun, with 2 there")

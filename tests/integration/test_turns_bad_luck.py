"""What may go wrong while whole models take turns. The hosts are fake, the sockets real."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fleet.types import Caps
from routing.turns import seats as seats_module
from routing.turns import switching as switching_module
from routing.turns.report import ModelState
from tests.fakes import eventually
from tests.integration.mesh import Mesh, mesh_fleet, mesh_of, said

PATIENT = Caps(queue_timeout_s=20.0)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seats_module, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(seats_module, "LAST_PAUSE_S", 0.05)
    monkeypatch.setattr(switching_module, "GRACE_S", 0.2)


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    """Three models on one host, one awake."""
    async with mesh_of(mesh_fleet(caps=PATIENT), tmp_path) as mesh:
        yield mesh


def state(mesh: Mesh, model: str) -> ModelState:
    return next(each.state for each in mesh.gateway.turns.report().models if each.model == model)


async def test_an_engine_that_dies_while_it_wakes_comes_again_and_who_waits_is_answered(mesh: Mesh) -> None:
    await mesh.ask("one")()
    engine = mesh.engine("two")
    engine.loading.clear()
    waiting = [asyncio.create_task(mesh.ask("two", tenant)()) for tenant in "abab"]
    await eventually(lambda: state(mesh, "two") is ModelState.WAKING)
    engine.never_loads = "the engine's core died while it loaded"
    engine.loading.set()
    await eventually(lambda: state(mesh, "two") in (ModelState.FAILED, ModelState.QUARANTINED))
    engine.never_loads = ""
    assert {said(await client) for client in waiting} == {"I am two"}
    assert said(await mesh.ask("one")()) == "I am one"


async def test_an_engine_that_dies_while_its_turn_ends_gives_its_place_to_who_waits_for_it(
    mesh: Mesh,
) -> None:
    await mesh.ask("one")()
    busy, running = await mesh.keep_busy("one")
    other = asyncio.create_task(mesh.ask("two")())
    await eventually(lambda: state(mesh, "one") is ModelState.DRAINING)
    busy.behave = busy.answer
    await mesh.kill("mesh-0")  # with the connection of what it runs
    await mesh.revive("mesh-0")
    assert said(await other) == "I am two"
    lost = await running
    assert lost.status in (502, 503), "it had begun, and no other host has its model"
    assert said(await mesh.ask("one")()) == "I am one"


async def test_a_pools_only_host_fails_with_models_asleep_on_it_and_nobody_is_refused(mesh: Mesh) -> None:
    await mesh.ask("one")()
    await mesh.kill("mesh-0")
    waiting = {model: asyncio.create_task(mesh.ask(model)()) for model in ("two", "three")}
    await eventually(lambda: state(mesh, "two") is ModelState.UNKNOWN, "that its host is silent")
    waiting["one"] = asyncio.create_task(mesh.ask("one")())
    await eventually(lambda: state(mesh, "three") is ModelState.UNKNOWN)
    assert not any(task.done() for task in waiting.values())
    assert all(model.reason == "" for model in mesh.gateway.turns.report().models), "no model is to blame"
    await mesh.revive("mesh-0")
    for model, task in waiting.items():
        assert said(await task) == f"I am {model}"


async def test_a_host_that_is_killed_while_a_model_wakes_beside_another_has_both_again(
    tmp_path: Path,
) -> None:
    async with mesh_of(mesh_fleet(awake=2, caps=PATIENT), tmp_path) as mesh:
        await mesh.ask("one")()
        engine = mesh.engine("two")
        engine.loading.clear()
        waiting = asyncio.create_task(mesh.ask("two")())
        await eventually(lambda: state(mesh, "two") is ModelState.WAKING)
        mesh.hosts["mesh-0"].restart()
        engine.loading.set()
        assert said(await waiting) == "I am two"
        assert said(await mesh.ask("one")()) == "I am one"


@pytest.mark.parametrize("for_long", [False, True])
async def test_a_host_that_answers_no_probe_while_it_starts_an_engine_is_waited_for(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, for_long: bool
) -> None:
    if for_long:
        monkeypatch.setattr(switching_module, "SILENT_S", 0.1)
    engine, host = mesh.engine("two"), mesh.hosts["mesh-0"]
    engine.loading.clear()
    waiting = asyncio.create_task(mesh.ask("two")())
    await eventually(lambda: state(mesh, "two") is ModelState.WAKING)
    host.mute, probed = True, engine.probed
    await eventually(lambda: engine.probed >= probed + 3, "three probes that were missed")
    if for_long:
        await eventually(lambda: state(mesh, "two") is not ModelState.WAKING, "the end of the wait")
    host.mute = False
    engine.loading.set()
    assert said(await waiting) == "I am two"
    failed = [key for key in mesh.pool.switches if key[3] == "failed"]
    assert bool(failed) is for_long
    assert not [each.reason for each in mesh.gateway.turns.report().models if each.reason]


async def test_a_model_that_goes_gets_nothing_while_its_host_has_not_answered_the_order_yet(
    mesh: Mesh,
) -> None:
    await mesh.ask("one")()
    host = mesh.hosts["mesh-0"]
    host.obeys.clear()
    other = asyncio.create_task(mesh.ask("two")())
    await eventually(lambda: ("start", "two", "one") in host.orders, "the order")
    seen = len(mesh.engine("one").seen)
    again = asyncio.create_task(mesh.ask("one")())
    await eventually(lambda: len(mesh.gateway.dispatcher.groups["mesh", "one"].backlog) == 1, "its wait")
    await asyncio.sleep(0.3)  # some decisions
    assert len(mesh.engine("one").seen) == seen and "one" not in mesh.awake()
    host.obeys.set()
    assert said(await other) == "I am two"
    assert said(await again) == "I am one"


async def test_two_hundred_models_of_which_ten_are_asked_for(tmp_path: Path) -> None:
    models = tuple(f"model-{number}" for number in range(200))
    chance = random.Random(1)
    busy = chance.sample(models, 10)
    caps = Caps(max_concurrency=200, queue_timeout_s=30.0)
    async with mesh_of(mesh_fleet(models, awake=4, caps=caps), tmp_path) as mesh:
        asked = [chance.choice(busy) for _ in range(120)]
        clients = [mesh.ask(model, chance.choice("ab")) for model in asked]
        await asyncio.gather(*(client() for client in clients))
        assert [said(client) for client in clients] == [f"I am {model}" for model in asked]
        host = mesh.hosts["mesh-0"]
        assert {model for _, model, _ in host.orders} <= set(busy), "nobody else was touched"
        assert host.most_seen <= 4 and host.refused == []


async def test_models_that_never_load_hold_up_nobody_who_waits_for_another(tmp_path: Path) -> None:
    models = tuple(f"model-{number}" for number in range(6))
    async with mesh_of(mesh_fleet(models, caps=PATIENT), tmp_path) as mesh:
        broken, well = models[:3], models[3:]
        for model in broken:
            mesh.engine(model).never_loads = "a tensor is missing"
        lost = [asyncio.create_task(mesh.ask(model)()) for model in broken]
        answered = [asyncio.create_task(mesh.ask(model)()) for model in well * 3]
        assert {said(await task) for task in answered} == {f"I am {model}" for model in well}
        assert {(await task).status for task in lost} == {503}


async def test_all_clients_of_several_waking_models_leave_and_nothing_of_them_is_left(
    tmp_path: Path,
) -> None:
    async with mesh_of(mesh_fleet(awake=2, caps=PATIENT), tmp_path) as mesh:
        for model in ("one", "two"):
            mesh.engine(model).loading.clear()
        clients = [mesh.ask(model, tenant, stream=True) for model in ("one", "two") for tenant in "ab"]
        waiting = [asyncio.create_task(client()) for client in clients]
        await eventually(lambda: state(mesh, "one") is ModelState.WAKING)
        for client in clients:
            client.leave()
        await asyncio.gather(*waiting)
        assert mesh.at_rest
        for model in ("one", "two"):
            mesh.engine(model).loading.set()
        assert said(await mesh.ask("two")()) == "I am two"


def needs_alone(mesh: Mesh, model: str, words: str) -> None:
    """Have a model not start beside another one, in these words of its engine."""
    engine, come = mesh.engine(model), mesh.engine(model).come
    others = [each for each in mesh.hosts["mesh-0"].engines.values() if each is not engine]

    async def alone() -> None:
        engine.never_loads = words if any(not each.stopped for each in others) else ""
        await come()

    vars(engine)["come"] = alone


async def test_a_model_that_finds_no_memory_beside_another_comes_once_that_has_gone(tmp_path: Path) -> None:
    async with mesh_of(mesh_fleet(awake=2, caps=PATIENT), tmp_path) as mesh:
        needs_alone(mesh, "two", "torch.OutOfMemoryError: CUDA out of memory.")
        busy, running = await mesh.keep_busy("one")
        asked = asyncio.create_task(mesh.ask("two")())
        await eventually(lambda: state(mesh, "two") is ModelState.FAILED)
        await eventually(lambda: state(mesh, "one") is ModelState.DRAINING, "its turn's end")
        busy.release.set()
        assert said(await running) == "I am one", "what runs is never cut off"
        assert said(await asked) == "I am two"
        assert mesh.awake() == {"two"} and busy.cut == 0


async def test_a_model_that_fails_for_another_reason_drives_nobody_out(tmp_path: Path) -> None:
    async with mesh_of(mesh_fleet(awake=2, caps=PATIENT), tmp_path) as mesh:
        await mesh.ask("one")()
        mesh.engine("two").never_loads = "ValueError: no such architecture"
        await mesh.ask("two")()
        await eventually(lambda: state(mesh, "two") is ModelState.QUARANTINED)
        assert mesh.awake() == {"one"}
        assert [order for order in mesh.hosts["mesh-0"].orders if order[1] == "one"] == [
            ("start", "one", None)
        ]

"""What operators order of whole models that take turns, in whatever state these are. The hosts are fake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from routing.turns import seats as seats_module
from tests.fakes import eventually
from tests.integration.mesh import Mesh, mesh_fleet, mesh_of, said


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    """Three models on one host, one awake."""
    async with mesh_of(mesh_fleet(), tmp_path) as mesh:
        yield mesh


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seats_module, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(seats_module, "LAST_PAUSE_S", 0.05)


async def dry_run(mesh: Mesh, model: str) -> dict[str, Any]:
    """What waking a model would do."""
    told: dict[str, Any] = (await mesh.admin(f"models/{model}/wake?dry_run=true")()).json()["data"][0]
    return told


def state(mesh: Mesh, model: str) -> str:
    return next(each.state.value for each in mesh.gateway.turns.report().models if each.model == model)


@pytest.mark.parametrize("order", ["wake", "pin"])
async def test_a_model_that_was_put_to_sleep_stays_where_it_is_ordered_back_before_it_has_gone(
    tmp_path: Path, order: str
) -> None:
    async with mesh_of(mesh_fleet(awake=2), tmp_path) as mesh:
        await mesh.ask("one")()
        busy, running = await mesh.keep_busy("one")
        await mesh.admin("models/one/sleep")()
        await eventually(lambda: state(mesh, "one") == "draining")
        told = await dry_run(mesh, "one")
        assert (told["host"], told["wait_s"], told["why"]) == ("mesh-0", 0.0, "its turn would go on")
        await mesh.admin(f"models/one/{order}")()
        await eventually(lambda: mesh.awake() == {"one"}, "its turn")
        busy.release.set()
        await running
        assert said(await mesh.ask("one")()) == "I am one"
        assert mesh.hosts["mesh-0"].orders == [("start", "one", None)]


async def test_a_model_that_is_put_to_sleep_while_it_wakes_goes_once_who_waited_is_answered(
    mesh: Mesh,
) -> None:
    engine = mesh.engine("one")
    engine.loading.clear()
    asked = asyncio.create_task(mesh.ask("one")())
    await eventually(lambda: state(mesh, "one") == "waking")
    await mesh.admin("models/one/sleep")()
    engine.loading.set()
    assert said(await asked) == "I am one"
    await eventually(lambda: state(mesh, "one") == "on_disk", "its end")
    assert said(await mesh.ask("one")()) == "I am one"
    assert state(mesh, "one") == "awake", "that order is done"


async def test_one_that_did_not_come_is_not_put_to_sleep_the_next_time(mesh: Mesh) -> None:
    engine = mesh.engine("one")
    engine.loading.clear()
    engine.never_loads = "ValueError: no such architecture"
    asked = asyncio.create_task(mesh.ask("one")())
    await eventually(lambda: state(mesh, "one") == "waking")
    await mesh.admin("models/one/sleep")()
    engine.loading.set()
    await asked
    engine.never_loads = ""
    await mesh.admin("models/one/wake")()
    await eventually(lambda: state(mesh, "one") == "awake")
    assert "sleeps" not in [event.what for event in mesh.pool.timeline.events]


async def test_a_dry_run_tells_of_one_that_comes_already(mesh: Mesh) -> None:
    engine = mesh.engine("one")
    engine.loading.clear()
    asked = asyncio.create_task(mesh.ask("one")())
    await eventually(lambda: state(mesh, "one") == "waking")
    told = await dry_run(mesh, "one")
    assert (told["host"], told["why"]) == ("mesh-0", "it comes already")
    engine.loading.set()
    await asked


async def test_a_dry_run_tells_of_a_quarantined_one_what_waking_it_does(mesh: Mesh) -> None:
    engine = mesh.engine("one")
    engine.never_loads = "ValueError: no such architecture"
    await mesh.ask("one")()
    await eventually(lambda: state(mesh, "one") == "quarantined")
    told = await dry_run(mesh, "one")
    why = "it would be tried again now; it failed: ValueError: no such architecture"
    assert (told["host"], told["why"]) == ("mesh-0", why)
    assert told["wait_s"] is not None
    assert state(mesh, "one") == "quarantined"
    engine.never_loads = ""
    woken = (await mesh.admin("models/one/wake")()).json()["data"][0]
    assert (woken["host"], woken["why"]) == ("mesh-0", why)
    await eventually(lambda: mesh.awake() == {"one"}, "its turn")


async def test_a_dry_run_refuses_what_the_order_would(mesh: Mesh) -> None:
    await mesh.admin("replicas/mesh-0.two/drain")()
    for query in ("", "?dry_run=true"):
        refused = await mesh.admin(f"models/two/wake{query}")()
        assert (refused.status, refused.json()["error"]["code"]) == (409, "drained")
        unknown = await mesh.admin(f"models/nobody/wake{query}")()
        assert (unknown.status, unknown.json()["error"]["code"]) == (404, "model_not_found")
        assert "`tenantry models` lists" in unknown.json()["error"]["message"]


async def test_why_a_model_cannot_come_now_is_a_sentence(tmp_path: Path) -> None:
    async with mesh_of(mesh_fleet(("one", "two"), pinned=("one",)), tmp_path) as mesh:
        await eventually(lambda: mesh.awake() == {"one"}, "the pinned model")
        told = await dry_run(mesh, "two")
        assert (told["host"], told["why"]) == (None, "only pinned models are awake: unpin one")
        mesh.replica("two").engine.told = None
        assert (await dry_run(mesh, "two"))["why"] == "its host does not answer"

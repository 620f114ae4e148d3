"""Whole models take turns. The hosts are fake, the sockets real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.types import Caps, Slo
from routing.turns import seats as seats_module
from routing.turns import switching as switching_module
from routing.turns.report import ModelState
from tests.fakes import Client, eventually
from tests.integration.mesh import MODELS, FakeHost, Mesh, is_stopped, mesh_fleet, mesh_of, said

SCARCE = Caps(queue_timeout_s=20.0)
LIMIT = "tenantry_model_starvation_limit_seconds"
NOTICED_S = 0.3  # a tick of the gateway, and what a loaded machine adds


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    """Three models on one host, one awake."""
    async with mesh_of(mesh_fleet(), tmp_path) as mesh:
        yield mesh


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seats_module, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(seats_module, "LAST_PAUSE_S", 0.05)
    monkeypatch.setattr(switching_module, "GRACE_S", 0.2)


def states(mesh: Mesh) -> dict[str, str]:
    return {model.model: model.state.value for model in mesh.gateway.turns.report().models}


async def test_a_gateway_is_ready_while_all_its_models_are_on_disk(mesh: Mesh) -> None:
    assert mesh.gateway.is_ready()
    assert mesh.awake() == set()
    assert set(states(mesh).values()) == {ModelState.ON_DISK}


async def test_a_request_for_a_model_on_disk_waits_for_it_and_says_how_long(mesh: Mesh) -> None:
    client = await mesh.ask("two")()
    assert (client.status, said(client)) == (200, "I am two")
    headers = client.headers
    assert 0 <= int(headers["x-tenantry-wake-ms"]) <= int(headers["x-tenantry-queue-ms"])
    again = await mesh.ask("two")()
    assert "x-tenantry-wake-ms" not in again.headers
    assert mesh.hosts["mesh-0"].orders == [("start", "two", None)]


async def test_models_take_turns_and_no_answer_is_another_models(mesh: Mesh) -> None:
    clients = {i: mesh.ask(MODELS[i % 3], stream=False) for i in range(30)}
    await asyncio.gather(*(client() for client in clients.values()))
    assert {i: said(c) for i, c in clients.items()} == {i: f"I am {MODELS[i % 3]}" for i in range(30)}
    host = mesh.hosts["mesh-0"]
    assert host.most_seen == 1
    assert host.refused == []
    assert max(engine.cut for engine in host.engines.values()) == 0


async def test_a_probe_that_was_under_way_in_a_switch_opens_no_model_that_has_gone(mesh: Mesh) -> None:
    await mesh.ask("one")()
    engine, replica = mesh.engine("one"), mesh.replica("one")
    old = engine.is_told = asyncio.Event()
    before = engine.probed
    mesh.gateway.lifecycle.engines.look_at(replica.name)
    await eventually(lambda: engine.probed > before, "a probe that is under way")
    before = engine.probed
    await mesh.ask("two")()
    later = engine.is_told = asyncio.Event()
    old.set()
    await eventually(lambda: engine.probed > before, "the next probe")
    mesh.pool.decide()
    assert mesh.awake() == {"two"} and not replica.ready
    later.set()
    await mesh.ask("three")()
    assert mesh.hosts["mesh-0"].refused == []


async def test_a_switchs_time_is_borne_by_those_who_waited_for_it(mesh: Mesh) -> None:
    both = [mesh.ask("two", "a"), mesh.ask("two", "b")]
    await asyncio.gather(*(client() for client in both))
    await mesh.ask("two", "b")()  # it waits for none
    mesh.gateway.ended.flush()
    told = (await mesh.admin("usage?group_by=tenant,model", "GET")()).json()
    shares = {line["tenant"]: line["switch_s"] for line in told["data"]}
    took_s = mesh.pool.switch_s["two", "cold"]
    assert shares["a"] == pytest.approx(shares["b"]) == pytest.approx(took_s / 2, abs=1e-5)
    assert (await mesh.admin("usage?format=csv&group_by=tenant", "GET")()).body.count(b"switch_s") == 1
    page = mesh.gateway.metrics.page().decode()
    assert 'tenantry_engine_switch_seconds_total{pool="mesh",tenant="a",model="two"' in page
    assert 'tenantry_engine_seconds_total{pool="mesh",tenant="b",model="two"' in page


async def test_a_waiting_request_is_explained_by_the_turn_that_it_waited_for(mesh: Mesh) -> None:
    await mesh.ask("one")()
    busy, running = await mesh.keep_busy("one")
    other = mesh.ask("two")
    waiting = asyncio.create_task(other())
    await eventually(lambda: states(mesh)["one"] == ModelState.DRAINING)
    still = (await mesh.admin("scheduler?request=&decisions=0", "GET")()).status
    assert still == 422 or still == 400, "an empty name is no request's"
    busy.release.set()
    await asyncio.gather(running, waiting)
    name = other.headers["x-request-id"]
    told = (await mesh.admin(f"scheduler?request={name}", "GET")()).json()
    assert [d["action"] for d in told["decisions"]] == ["granted", "queued"]
    turns = [(turn["what"], turn["instead_of"]) for turn in told["turns"] if turn["what"] != "held"]
    assert turns == [("drains", "one"), ("begins", "one"), ("awake", "one")]
    assert "draining" in [turn["why"] for turn in told["turns"] if turn["what"] == "held"]
    assert {turn["model"] for turn in told["turns"]} == {"two"}
    assert (await mesh.admin("scheduler", "GET")()).json()["turns"] == []


async def test_who_comes_while_its_model_wakes_is_told_of_the_switch_that_was_under_way(mesh: Mesh) -> None:
    engine = mesh.engine("two")
    engine.loading.clear()
    first = asyncio.create_task(mesh.ask("two")())
    await eventually(lambda: states(mesh)["two"] == ModelState.WAKING)
    later = mesh.ask("two", "b")
    waiting = asyncio.create_task(later())
    await eventually(lambda: len(mesh.gateway.dispatcher.groups["mesh", "two"].backlog) == 2)
    engine.loading.set()
    await asyncio.gather(first, waiting)
    told = (await mesh.admin(f"scheduler?request={later.headers['x-request-id']}", "GET")()).json()
    assert [turn["what"] for turn in told["turns"]] == ["begins", "awake"]


async def test_a_stream_that_waits_is_told_for_what_and_about_how_long(tmp_path: Path) -> None:
    fleet = mesh_fleet()
    async with mesh_of(replace(fleet, gateway=replace(fleet.gateway, heartbeat_s=0.02)), tmp_path) as mesh:
        engine = mesh.engine("two")
        engine.loading.clear()
        client = mesh.ask("two", stream=True).start()
        await eventually(lambda: client.body.count(b": waiting for model two, about 20 s\n\n") >= 2)
        assert client.status == 200
        engine.behave = engine.hold
        engine.loading.set()
        await eventually(lambda: client.body.endswith(b": keep-alive\n\n"), "its model's own silence")
        engine.release.set()
        await client.done()
        events = [part for part in client.body.split(b"\n\n") if part and not part.startswith(b":")]
        assert all(event.startswith(b"data: ") for event in events) and events[-1] == b"data: [DONE]"


async def test_a_switch_that_nobody_waits_for_is_nobodys(mesh: Mesh) -> None:
    await mesh.admin("models/one/wake")()
    await eventually(lambda: mesh.awake() == {"one"}, "the model that was woken")
    await mesh.ask("one")()
    mesh.gateway.ended.flush()
    told = (await mesh.admin("usage", "GET")()).json()
    assert (told["total"]["requests"], told["total"]["switch_s"]) == (1, 0)
    assert mesh.pool.switch_s["one", "cold"] > 0


async def test_requests_of_one_model_come_together_in_one_turn(mesh: Mesh) -> None:
    await asyncio.gather(*(mesh.ask(model, tenant)() for model in ("one", "two") * 8 for tenant in "ab"))
    assert len([order for order in mesh.hosts["mesh-0"].orders if order[0] == "start"]) <= 4


async def test_what_a_model_runs_ends_before_it_goes(mesh: Mesh) -> None:
    await mesh.ask("one")()
    busy = mesh.engine("one")
    busy.behave = busy.hold_mid_stream
    running = asyncio.create_task(mesh.ask("one", stream=True)())
    await eventually(lambda: busy.running == 1)
    other = asyncio.create_task(mesh.ask("two")())
    await eventually(lambda: states(mesh)["one"] == ModelState.DRAINING, "the end of one's turn")
    assert not other.done()
    host = mesh.hosts["mesh-0"]
    await eventually(lambda: host.prepared == ["two"], "what comes next, read meanwhile")
    busy.release.set()
    assert said(await other) == "I am two"
    assert (await running).status == 200
    assert busy.cut == 0


async def test_a_turn_that_is_over_goes_on_where_nobody_waits_any_more(mesh: Mesh) -> None:
    await mesh.ask("one")()
    busy, running = await mesh.keep_busy("one")
    other = mesh.ask("two")
    leaving = asyncio.create_task(other())
    await eventually(lambda: states(mesh)["one"] == ModelState.DRAINING)
    other.leave()
    await eventually(lambda: states(mesh)["one"] == ModelState.AWAKE, "its turn going on")
    busy.release.set()
    await asyncio.gather(running, leaving)
    assert is_stopped(mesh.engine("two"))


async def test_a_load_goes_on_when_all_clients_leave_and_is_one_for_all(mesh: Mesh) -> None:
    engine = mesh.engine("one")
    engine.loading.clear()
    clients = [mesh.ask("one", tenant) for tenant in "abab"]
    waiting = [asyncio.create_task(client()) for client in clients]
    await eventually(lambda: states(mesh)["one"] == ModelState.WAKING)
    for client in clients:
        client.leave()
    await asyncio.gather(*waiting)
    assert mesh.at_rest
    engine.loading.set()
    await eventually(lambda: mesh.awake() == {"one"}, "the model that nobody waits for")
    assert mesh.hosts["mesh-0"].orders == [("start", "one", None)]
    assert said(await mesh.ask("one")()) == "I am one"


async def test_a_flood_for_one_model_does_not_keep_the_others_away(tmp_path: Path) -> None:
    fleet = mesh_fleet(caps=Caps(max_concurrency=500, max_queued=500), starvation_limit_s=0.3, max_turn_s=0.2)
    async with mesh_of(fleet, tmp_path) as mesh:
        stop = False
        flooded: list[Client] = []

        async def flood() -> None:
            while not stop:
                flooded.append(await mesh.ask("one")())

        engine = mesh.engine("one")

        async def slowly(body: object, send: object) -> None:
            await asyncio.sleep(0.02)
            await engine.answer(body, send)  # type: ignore[arg-type]

        engine.behave = slowly
        floods = [asyncio.create_task(flood()) for _ in range(40)]
        await eventually(lambda: len(flooded) > 20)
        for model in ("two", "three", "two"):
            assert said(await mesh.ask(model, "b")()) == f"I am {model}"
        stop = True
        await asyncio.gather(*floods)
        assert {client.status for client in flooded} == {200}
        assert engine.cut == 0


async def test_in_a_flood_for_one_model_nobody_waits_longer_than_the_limit_a_drain_and_a_switch(
    tmp_path: Path,
) -> None:
    """By the driver, its metrics, and what clients are told, not by the rule alone."""
    fleet = mesh_fleet(caps=Caps(max_concurrency=500, max_queued=500), starvation_limit_s=0.5)
    async with mesh_of(fleet, tmp_path) as mesh:
        for model in MODELS:  # then the costs of its switches are known
            await mesh.ask(model)()
        pool, stop, limits_s = mesh.pool, False, list[float]()
        pool.figures.longest_drain_s = 0.05
        answered: list[Client] = []
        engine = mesh.engine("one")

        async def slowly(body: object, send: object) -> None:
            await asyncio.sleep(0.02)
            await engine.answer(body, send)  # type: ignore[arg-type]

        engine.behave = slowly

        async def flood() -> None:
            while not stop:
                answered.append(await mesh.ask("one")())

        async def watch() -> None:
            while not stop:
                page = mesh.gateway.metrics.page().decode()
                (line,) = (each for each in page.splitlines() if each.startswith(f"{LIMIT}{{"))
                limits_s.append(float(line.rpartition(" ")[2]))
                await asyncio.sleep(0.01)

        crowd = [asyncio.create_task(flood()) for _ in range(40)]
        watching = asyncio.create_task(watch())
        await eventually(lambda: len(answered) > 20)
        others: list[Client] = []
        for _ in range(4):
            others += await asyncio.gather(*(mesh.ask(model, "b")() for model in ("two", "three")))
        stop = True
        await asyncio.gather(*crowd, watching)
        waits_s = [int(each.headers.get("x-tenantry-wake-ms", 0)) / 1000 for each in (*others, *answered)]
        switch_s = max(pool.costs.expected("mesh-0", MODELS).values())
        assert {each.status for each in (*others, *answered)} == {200}
        assert max(waits_s[: len(others)]) > 0.05, "who asks in a flood has to wait"
        assert max(waits_s) <= max(limits_s) + pool.figures.longest_drain_s + switch_s + NOTICED_S
        assert max(limits_s) < 5.0, "the limit says something"


async def test_a_model_that_never_loads_is_quarantined_and_the_others_go_on(tmp_path: Path) -> None:
    async with mesh_of(mesh_fleet(caps=Caps(queue_timeout_s=1.0)), tmp_path) as mesh:
        mesh.engine("two").never_loads = "CUDA out of memory: 3 GiB wanted"
        lost = asyncio.create_task(mesh.ask("two")())
        await eventually(lambda: states(mesh)["two"] == ModelState.QUARANTINED, "its quarantine")
        tried = [order for order in mesh.hosts["mesh-0"].orders if order[:2] == ("start", "two")]
        assert len(tried) == 3
        assert is_stopped(mesh.engine("two"))
        told = next(m for m in mesh.gateway.turns.report().models if m.model == "two")
        assert told.reason == "CUDA out of memory: 3 GiB wanted"
        for model in ("one", "three", "one"):
            assert said(await mesh.ask(model)()) == f"I am {model}"
        assert (await lost).status == 503
        mesh.engine("two").never_loads = ""
        mesh.gateway.turns.wake("two")
        assert said(await mesh.ask("two")()) == "I am two"


async def test_a_host_that_is_killed_in_mid_switch_comes_back_with_the_model_that_was_waited_for(
    mesh: Mesh,
) -> None:
    await mesh.ask("one")()
    engine = mesh.engine("two")
    engine.loading.clear()
    waiting = asyncio.create_task(mesh.ask("two")())
    await eventually(lambda: states(mesh)["two"] == ModelState.WAKING)
    mesh.hosts["mesh-0"].restart()
    engine.loading.set()
    assert said(await waiting) == "I am two"
    assert said(await mesh.ask("one")()) == "I am one"


async def test_a_host_that_is_killed_while_a_model_serves_has_it_come_again(mesh: Mesh) -> None:
    await mesh.ask("one")()
    mesh.hosts["mesh-0"].restart()
    assert said(await mesh.ask("one")()) == "I am one"


async def test_an_operator_puts_a_busy_model_to_sleep_and_what_it_runs_ends(mesh: Mesh) -> None:
    await mesh.ask("one")()
    busy, running = await mesh.keep_busy("one")
    mesh.gateway.turns.sleep("one")
    await eventually(lambda: states(mesh)["one"] == ModelState.DRAINING)
    assert not is_stopped(busy)
    busy.release.set()
    assert said(await running) == "I am one"
    await eventually(lambda: is_stopped(busy), "its sleep")
    assert busy.cut == 0
    busy.behave = busy.answer
    assert said(await mesh.ask("one")()) == "I am one"


async def test_a_model_that_nobody_asks_for_goes_to_disk_after_its_ttl(tmp_path: Path) -> None:
    async with mesh_of(mesh_fleet(ttl_s=0.05), tmp_path) as mesh:
        await mesh.ask("one")()
        await eventually(lambda: is_stopped(mesh.engine("one")), "its sleep")
        assert said(await mesh.ask("one")()) == "I am one"


async def test_ten_models_at_a_start_come_with_the_pinned_and_preloaded_first_and_nobody_is_refused(
    tmp_path: Path,
) -> None:
    models = tuple(f"model-{number}" for number in range(10))
    fleet = mesh_fleet(models, awake=3, caps=SCARCE, preload=("model-7",), pinned=("model-4",))
    async with mesh_of(fleet, tmp_path) as mesh:
        clients = [mesh.ask(model) for model in models]
        await asyncio.gather(*(client() for client in clients))
        assert [said(client) for client in clients] == [f"I am {model}" for model in models]
        starts = [model for order, model, _ in mesh.hosts["mesh-0"].orders if order == "start"]
        assert starts[:2] == ["model-4", "model-7"]
        assert "model-4" in mesh.awake()
        assert mesh.hosts["mesh-0"].most_seen <= 3


async def test_engines_that_are_awake_when_the_gateway_starts_are_taken_as_they_are(tmp_path: Path) -> None:
    def one_is_awake(hosts: dict[str, FakeHost]) -> None:
        engine = hosts["mesh-0"].engines["three"]
        engine.stopped, engine.ready = False, True

    async with mesh_of(mesh_fleet(), tmp_path, prepare=one_is_awake) as mesh:
        await eventually(lambda: mesh.awake() == {"three"})
        assert said(await mesh.ask("three")()) == "I am three"
        assert mesh.hosts["mesh-0"].orders == []


async def test_two_hosts_have_two_models_awake(tmp_path: Path) -> None:
    async with mesh_of(mesh_fleet(hosts=2), tmp_path) as mesh:
        await asyncio.gather(mesh.ask("one")(), mesh.ask("two")())
        assert mesh.awake() == {"one", "two"}


async def test_an_objective_refuses_who_would_be_late_with_an_honest_delay(tmp_path: Path) -> None:
    async with mesh_of(mesh_fleet(slo=Slo(ttft_s=0.5)), tmp_path) as mesh:
        first = await mesh.ask("one")()
        assert first.status == 200, "who waits for nothing but a switch is never refused"
        busy, running = await mesh.keep_busy("one")
        mesh.pool.figures.answer_s = 30.0
        refused = await mesh.ask("two")()
        assert (refused.status, refused.json()["error"]["code"]) == (503, "overloaded")
        assert float(refused.headers["retry-after"]) >= 1
        busy.release.set()
        await running


async def test_hundreds_of_sleepers_are_hardly_asked(tmp_path: Path) -> None:
    models = tuple(f"model-{number}" for number in range(200))
    async with mesh_of(mesh_fleet(models), tmp_path) as mesh:
        await mesh.ask("model-0")()
        before = sum(mesh.engine(model).probed for model in models[1:])
        probed = mesh.engine("model-0").probed
        await eventually(lambda: mesh.engine("model-0").probed >= probed + 3, "three probes of the one awake")
        assert sum(mesh.engine(model).probed for model in models[1:]) == before


async def test_what_has_waited_too_long_for_its_turn_is_told_so(tmp_path: Path) -> None:
    async with mesh_of(mesh_fleet(caps=Caps(queue_timeout_s=0.3)), tmp_path) as mesh:
        mesh.engine("one").loading.clear()
        client = await mesh.ask("one")()
        assert (client.status, client.json()["error"]["code"]) == (503, "queue_timeout")
        assert "the model is not loaded yet" in client.json()["error"]["message"]


async def test_who_waits_for_a_model_that_cannot_come_is_told_at_once(tmp_path: Path) -> None:
    async with mesh_of(mesh_fleet(caps=SCARCE), tmp_path) as mesh:
        mesh.engine("two").never_loads = "a tensor is missing"
        first = await mesh.ask("two")()
        assert (first.status, first.json()["error"]["code"]) == (503, "no_replica_ready")
        assert (await mesh.ask("two")()).status == 503
        mesh.engine("two").never_loads = ""
        answer = await mesh.admin("models/two/wake")()
        assert answer.status == 200
        assert said(await mesh.ask("two")()) == "I am two"


async def test_orders_of_operators_are_done_and_are_events(mesh: Mesh) -> None:
    await mesh.ask("one")()
    dry = (await mesh.admin("models/two/wake?dry_run=true")()).json()["data"][0]
    assert (dry["host"], dry["instead_of"], dry["why"]) == ("mesh-0", "one", "it would come now")
    assert mesh.awake() == {"one"}
    await mesh.admin("models/two/wake")()
    await eventually(lambda: mesh.awake() == {"two"}, "the model that was woken")
    refused = await mesh.admin("models/two/pin")()
    assert (refused.status, refused.json()["error"]["code"]) == (409, "no_place")
    await mesh.admin("models/two/sleep")()
    await eventually(lambda: is_stopped(mesh.engine("two")), "its sleep")
    listed = (await mesh.admin("models", "GET")()).json()
    assert {model["state"] for model in listed["data"]} == {"on_disk"}
    assert [turn["what"] for turn in listed["turns"]][:3] == ["sleeps", "awake", "begins"]
    assert (await mesh.admin("models/nobody/wake")()).status == 404


async def test_a_pinned_model_stays_until_it_is_unpinned(tmp_path: Path) -> None:
    async with mesh_of(mesh_fleet(awake=2), tmp_path) as mesh:
        await mesh.admin("models/one/pin")()
        await eventually(lambda: mesh.awake() == {"one"}, "the pinned model")
        refused = await mesh.admin("models/one/sleep")()
        assert (refused.status, refused.json()["error"]["code"]) == (409, "pinned")
        for model in ("two", "three", "two", "three"):
            assert said(await mesh.ask(model)()) == f"I am {model}"
            assert "one" in mesh.awake()
        await mesh.admin("models/one/pin", "DELETE")()
        assert (await mesh.admin("models/one/sleep")()).status == 200
        await eventually(lambda: "one" not in mesh.awake(), "its end")


async def test_a_busy_hosts_metrics_say_who_came_how_and_why(mesh: Mesh) -> None:
    for model in ("one", "two"):
        await mesh.ask(model)()
    page = mesh.gateway.metrics.page().decode()
    assert 'tenantry_model_switches_total{pool="mesh",model="two",way="cold"' in page
    assert 'tenantry_model_awake_seconds_total{pool="mesh",host="mesh-0",model="one"}' in page


async def test_holds_are_counted_by_their_reason(mesh: Mesh) -> None:
    await mesh.ask("one")()
    busy, running = await mesh.keep_busy("one")
    other = asyncio.create_task(mesh.ask("two")())
    held = 'tenantry_model_holds_total{pool="mesh",model="two",why="draining"} 1'
    await eventually(lambda: held in mesh.gateway.metrics.page().decode(), "the hold")
    busy.release.set()
    await asyncio.gather(running, other)


async def test_a_model_that_is_used_all_the_time_does_not_sleep_for_its_ttl(tmp_path: Path) -> None:
    async with mesh_of(mesh_fleet(ttl_s=0.4), tmp_path) as mesh:
        await mesh.ask("one")()
        began_s = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < began_s + 1.2:
            assert (await mesh.ask("one")()).status == 200
        assert mesh.hosts["mesh-0"].orders == [("start", "one", None)]

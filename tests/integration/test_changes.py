"""Changes while others are stuck: nobody waits for ever, and what was given up is done or not done."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.states import VersionState
from routing.catalog.entries import AdapterEntry, AdapterKey, KeyRole, RolloutPlan, Version
from routing.errors import Conflict, StateUnavailable, Unavailable
from routing.lifecycle import changes, registry
from tests.fakes import eventually
from tests.integration.test_lifecycle import KEY, House, fleet_in, house_of

OTHER = AdapterKey("b", "billing")
SAME_TENANT = AdapterKey("a", "invoices")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with house_of(fleet_in(tmp_path), tmp_path) as house:
        yield house


def full(*_: object, **__: object) -> object:
    raise StateUnavailable("database or disk is full")


Change = Callable[[House, AdapterKey], Awaitable[object]]
CHANGES: dict[str, Change] = {
    "add": lambda house, key: house.add(7, key=key),
    "promote": lambda house, key: house.manager.promote(key, 1),
    "rollout": lambda house, key: house.manager.rollout(key, 2, RolloutPlan(weight=0.5)),
    "rollback": lambda house, key: house.manager.rollback(key),
    "pin": lambda house, key: house.manager.pin(key, True),
    "unpin": lambda house, key: house.manager.pin(key, False),
    "retire": lambda house, key: house.manager.retire(key, None),
}


@pytest.mark.parametrize("stuck", ["make_ready", "route"])
@pytest.mark.parametrize(
    "key", [KEY, SAME_TENANT, OTHER], ids=["same adapter", "same tenant", "other tenant"]
)
async def test_a_version_whose_last_step_fails_again_and_again_stops_no_change(
    house: House, monkeypatch: pytest.MonkeyPatch, key: AdapterKey, stuck: str
) -> None:
    """The database takes everything but one step of one version: it has become ready, or must be refused."""
    for number in (1, 2):
        await house.ready(number, key=key)
    if key != KEY:
        await house.ready(1)
    await eventually(lambda: house.entry(key).live == 2)
    store = house.lifecycle.registry._store
    real, tried = getattr(store, stuck), asyncio.Event()
    loop = asyncio.get_running_loop()

    def picky(what: AdapterKey | Version, **options: Any) -> object:
        if (what if isinstance(what, AdapterKey) else what.adapter) != KEY or heals:
            return real(what, **options)
        loop.call_soon_threadsafe(tried.set)
        return full()

    heals: list[bool] = []
    with monkeypatch.context() as broken:
        broken.setattr(store, stuck, picky)
        if stuck == "make_ready":
            await house.add(9)
        else:
            live = house.entry(KEY).version(house.entry(KEY).live or 0)
            assert live is not None
            house.lifecycle._spawn(house.lifecycle.refused(live))
        await asyncio.wait_for(tried.wait(), 20)
        for name, change in CHANGES.items():
            started_s = loop.time()
            try:
                await change(house, key)
            except (StateUnavailable, Conflict):
                assert key == KEY, name
            assert loop.time() - started_s < 4, name
        heals.append(True)
    if stuck == "make_ready" and key != KEY:
        await eventually(lambda: house.state(2) is VersionState.READY, "the stuck version's end")


async def test_a_database_that_hangs_is_told_in_time_and_what_was_refused_is_not_done(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.ready(1)
    await house.ready(2)
    await house.manager.promote(KEY, 1)
    monkeypatch.setattr(registry, "TURN_S", 0.2)
    release = threading.Event()
    hanging = house.lifecycle.registry._thread.submit(release.wait, 30)
    before = house.entry()
    try:
        for name in CHANGES:
            with pytest.raises(StateUnavailable, match="nothing was changed") as caught:
                await CHANGES[name](house, KEY)
            assert (caught.value.status, caught.value.retry_after_s) == (503, 5.0)
        with pytest.raises(StateUnavailable):
            await house.manager.create_key(KeyRole.INFERENCE, "a", note="", expires_s=None)
    finally:
        release.set()
    await asyncio.wrap_future(hanging)
    entries, keys = await house.lifecycle.registry._run(house.lifecycle.registry._store.load)
    assert next(entry for entry in entries if entry.key == KEY) == before == house.entry()
    assert keys == []
    await house.manager.promote(KEY, 2)


async def test_a_change_that_does_not_end_in_time_goes_on_and_is_seen(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.ready(1)
    await house.ready(2)
    monkeypatch.setattr(changes, "DEADLINE_S", 0.2)
    store = house.lifecycle.registry._store
    real, release = store.route, threading.Event()

    def slow(*args: Any, **options: Any) -> AdapterEntry:
        release.wait(30)
        return real(*args, **options)

    monkeypatch.setattr(store, "route", slow)
    with pytest.raises(Unavailable, match="goes on") as caught:
        await house.manager.promote(KEY, 1)
    assert (caught.value.status, caught.value.code) == (503, "change_unfinished")
    assert house.entry().live == 2
    release.set()
    await eventually(lambda: house.entry().live == 1, "the promotion")


@pytest.mark.parametrize("step", ["add_adapter", "add_version", "route"])
async def test_a_registration_whose_client_leaves_is_whole(
    house: House, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """At whatever step the client leaves: the version is there and becomes ready."""
    if step == "route":
        await house.ready(1)
    store = house.lifecycle.registry._store
    real, release, begun = getattr(store, step), threading.Event(), threading.Event()

    def slow(*args: Any, **options: Any) -> object:
        begun.set()
        release.wait(30)
        return real(*args, **options)

    monkeypatch.setattr(store, step, slow)
    plan = RolloutPlan(weight=0.5) if step == "route" else None
    client = asyncio.create_task(house.add(3, rollout=plan))
    await eventually(begun.is_set, "the change's beginning")
    client.cancel()
    await asyncio.gather(client, return_exceptions=True)
    release.set()
    number = 2 if step == "route" else 1
    await eventually(
        lambda: house.directory.adapter(KEY) is not None and house.entry().version(number) is not None,
        "the version",
    )
    await house.until(VersionState.READY, number)


async def test_changes_of_one_adapter_come_one_by_one_and_others_do_not_wait(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.ready(1)
    await house.ready(1, key=OTHER)
    monkeypatch.setattr(changes, "TURN_S", 0.2)
    async with house.lifecycle.changes.of(KEY):
        for name in CHANGES:
            with pytest.raises(Unavailable, match="nothing was changed") as caught:
                await CHANGES[name](house, KEY)
            assert caught.value.code == "change_running"
        await house.manager.pin(OTHER, True)
    await house.manager.promote(KEY, 1)
    assert house.entry().versions[-1].number == 1


async def test_pins_are_counted_together_though_adapters_change_at_once(house: House) -> None:
    """One of the slots must stay free whoever pins in the same moment."""
    slots = house.fleet.base_models["base"].max_loras
    keys = [AdapterKey("a", f"adapter-{number}") for number in range(slots + 1)]
    for key in keys:
        await house.ready(1, key=key)
    results = await asyncio.gather(*(house.manager.pin(key, True) for key in keys), return_exceptions=True)
    assert sum(isinstance(result, AdapterEntry) for result in results) == slots - 1
    assert sum(isinstance(result, Conflict) for result in results) == 2


async def test_a_rollback_that_comes_late_does_not_undo_what_was_decided_meanwhile(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.ready(1)
    await house.ready(2, rollout=RolloutPlan(weight=1.0))
    store = house.lifecycle.registry._store
    with monkeypatch.context() as broken:
        broken.setattr(store, "route", full)
        engine = house.bench.engines["shared-0"]
        engine.behave = engine.break_down
        for _ in range(5):
            await house.ask()
        engine.behave = engine.answer
        await eventually(lambda: house.entry().rollout is None, "the rollback in memory")
    await house.manager.promote(KEY, 2)
    await eventually(lambda: not house.lifecycle.conclusions._concluding, "the rollback's end")
    assert house.entry().live == 2

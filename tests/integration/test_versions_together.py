"""Versions of one adapter that are prepared, rolled out, taken back and retired while others are."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.checkpoint import AdapterManifest
from adapters.errors import SourceUnavailable, StoreFull
from adapters.states import VersionState
from adapters.verify import verify
from engines.residency import TrialReport
from routing.catalog.entries import RolloutPlan, Version
from routing.errors import Conflict, StateUnavailable
from routing.lifecycle.ports import NewVersion
from tests.fakes import eventually
from tests.integration.test_lifecycle import KEY, House, adapter_folder, fleet_in, house_of
from tests.integration.test_lifecycle import house as house

_S = VersionState
CANARY = RolloutPlan(weight=0.1)


class Gate:
    """Holds back the checks of versions until it is opened for them, by the order in which they came."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real: Callable[..., AdapterManifest] = verify
        self.came = 0
        self.open: dict[int, threading.Event] = {1: threading.Event(), 2: threading.Event()}
        monkeypatch.setattr("routing.lifecycle.preparation.verify", self._verify)

    def _verify(self, *args: Any, **options: Any) -> AdapterManifest:
        self.came += 1
        assert self.open[self.came].wait(10)
        return self._real(*args, **options)


def fail(house: House, version: Version) -> None:
    """Let each request of one version fail."""
    engine = house.bench.engines["shared-0"]

    async def behave(body: dict[str, Any], send: Any) -> None:
        await (engine.break_down if body["model"] == version.engine_id else engine.answer)(body, send)

    engine.behave = behave


async def rolled_back(house: House, version: Version) -> None:
    fail(house, version)
    for i in range(60):
        await house.ask(user=f"user-{i}")
        if house.entry().rollout is None:
            break
    await eventually(lambda: not house.lifecycle.conclusions._concluding, "the rollback's end")
    engine = house.bench.engines["shared-0"]
    engine.behave = engine.answer


# -- rollouts ----------------------------------------------------------------------------------------------


async def test_a_candidate_that_is_rolled_out_once_more_is_judged_by_what_it_does_then(house: House) -> None:
    await house.ready(1)
    second = await house.ready(2, rollout=RolloutPlan(weight=0.5))
    await rolled_back(house, second)
    assert house.reason(2).startswith("rolled back: errors: ")
    await house.manager.rollout(KEY, 2, RolloutPlan(weight=1.0))
    for _ in range(3):
        assert (await house.ask()).headers["x-tenantry-version"] == "2"
    assert house.entry().rollout is not None


async def test_a_candidate_of_an_adapter_that_is_not_ready_yet_does_not_take_over_all(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    await house.add(1)
    await eventually(lambda: gate.came == 1)
    await house.add(2, rollout=CANARY)
    gate.open[1].set()
    await house.until(_S.READY, 1)
    gate.open[2].set()
    await house.until(_S.READY, 2)
    entry = house.entry()
    assert entry.live == 1
    assert entry.rollout is not None and (entry.rollout.candidate, entry.rollout.plan) == (2, CANARY)


async def test_a_candidate_takes_over_where_the_version_before_it_is_refused(house: House) -> None:
    await house.add(1, config={"use_dora": True})
    await house.ready(2, rollout=CANARY)
    await house.until(_S.QUARANTINED, 1)
    assert house.entry().live == 2 and house.entry().rollout is None


async def test_a_version_that_becomes_ready_late_leaves_the_rollout_of_a_later_one(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.ready(1)
    gate = Gate(monkeypatch)
    await house.add(2)
    await eventually(lambda: gate.came == 1)
    await house.add(3, rollout=CANARY)
    gate.open[1].set()
    gate.open[2].set()
    await house.until(_S.READY, 3)
    await house.until(_S.READY, 2)
    rollout = house.entry().rollout
    assert house.entry().live == 2
    assert rollout is not None and rollout.candidate == 3


async def test_a_candidate_on_its_way_is_not_rolled_back_into_all_the_traffic(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.ready(1)
    gate = Gate(monkeypatch)
    await house.add(2, rollout=CANARY)
    await eventually(lambda: gate.came == 1)
    with pytest.raises(Conflict, match="retire it alone") as raised:
        await house.manager.rollback(KEY)
    assert raised.value.code == "version_not_ready"
    gate.open[1].set()
    await house.until(_S.READY, 2)
    assert house.entry().live == 1 and house.entry().rollout is not None
    await house.manager.rollback(KEY)
    assert house.entry().live == 1 and house.entry().rollout is None


# -- orders that come together -----------------------------------------------------------------------------


async def test_a_version_that_is_retried_while_its_refusal_is_told_is_verified_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, told, go = house.bench.engines["shared-0"], asyncio.Event(), asyncio.Event()
    refused = house.lifecycle.refused

    async def slowly(version: Version) -> None:
        told.set()
        await go.wait()
        await refused(version)

    monkeypatch.setattr(house.lifecycle, "refused", slowly)
    good, engine.trial = engine.trial, lambda _: TrialReport(False, "it is bad", 0.0, 0.0)
    await house.add(1)
    await told.wait()
    engine.trial = good
    await house.manager.verify(KEY, 1)
    go.set()
    await house.until(_S.READY)


async def test_a_version_that_gets_traffic_is_not_retired_to_make_room(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.ready(1)
    await house.ready(2)
    await house.ready(3)  # 1 is a version that answers nothing now
    lifecycle, real = house.lifecycle, house.lifecycle.registry.route
    routing, go = asyncio.Event(), asyncio.Event()

    async def slowly(*args: Any, **options: Any) -> Any:
        routing.set()
        await go.wait()
        return await real(*args, **options)

    def full(*_: object) -> None:
        raise StoreFull("there is no room")

    monkeypatch.setattr(lifecycle.registry, "route", slowly)
    monkeypatch.setattr(lifecycle.store, "make_room", full)
    promoting = asyncio.create_task(house.manager.promote(KEY, 1))
    await routing.wait()
    making = asyncio.create_task(lifecycle.make_room(1))
    await asyncio.sleep(0)
    go.set()
    await promoting
    with pytest.raises(StoreFull):
        await making
    assert house.entry().live == 1 and house.state(1) is _S.READY


async def test_a_silent_database_does_not_hide_that_the_store_is_full(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (1, 2, 3):
        await house.ready(seed)

    async def silent(_: Version) -> None:
        raise StateUnavailable("database or disk is full")

    def full(*_: object) -> None:
        raise StoreFull("there is no room")

    monkeypatch.setattr(house.lifecycle, "retire_version", silent)
    monkeypatch.setattr(house.lifecycle.store, "make_room", full)
    with pytest.raises(StoreFull):
        await house.lifecycle.make_room(1)


# -- what is left behind -----------------------------------------------------------------------------------


def staged(house: House) -> list[Path]:
    return list((house.folder / "state" / "adapters" / ".staging").iterdir())


async def test_a_version_that_is_retired_while_it_is_fetched_leaves_nothing_on_the_disk(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source is silent just then: whoever retires it does not wait for that."""
    begun, go = threading.Event(), threading.Event()

    def fetch(source: str, into: Path, **_: object) -> None:
        (into / ".adapter_model.safetensors.part").write_bytes(b"much of it")
        begun.set()
        assert go.wait(10)
        (into / ".adapter_model.safetensors.part").write_bytes(b"more of it")

    monkeypatch.setattr("adapters.sources.fetch", fetch)
    await house.add(1)
    await eventually(begun.is_set)
    assert staged(house)
    await house.manager.retire(KEY, None)
    assert house.state() is _S.RETIRED
    go.set()
    await eventually(lambda: not staged(house), "nothing to be left")


async def test_a_version_that_is_given_up_leaves_nothing_on_the_disk(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(source: str, into: Path, **_: object) -> None:
        (into / ".adapter_model.safetensors.part").write_bytes(b"much of it")
        raise SourceUnavailable("it does not answer")

    monkeypatch.setattr("routing.lifecycle.attempts.RETRY_DELAYS_S", (0.0,))
    monkeypatch.setattr("adapters.sources.fetch", fetch)
    await house.add(1)
    await house.until(_S.QUARANTINED)
    await eventually(lambda: not staged(house), "nothing to be left")


async def test_an_upload_is_there_until_the_reason_of_its_refusal_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that ends in between gives the same reason after its next start."""
    fleet = fleet_in(tmp_path)
    archive = shutil.make_archive(
        str(tmp_path / "upload"), "gztar", adapter_folder(tmp_path / "two", 2, use_dora=True)
    )
    async with house_of(fleet, tmp_path) as house:
        real, asked = house.lifecycle.registry.move, asyncio.Event()

        async def move(version: Version, to: VersionState, **options: Any) -> Version:
            if to is _S.QUARANTINED:
                asked.set()
                await asyncio.Event().wait()
            return await real(version, to, **options)

        monkeypatch.setattr(house.lifecycle.registry, "move", move)
        await house.manager.add(KEY, None, NewVersion(upload=Path(archive)))
        await asked.wait()
    async with house_of(fleet, tmp_path) as house:
        await house.until(_S.QUARANTINED)
        assert "DoRA" in house.reason()
        await eventually(lambda: not house.left_of_uploads(Path(archive)), "the archive to be removed")

"""A model goes to sleep, another one comes, and the first wakes: what of it fails, and what ends then?"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engines import sleeping as module
from engines.built import Running
from engines.loader import EngineDied
from engines.protocol import EngineOrder
from engines.sleeping import Sleeping, Wake
from engines.supervisor import Supervisor
from engines.switching.live import WaySpoiled
from engines.switching.turns import Turns
from engines.ways import Cold, SwitchFailed


class FakeTurns:
    """Says at which level an engine sleeps; `fails` are calls that raise."""

    def __init__(self) -> None:
        self.level = 1
        self.diary: list[str] = []
        self.fails: dict[str, Exception] = {}

    def level_of_sleep(self, engine: Any, *, has_slots: bool) -> int:
        return self.level

    def __getattr__(self, name: str) -> Any:
        async def call(engine: Any, *told: Any, **_: Any) -> None:
            level = "".join(f" {one}" for one in told if isinstance(one, int))
            self.diary.append(f"{name} {engine.name}{level}")
            if name in self.fails:
                raise self.fails[name]

        return call


class FakeSupervisor:
    """A model whose engine runs, or does not."""

    def __init__(self, name: str, diary: list[str], *, runs: bool = True) -> None:
        self.replica, self.name, self.diary = f"mesh-0.{name}", name, diary
        self.model = SimpleNamespace(serves_adapters=True, source=f"/models/{name}")
        self.source = self.model.source  # of its engine
        self.reconciler = SimpleNamespace(desired=lambda _: None)
        self.metrics = SimpleNamespace(switching=SimpleNamespace(wake_check_failed=lambda: None))
        self.sleeps = 0
        self.running = Running(SimpleNamespace(name=name), app=None) if runs else None

    def is_ready(self) -> bool:
        return self.running is not None and not self.sleeps

    def follow(self, order: EngineOrder, *, source: object = None) -> None:
        self.diary.append(f"{order} {self.name}")
        self.sleeps = 0
        self.running = None if order is EngineOrder.STOP else Running(SimpleNamespace(name=self.name), None)

    async def rests(self) -> None:
        pass

    async def settles(self) -> bool:
        return True

    def fell_asleep(self, level: int) -> None:
        self.sleeps = level
        self.diary.append(f"{self.name} sleeps")

    def woke_up(self, running: Running, took_s: float) -> None:
        self.running, self.sleeps = running, 0
        self.diary.append(f"{self.name} woke")


class Two:
    """One model that is awake, and one that sleeps."""

    def __init__(self) -> None:
        self.turns = FakeTurns()
        self.diary = self.turns.diary
        self.a, self.b = FakeSupervisor("a", self.diary), FakeSupervisor("b", self.diary)
        self.b.sleeps = 1
        self.leave = Sleeping(cast(Turns, self.turns)).leave

    async def lay_down(self) -> None:
        await self.leave(cast(Supervisor, self.a))

    async def wake(self, level: int = 1) -> None:
        way = Wake(level, cast(Turns, self.turns), self.leave)
        await way.bring(cast(Supervisor, self.a), cast(Supervisor, self.b))


@pytest.fixture
def two() -> Iterator[Two]:
    yield Two()


async def test_one_sleeps_and_the_other_wakes_and_is_checked(two: Two) -> None:
    await two.wake()
    assert two.diary == ["remember a", "sleep a 1", "a sleeps", "wake b 1", "verify b", "b woke"]
    assert two.a.running is not None and two.a.running.in_flight.is_closed, "no request reaches one asleep"
    assert two.b.running is not None and not two.b.running.in_flight.is_closed


async def test_one_that_cannot_sleep_ends(two: Two) -> None:
    two.turns.level = 0
    await two.lay_down()
    assert two.diary == ["stop a"]


@pytest.mark.parametrize("error", [WaySpoiled("out of memory"), EngineDied("it died")])
async def test_one_that_fails_as_it_falls_asleep_ends(two: Two, error: Exception) -> None:
    two.turns.fails["sleep"] = error
    await two.lay_down()
    assert two.diary == ["remember a", "sleep a 1", "stop a"]


async def test_one_with_requests_that_do_not_end_ends_itself(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STRAGGLERS_WITHIN_S", 0.01)
    assert two.a.running is not None
    with two.a.running.in_flight:
        await two.lay_down()
    assert two.diary == ["remember a", "stop a"]


@pytest.mark.parametrize("call", ["wake", "verify"])
async def test_one_that_does_not_wake_as_it_was_ends_and_comes_another_way(two: Two, call: str) -> None:
    two.turns.fails[call] = WaySpoiled("the model does not answer as it did")
    with pytest.raises(SwitchFailed, match="does not answer"):
        await two.wake()
    assert two.diary[-1] == "stop b" and two.b.sleeps == 0


async def test_one_that_died_in_its_sleep_does_not_wake(two: Two) -> None:
    two.b.running = None
    with pytest.raises(SwitchFailed, match="died in its sleep"):
        await two.wake()


def test_a_level_is_woken_from_by_its_own_way(two: Two) -> None:
    ways = [Wake(level, cast(Turns, two.turns), two.leave) for level in (1, 2)]
    possible = [way.name for way in ways if not way.why_not(None, cast(Supervisor, two.b))]
    assert possible == ["wake1"]
    assert all(way.why_not(None, cast(Supervisor, two.a)) for way in ways)
    two.b.model.source = "/store/another-version"
    assert all(way.why_not(None, cast(Supervisor, two.b)) for way in ways), "it sleeps with the one before"


async def test_one_that_sleeps_ends_before_it_is_started_from_nothing(two: Two) -> None:
    await Cold(two.leave).bring(cast(Supervisor, two.a), cast(Supervisor, two.b))
    assert two.diary == ["remember a", "sleep a 1", "a sleeps", "stop b", "start b"]

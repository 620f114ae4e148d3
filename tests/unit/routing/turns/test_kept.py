"""What does a gateway know of its turns after it has started anew?"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import cast

import pytest

from routing.errors import StateUnavailable
from routing.turns import kept as module
from routing.turns.costs import Costs
from routing.turns.kept import Kept
from routing.turns.pool import PoolTurns
from tests.fakes import eventually


class FakeMemory:
    """A database that answers, or does not."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str, str | None], float] = {}
        self.ways: dict[tuple[str, str, str | None], str] = {}
        self.pinned: dict[tuple[str, str], bool] = {}
        self.breaks = False
        self.may_write = threading.Event()
        self.may_write.set()

    def costs(self) -> Mapping[tuple[str, str, str | None], float]:
        self._answer()
        return self.seconds

    def keep_cost(self, host: str, model: str, went: str | None, seconds: float, way: str) -> None:
        self.may_write.wait(5)
        self._answer()
        self.seconds[host, model, went], self.ways[host, model, went] = seconds, way

    def pins(self, pool: str) -> Mapping[str, bool]:
        return {model: pinned for (name, model), pinned in self.pinned.items() if name == pool}

    def keep_pin(self, pool: str, model: str, pinned: bool) -> None:
        self._answer()
        self.pinned[pool, model] = pinned

    def forget(self, pool: str, hosts: Collection[str], model: str) -> None:
        self._answer()
        self.pinned.pop((pool, model), None)
        self.seconds = {
            key: s for key, s in self.seconds.items() if not (key[0] in hosts and key[1] == model)
        }

    def _answer(self) -> None:
        if self.breaks:
            raise StateUnavailable("The state database does not answer.", retry_after_s=1)


def new_pool() -> PoolTurns:
    """A pool of a gateway that has just started."""
    pool = SimpleNamespace(base_models=("even", "odd"))
    return cast(PoolTurns, SimpleNamespace(name="mesh", pool=pool, costs=Costs(), pins={}, look=lambda: None))


async def test_costs_and_pins_are_those_of_before_the_restart() -> None:
    memory, pool = FakeMemory(), new_pool()
    kept = Kept(memory)
    await kept.restore(pool)
    pool.costs.learn("mesh-0", "even", 20.0, way="fork")
    for seconds in (2.0, 1.0):
        pool.costs.learn("mesh-0", "even", seconds, went="odd", way="put")
    kept.keep_pin("mesh", "odd", True)
    await kept.stop()
    again = new_pool()
    await Kept(memory).restore(again)
    assert again.costs.measured_s("mesh-0", "even") == 20.0
    assert again.costs.measured_s("mesh-0", "even", ["odd"]) == 1.5
    assert again.pins == {"odd": True}
    assert memory.ways == {("mesh-0", "even", None): "fork", ("mesh-0", "even", "odd"): "put"}


async def test_a_model_that_the_pool_has_not_yet_is_brought_back_once_it_comes() -> None:
    memory, pool = FakeMemory(), new_pool()
    memory.seconds["mesh-0", "later", None] = 3.0
    memory.pinned["mesh", "later"] = True
    kept = Kept(memory)
    await kept.restore(pool)
    assert (pool.costs.measured_s("mesh-0", "later"), pool.pins) == (None, {})
    pool.pool.base_models = ("even", "later")  # type: ignore[misc]
    kept.give(pool)
    assert (pool.costs.measured_s("mesh-0", "later"), pool.pins) == (3.0, {"later": True})
    pool.pins.clear()
    kept.give(pool)
    assert pool.pins == {}, "once"


async def test_a_model_that_has_left_is_forgotten() -> None:
    memory, pool = FakeMemory(), new_pool()
    kept = Kept(memory)
    await kept.restore(pool)
    pool.costs.learn("mesh-0", "even", 20.0)
    kept.keep_pin("mesh", "even", True)
    kept.forget("mesh", ["mesh-0"], "even")
    await kept.stop()
    assert (memory.seconds, memory.pinned) == ({}, {})


async def test_nothing_waits_for_a_slow_database_and_the_last_word_counts() -> None:
    memory, pool = FakeMemory(), new_pool()
    kept = Kept(memory)
    await kept.restore(pool)
    memory.may_write.clear()
    for seconds in (8.0, 4.0, 2.0):
        pool.costs.learn("mesh-0", "even", seconds)
    assert memory.seconds == {}
    memory.may_write.set()
    await kept.stop()
    assert memory.seconds == {("mesh-0", "even", None): pool.costs.measured_s("mesh-0", "even")}


async def test_a_database_that_is_not_open_yet_is_waited_for_and_what_is_learnt_meanwhile_counts(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    memory, pool = FakeMemory(), new_pool()
    memory.seconds = {("mesh-0", "even", None): 9.0, ("mesh-0", "odd", None): 7.0}
    memory.breaks = True
    kept = Kept(memory)
    restoring = asyncio.create_task(kept.restore(pool))
    await asyncio.sleep(0.02)
    pool.costs.learn("mesh-0", "even", 2.0)
    await eventually(lambda: "is not kept" in caplog.text)
    memory.breaks = False
    await asyncio.wait_for(restoring, 5)
    assert (pool.costs.measured_s("mesh-0", "even"), pool.costs.measured_s("mesh-0", "odd")) == (2.0, 7.0)
    await kept.stop()

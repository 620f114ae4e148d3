"""What a host's engines have in common: who is known, which adapter is asked, what is forgotten."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from adapters.errors import AdapterError
from engines.loader import AdapterLoader
from engines.residency import EngineAdapter
from engines.switching.holding import Holding, HostMemory
from engines.switching.in_place import Means
from engines.switching.live import WaySpoiled
from engines.switching.turns import Turns
from tests.unit.engines.switching.engine import FakeEngine, model
from tests.unit.engines.switching.test_in_place import fine_tune
from tests.unit.engines.switching.test_shape import whole_model

TASKS = ("generate",)
FIRST, LAST = EngineAdapter("first@1", "/store/first"), EngineAdapter("last@1", "/store/last")


class FakeLoader:
    """Adapters in host memory, least recently used first; `gone` have no files any more."""

    def __init__(self) -> None:
        self.host: tuple[str, ...] = (FIRST.id, LAST.id)
        self.leased: list[str] = []
        self.gone: set[str] = set()

    @contextlib.asynccontextmanager
    async def lease(self, adapter: EngineAdapter) -> AsyncIterator[Any]:
        if adapter.id in self.gone:
            raise AdapterError("its files are gone")
        self.leased.append(adapter.id)
        yield object()


class Host:
    """Two models of one shape, and an engine that began with the first."""

    def __init__(self, folder: Path) -> None:
        self.models = {name: model(whole_model(folder / name)) for name in ("a", "b")}
        fine_tune(self.models["b"], 2.0)
        memory = HostMemory(2**40, 2**40)
        self.turns = Turns(self.models, Holding(lambda: memory))
        self.engine, self.loader, self.counted = FakeEngine(), FakeLoader(), 0

    def count(self) -> None:
        self.counted += 1

    async def verify(self, *, is_new: bool = False) -> None:
        loader = cast(AdapterLoader, self.loader)
        await self.turns.verify(self.engine, loader, is_new=is_new, differs=self.count)

    async def remember(self, *wanted: EngineAdapter) -> None:
        by_id = {adapter.id: adapter for adapter in wanted}
        await self.turns.remember(self.engine, cast(AdapterLoader, self.loader), by_id.get)


@pytest.fixture
async def host(tmp_path: Path) -> Host:
    made = Host(tmp_path)
    made.turns.expect("a")
    await made.turns.began("a", made.engine, TASKS)
    await made.turns._library.studied(made.models["b"])
    return made


async def test_the_adapter_that_was_used_last_and_is_still_wanted_is_asked_once(host: Host) -> None:
    await host.verify(is_new=True)
    assert host.loader.leased == [], "none is kept yet"
    await host.remember()
    assert host.loader.leased == [], "none is wanted"
    await host.remember(FIRST, LAST)
    await host.remember(FIRST, LAST)
    assert host.loader.leased == ["last@1"]
    await host.verify()
    assert host.loader.leased == ["last@1", "last@1"]


async def test_an_adapter_that_answers_otherwise_spoils_the_switch(host: Host) -> None:
    await host.verify(is_new=True)
    await host.remember(LAST)
    kept = next(iter(host.turns._check._kept.values()))
    kept.of_adapter = (4, 5)
    with pytest.raises(WaySpoiled, match="adapter last@1"):
        await host.verify()
    assert host.counted == 1


async def test_an_adapter_whose_files_are_gone_is_forgotten_and_another_takes_its_place(host: Host) -> None:
    await host.verify(is_new=True)
    await host.remember(LAST)
    host.loader.gone.add(LAST.id)
    await host.verify()
    host.loader.host = (FIRST.id,)
    await host.remember(FIRST, LAST)
    assert host.loader.leased == ["last@1", "first@1"]


async def test_an_engine_goes_from_model_to_model_until_it_has_ended(host: Host) -> None:
    assert host.turns.why_not(Means.RELOAD, host.engine, "b") == ""
    await host.turns.exchange(Means.RELOAD, host.engine, "b")
    await host.verify()
    assert host.turns.why_not(Means.PUT, host.engine, "a") == ""
    host.turns.ended(host.engine)
    assert host.turns.why_not(Means.PUT, host.engine, "a") == "the engine is not known"
    with pytest.raises(WaySpoiled):
        await host.turns.exchange(Means.PUT, host.engine, "a")
    calls = list(host.engine.calls)
    await host.verify()
    await host.remember(LAST)
    assert host.engine.calls == calls
    await host.turns.close()


async def test_an_engine_is_proven_by_one_of_its_files_and_flags_that_passed_and_the_same_answer(
    host: Host,
) -> None:
    turns = host.turns
    assert not await turns.is_proven(host.engine), "none has passed"
    turns.passed(host.engine)
    assert not await turns.is_proven(host.engine), "no answer is kept"
    await host.verify(is_new=True)
    assert await turns.is_proven(host.engine)
    again, other = FakeEngine(), FakeEngine()
    await turns.began("a", again, TASKS)
    assert await turns.is_proven(again)
    again.answer = (4, 5)
    assert not await turns.is_proven(again), "it answers otherwise"
    again.errored = True
    assert not await turns.is_proven(again), "it is dead, and its self-test says so"
    await turns.began("b", other, TASKS)
    assert not await turns.is_proven(other), "other files"
    turns.take(replace(host.models["a"], argv=(*host.models["a"].argv, "--enforce-eager")))
    await turns.began("a", other, TASKS)
    assert not await turns.is_proven(other), "other flags"
    await turns.close()

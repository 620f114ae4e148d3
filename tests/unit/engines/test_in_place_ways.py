"""A model takes over another's engine: what is waited for, and what becomes of the engine where it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from engines import in_place_ways as module
from engines import orphans, vllm_engine
from engines.built import Built, Source
from engines.in_flight import InFlight
from engines.in_place_ways import InPlaceWay
from engines.loader import EngineDied
from engines.protocol import EngineOrder
from engines.supervisor import Supervisor
from engines.switching.in_place import Means
from engines.switching.live import WaySpoiled
from engines.switching.turns import Turns
from engines.ways import SwitchFailed
from tests.fakes import eventually


class FakeTurns:
    """What the engine is told; `fails` is what an exchange raises."""

    def __init__(self) -> None:
        self.diary: list[str] = []
        self.reason = ""
        self.fails: BaseException | None = None
        self.hangs = False

    def why_not(self, means: Means, engine: Any, model: str) -> str:
        return self.reason

    async def remember(self, *_: Any) -> None:
        self.diary.append("remember")

    async def exchange(self, means: Means, engine: Any, model: str) -> None:
        self.diary.append(f"{means} {model}")
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails is not None:
            raise self.fails

    def ended(self, engine: Any) -> None:
        self.diary.append("forget")


class FakeSupervisor:
    """One model's engine; the one that goes has one to give, the one that comes takes it."""

    def __init__(self, name: str, built: Built | None) -> None:
        self.model = SimpleNamespace(name=name, source=f"/models/{name}")
        self.built = built
        self.running = (
            SimpleNamespace(engine=built.engine, loader=None, in_flight=InFlight()) if built else None
        )
        self.reconciler = SimpleNamespace(desired=lambda _: None)
        self.source: Source | None = None
        self.reason = ""
        self.sleeps = 0

    def is_ready(self) -> bool:
        return self.running is not None

    async def release(self) -> Built:
        if self.built is None:
            raise EngineDied("the engine died")
        self.running = None
        return self.built

    def follow(self, order: EngineOrder, *, source: Source) -> None:
        assert order is EngineOrder.START
        self.source = source

    async def settles(self) -> bool:
        assert self.source is not None
        try:
            self.built = await self.source()
        except WaySpoiled as error:
            self.reason = str(error)
            return False
        return True

    def health(self) -> Any:
        return SimpleNamespace(reason=self.reason)


class Pair:
    """Two models, the first of which runs."""

    def __init__(self, ended: list[str]) -> None:
        self.ended = ended
        engine = SimpleNamespace(shutdown=lambda _: ended.append("engine"))
        self.built = Built(None, engine, "mesh-0.a", CollectorRegistry(), app=SimpleNamespace())
        self.built.closing.callback(lambda: ended.append("app"))
        self.a, self.b = FakeSupervisor("a", self.built), FakeSupervisor("b", None)
        self.turns = FakeTurns()
        self.way = InPlaceWay(Means.RELOAD, cast(Turns, self.turns))

    def why_not(self) -> str:
        return self.way.why_not(cast(Supervisor, self.a), cast(Supervisor, self.b))

    def bring(self) -> Coroutine[Any, Any, None]:
        return self.way.bring(cast(Supervisor, self.a), cast(Supervisor, self.b))


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Pair:
    ended: list[str] = []
    monkeypatch.setattr(orphans, "end_own", ended.append)
    monkeypatch.setattr(vllm_engine, "serve_as", lambda app, *names: setattr(app, "serves", names))
    return Pair(ended)


async def test_the_engine_goes_over_with_the_other_models_name(pair: Pair) -> None:
    await pair.bring()
    assert pair.turns.diary == ["remember", "reload b"]
    assert pair.b.built is pair.built and pair.built.app.serves == ("b", "/models/b")
    assert pair.ended == []


async def test_it_is_possible_only_where_an_engine_runs_and_the_models_are_alike(pair: Pair) -> None:
    assert pair.why_not() == ""
    pair.turns.reason = "config.json: 'hidden_size' is 8 and 9"
    assert pair.why_not() == pair.turns.reason
    assert "no engine runs" in pair.way.why_not(None, cast(Supervisor, pair.b))
    pair.turns.reason, pair.b.sleeps = "", 1
    assert "of its own sleeps" in pair.why_not()
    pair.a.running = None
    assert "no engine runs" in pair.why_not()
    with pytest.raises(SwitchFailed, match="no engine runs"):
        await pair.bring()


async def test_an_engine_that_was_spoiled_ends_with_all_of_its_processes(pair: Pair) -> None:
    pair.turns.fails = WaySpoiled("shape mismatch")
    with pytest.raises(SwitchFailed, match="shape mismatch"):
        await pair.bring()
    assert pair.ended == ["mesh-0.a", "app", "engine"] and pair.turns.diary[-1] == "forget"


async def test_an_engine_is_ended_when_the_switch_is_given_up_in_the_middle(pair: Pair) -> None:
    pair.turns.hangs = True
    bringing = asyncio.create_task(pair.bring())
    await eventually(lambda: "reload b" in pair.turns.diary)
    bringing.cancel()
    await asyncio.gather(bringing, return_exceptions=True)
    assert pair.ended == ["mesh-0.a", "app", "engine"]


async def test_an_engine_is_ended_when_the_switch_is_given_up_while_it_is_released(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def release() -> Built:
        begun.set()
        await may_end.wait()
        return pair.built

    monkeypatch.setattr(pair.a, "release", release)
    bringing = asyncio.create_task(pair.bring())
    await asyncio.wait_for(begun.wait(), 5)
    bringing.cancel()
    may_end.set()
    await asyncio.gather(bringing, return_exceptions=True)
    assert pair.ended == ["mesh-0.a", "app", "engine"] and pair.b.source is None


async def test_an_engine_that_nobody_takes_is_ended(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never() -> bool:
        return False

    monkeypatch.setattr(pair.b, "settles", never)
    with pytest.raises(SwitchFailed):
        await pair.bring()
    assert pair.ended == ["mesh-0.a", "app", "engine"]


async def test_requests_that_do_not_end_keep_their_engine(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STRAGGLERS_WITHIN_S", 0.01)
    assert pair.a.running is not None
    with pair.a.running.in_flight, pytest.raises(SwitchFailed, match="requests still run"):
        await pair.bring()
    assert pair.a.is_ready() and not pair.a.running.in_flight.is_closed and pair.ended == []


async def test_an_engine_that_is_dead_cannot_be_taken(pair: Pair) -> None:
    pair.a.built = None
    with pytest.raises(SwitchFailed, match="died"):
        await pair.bring()

"""Which models of a host come, which go, and what does it refuse? Without vLLM: supervisors are fakes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from engines.forking.server import ForkServer
from engines.health import EngineHealth, EngineState, Place
from engines.model_files import ModelFiles
from engines.places import Places, Refused
from engines.protocol import EngineOrder
from engines.residency import FilesAway
from engines.supervisor import Supervisor
from engines.ways import Cold, Fork, SwitchFailed, Way
from fleet.types import BaseModel
from tests.fakes import eventually

START, STOP, RESTART = EngineOrder.START, EngineOrder.STOP, EngineOrder.RESTART
MODELS = ("even", "odd", "third")
GIB = 2**30


class FakeSupervisor:
    """The engine of one model: comes and goes as told, as fast as the test lets it."""

    def __init__(self, name: str, diary: list[str]) -> None:
        self.replica = self.marked = f"mesh-0.{name}"
        self.name = name
        self.model = SimpleNamespace(name=name, source=f"/models/{name}", revision=None)
        self.ways_failed: list[str] = []
        self.metrics = SimpleNamespace(switching=SimpleNamespace(way_failed=self.ways_failed.append))
        self.diary = diary
        self.state = EngineState.STOPPED
        self.reason = ""
        self.is_ending = False
        self.sleeps = 0
        self.failed_starts = 0
        self.source = ""
        self.breaks = ""  # why it does not start
        self.cannot_fork = ""
        self.fork_breaks = ""
        self.may_load = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_load.set()
        self.may_end.set()
        self._rests, self._settled = asyncio.Event(), asyncio.Event()
        self._rests.set()
        self._settled.set()
        self.tasks: list[asyncio.Task[None]] = []

    @property
    def is_awake(self) -> bool:
        return not (self.sleeps or self._rests.is_set())

    def is_ready(self) -> bool:
        return self.state is EngineState.READY and not (self.is_ending or self.sleeps)

    @property
    def takes_memory(self) -> bool:
        return self.state is EngineState.READY and not self.is_ending

    def health(self) -> EngineHealth:
        return EngineHealth(self.state, self.reason)

    def why_not_fork(self) -> str:
        return self.cannot_fork

    def fork(self) -> None:
        """Where its engine comes from if it is forked."""

    def follow(self, order: EngineOrder, *, source: object = None) -> None:
        self.diary.append(f"{order} {self.name}" + (", forked" if source is not None else ""))
        if order is STOP and (self.is_awake or self.sleeps):
            self.is_ending = True
            self.tasks.append(asyncio.create_task(self._end()))
        elif order is START and not self.is_awake:
            self.state, self.reason = EngineState.STARTING, ""
            self._rests.clear()
            self._settled.clear()
            self.tasks.append(asyncio.create_task(self._load(self.fork_breaks if source else self.breaks)))

    async def rests(self) -> None:
        await self._rests.wait()

    async def settles(self) -> bool:
        await self._settled.wait()
        return self.is_ready()

    def die(self) -> None:
        """It dies, and is started again at once."""
        self.state = EngineState.STARTING

    async def _load(self, breaks: str) -> None:
        await self.may_load.wait()
        if breaks:
            self.state, self.reason = EngineState.FAILED, breaks
            self.failed_starts += 1
            self._rests.set()
        else:
            self.state = EngineState.READY
        self._settled.set()

    async def _end(self) -> None:
        await self.may_end.wait()
        self.state, self.is_ending, self.sleeps = EngineState.STOPPED, False, 0
        self._rests.set()
        self._settled.set()
        self.diary.append(f"{self.name} rests")


class FakeMemory:
    """As much memory as the test says; each model takes what the test says."""

    def __init__(self, total: int, sizes: dict[str, int]) -> None:
        self.total, self.sizes = total, sizes
        self.house: House | None = None
        self.breaks = False
        self.left = 0  # by one that sleeps

    def used_bytes(self) -> int:
        assert self.house is not None
        if self.breaks:
            raise OSError("no driver")
        fakes = self.house.fakes.values()
        return sum(self.left if one.sleeps else self.sizes[one.name] for one in fakes if one.takes_memory)

    def free_bytes(self) -> int:
        return self.total - self.used_bytes()

    def of(self, replica: str, before_bytes: int) -> int:
        if self.breaks:
            raise OSError("no driver")
        self.before = before_bytes
        name = replica.partition(".")[2]
        assert self.house is not None
        return self.left if self.house.fakes[name].sleeps else self.sizes[name]


class House:
    """A host with three models."""

    def __init__(
        self,
        awake: int | None = 1,
        memory: FakeMemory | None = None,
        ways: tuple[Way, ...] = (),
        sleeps: bool = False,
    ):
        self.diary: list[str] = []
        self.now_s = 0.0
        self.fakes = {name: FakeSupervisor(name, self.diary) for name in MODELS}
        self.memory = memory or FakeMemory(10 * GIB, dict.fromkeys(MODELS, GIB))
        self.memory.house = self
        supervisors = cast(dict[str, Supervisor], self.fakes)
        self.places = Places(
            supervisors,
            awake=awake,
            memory=self.memory,
            ways=ways,
            leave=self.lay_down if sleeps else None,
            clock=lambda: self.now_s,
        )

    async def lay_down(self, going: Supervisor) -> None:
        """Have one sleep."""
        fake = cast(FakeSupervisor, going)
        fake.sleeps = 1
        self.diary.append(f"{fake.name} sleeps")

    def state(self, model: str) -> str:
        return str(self.places.health(model).state)

    async def bring(self, model: str, instead_of: str | None = None) -> None:
        self.places.follow(model, START, instead_of)
        await eventually(lambda: self.state(model) == "ready" and not self.places._switches)

    async def end(self) -> None:
        await self.places.stop()
        for one in self.fakes.values():
            for task in one.tasks:
                task.cancel()
        assert not self.places._switches


async def test_all_begin_on_disk_and_one_comes_when_told() -> None:
    house = House()
    assert [house.state(model) for model in MODELS] == ["stopped"] * 3
    await house.bring("odd")
    assert [house.state(model) for model in MODELS] == ["stopped", "ready", "stopped"]
    await house.end()


async def test_one_more_than_may_be_awake_is_refused_with_those_that_are() -> None:
    house = House(awake=2)
    await house.bring("even")
    await house.bring("odd")
    with pytest.raises(Refused, match=r"^even, odd are awake, and 2 may be; one must go first"):
        house.places.follow("third", START)
    await house.end()


async def test_one_that_loads_has_its_place_already() -> None:
    house = House()
    house.fakes["even"].may_load.clear()
    house.places.follow("even", START)
    with pytest.raises(Refused, match="even is awake"):
        house.places.follow("odd", START)
    await asyncio.sleep(0.01)
    with pytest.raises(Refused, match="even is awake"):
        house.places.follow("odd", START)
    await house.end()


async def test_one_that_ends_has_its_place_until_nothing_of_it_is_left() -> None:
    house = House()
    await house.bring("even")
    house.fakes["even"].may_end.clear()
    house.places.follow("even", STOP)
    with pytest.raises(Refused, match="even is awake"):
        house.places.follow("odd", START)
    house.fakes["even"].may_end.set()
    await eventually(lambda: house.state("even") == "stopped")
    await house.bring("odd")
    await house.end()


async def test_one_comes_instead_of_another_once_that_has_ended() -> None:
    house = House()
    await house.bring("even")
    house.fakes["even"].may_end.clear()
    house.places.follow("odd", START, "even")
    await eventually(lambda: "stop even" in house.diary)
    health = house.places.health("odd")
    assert (health.state, health.reason) == (EngineState.STARTING, "even goes first")
    house.fakes["even"].may_end.set()
    await eventually(lambda: house.state("odd") == "ready")
    assert house.diary == ["start even", "stop even", "even rests", "start odd"]
    await house.end()


async def test_one_that_goes_takes_no_request_from_when_that_was_ordered() -> None:
    class Slow(FakeWay):
        """Waits before it touches an engine."""

        async def bring(self, going: Supervisor | None, coming: Supervisor) -> None:
            await begins.wait()
            await Cold().bring(going, coming)

    begins = asyncio.Event()
    house = House(ways=(Slow("put", 0.0),))
    begins.set()
    await house.bring("even")
    begins.clear()
    house.places.follow("odd", START, "even")
    assert house.fakes["even"].is_ready()
    health = house.places.health("even")
    assert (health.state, health.reason) == (EngineState.STOPPED, "odd comes instead of it")
    begins.set()
    await eventually(lambda: house.state("odd") == "ready")
    await house.end()


async def test_instead_of_one_that_is_not_awake_is_beside_the_others() -> None:
    house = House()
    await house.bring("odd", instead_of="even")
    with pytest.raises(Refused, match="odd is awake"):
        house.places.follow("third", START, "even")
    assert house.state("odd") == "ready"
    await house.end()


async def test_one_is_not_ready_before_its_way_has_ended() -> None:
    class Checking(FakeWay):
        """Checks the answers of the engine before it lets it go."""

        async def bring(self, going: Supervisor | None, coming: Supervisor) -> None:
            await Cold().bring(going, coming)
            await checked.wait()

    checked = asyncio.Event()
    house = House(ways=(Checking("put", 0.0),))
    house.places.follow("odd", START)
    await eventually(house.fakes["odd"].is_ready)
    assert house.state("odd") == "starting"
    checked.set()
    await eventually(lambda: house.state("odd") == "ready")
    await house.end()


async def test_an_order_that_is_given_twice_counts_once() -> None:
    house = House()
    for _ in range(3):
        house.places.follow("odd", START)
    await eventually(lambda: house.state("odd") == "ready")
    house.places.follow("odd", START, "odd")
    await asyncio.sleep(0.01)
    assert house.diary == ["start odd"]
    await house.end()


async def test_one_that_takes_part_in_a_switch_takes_part_in_no_other() -> None:
    house = House(awake=2)
    await house.bring("even")
    house.fakes["odd"].may_load.clear()
    house.places.follow("odd", START, "even")
    for model, order, instead_of in (
        ("third", START, "even"),
        ("third", START, "odd"),
        ("even", START, None),
        ("odd", RESTART, None),
    ):
        with pytest.raises(Refused, match="odd comes instead of even"):
            house.places.follow(model, order, instead_of)
    house.places.follow("third", START)
    await eventually(lambda: house.state("third") == "ready")
    house.fakes["odd"].may_load.set()
    await eventually(lambda: house.state("odd") == "ready")
    assert house.state("even") == "stopped"
    await house.end()


async def test_one_that_comes_may_be_stopped_before_it_is_there() -> None:
    house = House()
    await house.bring("even")
    house.fakes["even"].may_end.clear()
    house.places.follow("odd", START, "even")
    await eventually(lambda: "stop even" in house.diary)
    house.places.follow("odd", STOP)
    house.fakes["even"].may_end.set()
    await eventually(lambda: house.state("even") == "stopped")
    await eventually(lambda: not house.places._switches)
    assert house.state("odd") == "stopped" and "start odd" not in house.diary
    await house.end()


async def test_one_that_does_not_start_leaves_its_place_to_others_and_says_why() -> None:
    house = House()
    house.fakes["even"].breaks = "no such file"
    house.places.follow("even", START)
    await eventually(lambda: not house.places._switches)
    health = house.places.health("even")
    assert (health.state, health.reason) == (EngineState.FAILED, "no such file")
    assert health.place is not None and (health.place.way, health.place.failed_starts) == ("", 1)
    await house.bring("odd")
    await house.end()


async def test_a_restart_is_for_one_that_is_awake_or_has_failed() -> None:
    house = House()
    with pytest.raises(Refused, match="even is on disk"):
        house.places.follow("even", RESTART)
    await house.bring("even")
    house.places.follow("even", RESTART)
    assert house.diary[-1] == "restart even"
    house.places.follow("even", STOP)
    await eventually(lambda: house.state("even") == "stopped")
    house.fakes["odd"].breaks = "no memory"
    house.places.follow("odd", START)
    await eventually(lambda: house.state("odd") == "failed")
    house.fakes["odd"].breaks = ""
    house.places.follow("odd", RESTART)
    await eventually(lambda: house.state("odd") == "ready")
    await house.end()


async def test_no_other_model_goes_for_one() -> None:
    house = House()
    with pytest.raises(LookupError):
        house.places.follow("odd", START, "nobody")
    await house.end()


# -- ways --------------------------------------------------------------------------------------------------


class FakeWay:
    """A way that takes as long as the test says, or fails."""

    house: House  # which has it

    def __init__(self, name: str, takes_s: float) -> None:
        self.name, self.takes_s, self.usual_s = name, takes_s, takes_s
        self.not_possible = ""
        self.usual = True
        self.fails: Exception | None = None
        self.kills = False

    def why_not(self, going: Supervisor | None, coming: Supervisor) -> str:
        return self.not_possible

    def is_usual(self) -> bool:
        return self.usual

    async def bring(self, going: Supervisor | None, coming: Supervisor) -> None:
        house = self.house
        house.diary.append(self.name)
        house.now_s += self.takes_s
        if self.fails is not None:
            if self.kills and going is not None:
                going.follow(STOP)
                await going.rests()
            raise self.fails
        await Cold().bring(going, coming)


@pytest.fixture
def ways() -> dict[str, FakeWay]:
    return {"put": FakeWay("put", 0.1), "fork": FakeWay("fork", 4.0)}


@pytest.fixture
def house(ways: dict[str, FakeWay]) -> House:
    """A host with two ways beside a cold start."""
    house = House(ways=tuple(ways.values()))
    for way in ways.values():
        way.house = house
    return house


async def test_the_first_possible_way_is_gone_and_its_seconds_are_told(
    house: House, ways: dict[str, FakeWay]
) -> None:
    ways["put"].not_possible = "another shape"
    await house.bring("even")
    place = house.places.health("even").place
    assert place is not None and (place.way, place.took_s) == ("fork", {"fork": 4.0})
    await house.end()


async def test_a_way_that_was_never_gone_is_not_tried_in_the_place_of_a_cheaper_one(
    house: House, ways: dict[str, FakeWay]
) -> None:
    ways["fork"].not_possible = "no fork server"
    for model, instead_of in (("even", None), ("odd", "even"), ("even", "odd"), ("odd", "even")):
        await house.bring(model, instead_of)
    assert [way for way in house.diary if way in ways] == ["put"] * 4, "and never a cold start"
    await house.end()


async def test_what_was_measured_decides_then(house: House, ways: dict[str, FakeWay]) -> None:
    ways["put"].takes_s = 9.0
    for model, instead_of in (("even", None), ("odd", "even"), ("even", "odd")):
        await house.bring(model, instead_of)
    assert [way for way in house.diary if way in ways] == ["put", "put", "fork"]
    place = house.places.health("even").place
    assert place is not None and place.took_s == {"put": 9.0, "fork": 4.0}
    await house.end()


async def test_what_was_measured_long_ago_counts_less(house: House, ways: dict[str, FakeWay]) -> None:
    ways["put"].takes_s = 9.0
    for model, instead_of in (("even", None), ("odd", "even"), ("even", "odd")):
        await house.bring(model, instead_of)
    house.now_s += 3600
    ways["put"].takes_s = 1.0
    await house.bring("odd", "even")
    await house.bring("even", "odd")
    assert [way for way in house.diary if way in ways] == ["put", "put", "fork", "put", "put"]
    await house.end()


async def test_what_is_not_usual_is_not_measured(house: House, ways: dict[str, FakeWay]) -> None:
    ways["put"].takes_s, ways["put"].usual = 9.0, False
    await house.bring("even")
    place = house.places.health("even").place
    assert place is not None and (place.way, place.took_s) == ("put", {})
    await house.end()


@pytest.mark.parametrize("error", [SwitchFailed("it died"), ValueError("a fault of ours")])
async def test_where_a_way_fails_the_next_one_is_gone(
    house: House, ways: dict[str, FakeWay], error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    await house.bring("even")
    ways["put"].fails, ways["put"].kills = error, True
    await house.bring("odd", "even")
    assert house.places.health("odd").place.way == "fork"  # type: ignore[union-attr]
    assert "put" not in house.places.health("odd").place.took_s  # type: ignore[union-attr]
    assert f"mesh-0.odd: put: {error}; it rests for 60 s" in caplog.messages
    await house.end()


# -- memory ------------------------------------------------------------------------------------------------


async def test_what_a_model_takes_is_measured_once_it_is_awake() -> None:
    house = House(memory=FakeMemory(10 * GIB, {"even": 3 * GIB, "odd": GIB, "third": GIB}))
    await house.bring("even")
    assert [house.places.health(m).place.memory_bytes for m in MODELS] == [3 * GIB, 0, 0]  # type: ignore[union-attr]
    await house.end()


async def test_what_was_used_before_is_without_the_one_that_went() -> None:
    memory = FakeMemory(10 * GIB, {"even": 3 * GIB, "odd": GIB, "third": GIB})
    house = House(2, memory)
    await house.bring("third")
    await house.bring("even")
    assert memory.before == GIB
    await house.bring("odd", "even")
    assert memory.before == GIB
    await house.end()


async def test_left_to_itself_a_host_has_one_awake_until_it_knows_what_models_take() -> None:
    house = House(None, FakeMemory(5 * GIB, {"even": 3 * GIB, "odd": GIB, "third": GIB}))
    assert house.places.most_awake() == 1
    await house.bring("even")
    assert house.places.most_awake() == 1, "one that was never awake counts as the largest"
    await house.bring("odd", "even")
    house.now_s += 2
    assert house.places.most_awake() == 1
    await house.bring("third", "odd")
    assert house.places.most_awake() == 3, "now all are measured"
    await house.bring("odd")
    await house.bring("even")
    assert [house.state(model) for model in MODELS] == ["ready"] * 3
    await house.end()


@pytest.mark.parametrize("awake", [None, 3])
async def test_one_for_which_there_is_no_memory_beside_the_others_is_refused(awake: int | None) -> None:
    memory = FakeMemory(5 * GIB, {"even": 3 * GIB, "odd": GIB, "third": GIB})
    house = House(awake, memory)
    for model, instead_of in (("even", None), ("odd", "even"), ("third", "odd")):
        await house.bring(model, instead_of)
    assert house.places.most_awake() == 3
    memory.total = 3 * GIB  # somebody else takes it
    with pytest.raises(Refused, match=r"even takes 3\.0 GiB, and 2\.0 GiB are free beside third"):
        house.places.follow("even", START)
    await house.bring("even", "third")
    await house.end()


async def test_where_nothing_can_be_measured_one_is_awake() -> None:
    house = House(None)
    house.memory.breaks = True
    await house.bring("even")
    assert house.places.most_awake() == 1
    assert house.places.health("even").place.memory_bytes == 0  # type: ignore[union-attr]
    await house.bring("odd", "even")
    await house.end()


async def test_where_nothing_can_be_measured_any_more_as_many_are_awake_as_may_be() -> None:
    house = House(2)
    for model, instead_of in (("even", None), ("odd", "even"), ("third", "odd")):
        await house.bring(model, instead_of)
    house.memory.breaks = True
    await house.bring("even")
    assert house.state("third") == house.state("even") == "ready"
    await house.end()


async def test_a_way_that_has_failed_rests_for_this_pair_and_is_told(
    house: House, ways: dict[str, FakeWay]
) -> None:
    await house.bring("even")
    ways["put"].fails = SwitchFailed("shape mismatch")
    await house.bring("odd", "even")
    assert house.fakes["odd"].ways_failed == ["put"]
    place = house.places.health("odd").place
    assert place is not None and place.resting == {"put": "shape mismatch (1x after even)"}
    ways["put"].fails = None
    await house.bring("even", "odd")
    house.diary.clear()
    await house.bring("odd", "even")
    assert house.diary[0] == "fork", "it is not tried"
    await house.bring("even", "odd")
    house.now_s += 60
    house.diary.clear()
    await house.bring("odd", "even")
    assert house.diary[0] == "put"
    place = house.places.health("odd").place
    assert place is not None and place.resting == {}


async def test_the_last_way_never_rests() -> None:
    house = House()
    for _ in range(2):
        house.fakes["odd"].breaks = "out of memory"
        house.places.follow("odd", START)
        await eventually(lambda: not house.places._switches)
    assert house.diary == ["start odd"] * 2
    await house.end()


# -- forks -------------------------------------------------------------------------------------------------


class Server:
    """A fork server that runs."""

    def is_running(self) -> bool:
        return True


async def test_one_is_forked_once_the_other_has_ended() -> None:
    house = House(ways=(Fork(cast(ForkServer, Server())),))
    await house.bring("even")
    await house.bring("odd", instead_of="even")
    assert house.diary == ["start even, forked", "stop even", "even rests", "start odd, forked"]
    place = house.places.health("odd").place
    assert place is not None and place.way == "fork"
    await house.end()


async def test_one_that_cannot_be_forked_or_does_not_come_so_is_started_from_nothing() -> None:
    house = House(ways=(Fork(cast(ForkServer, Server())),))
    house.fakes["even"].cannot_fork = "the fork server cannot be used"
    house.fakes["odd"].fork_breaks = "the fork server ended"
    await house.bring("even")
    await house.bring("odd", instead_of="even")
    assert house.diary == ["start even", "stop even", "even rests", "start odd, forked", "start odd"]
    await house.end()


# -- sleep -------------------------------------------------------------------------------------------------


async def test_one_that_sleeps_leaves_its_place_and_what_it_still_takes_is_measured() -> None:
    house = House(sleeps=True)
    house.memory.left = GIB // 10
    await house.bring("even")
    await house.bring("odd", instead_of="even")
    assert house.diary == ["start even", "even sleeps", "start odd"]
    await eventually(lambda: house.places._known["even"].asleep_bytes == GIB // 10)
    place = house.places.health("even").place
    assert place is not None and (place.asleep, place.memory_bytes) == (1, GIB)
    await house.end()


async def test_sleepers_end_where_one_that_comes_needs_the_memory_that_they_leave_taken() -> None:
    memory = FakeMemory(4 * GIB, {"even": GIB, "odd": GIB, "third": 3 * GIB})
    house = House(memory=memory, sleeps=True)
    memory.left = GIB
    await house.bring("third")
    await eventually(lambda: house.places._known["third"].memory_bytes == 3 * GIB)
    await house.bring("even", instead_of="third")
    await house.bring("odd", instead_of="even")
    assert house.fakes["third"].sleeps and house.fakes["even"].sleeps
    memory.left = int(1.5 * GIB)
    house.diary.clear()
    await house.bring("third", instead_of="odd")
    assert house.diary[:2] == ["stop even", "even rests"]
    await house.end()


async def test_where_none_comes_beside_sleepers_they_end_and_it_is_tried_once_more() -> None:
    house = House(sleeps=True)
    await house.bring("even")
    house.fakes["odd"].breaks = "CUDA out of memory"
    house.places.follow("odd", START, "even")
    await eventually(lambda: not house.places._switches)
    assert house.diary == ["start even", "even sleeps", "start odd", "stop even", "even rests", "start odd"]
    assert house.state("odd") == "failed"
    await house.end()


# -- reading ahead -----------------------------------------------------------------------------------------


async def test_weights_of_one_whose_turn_is_next_are_read_and_nothing_else_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house, read = House(), list[str]()
    monkeypatch.setattr(house.places._read_ahead, "begin", lambda name, folder: read.append(str(folder)))
    await house.bring("even")
    for model in ("odd", "even"):
        house.places.follow(model, EngineOrder.PREPARE)
    await eventually(lambda: bool(read))
    assert read == ["/models/odd"], "what is awake has been read"
    assert (house.state("even"), house.state("odd"), house.diary) == ("ready", "stopped", ["start even"])
    await house.end()


# -- files that are on the gateway's machine alone ----------------------------------------------------------


class FakeFiles:
    """Models' files that come as the test lets them."""

    def __init__(self, breaks: str = "") -> None:
        self.breaks = breaks
        self.is_damaged = False
        self.may_come = asyncio.Event()
        self.needed: Callable[[], Collection[str]] = tuple
        self.kept: list[set[str]] = []

    async def bring(self, model: BaseModel, needed: Callable[[], Collection[str]]) -> bool:
        self.needed = needed
        await self.may_come.wait()
        if self.breaks:
            raise FilesAway(self.breaks)
        return True

    async def drop_damaged(self, model: BaseModel) -> bool:
        was, self.is_damaged = self.is_damaged, False
        return was

    def keep(self, folders: Collection[str]) -> None:
        self.kept.append(set(folders))

    def as_told(self, source: str) -> str:
        return f"/there{source}"

    async def stop(self) -> None:
        self.may_come.set()


def with_files(breaks: str = "") -> tuple[House, FakeFiles, list[str]]:
    house, files, came = House(), FakeFiles(breaks), list[str]()
    house.places.files = cast(ModelFiles, files)
    house.places.took = lambda model: came.append(model.name)
    return house, files, came


async def test_a_model_comes_once_its_files_are_here_and_the_other_one_serves_until_then() -> None:
    house, files, came = with_files()
    files.may_come.set()
    await house.bring("even")
    house.fakes["even"].source = "/copies/even"
    files.may_come.clear()
    house.places.follow("odd", START, "even")
    await asyncio.sleep(0)
    assert (house.state("odd"), house.diary, came) == ("starting", ["start even"], ["even"])
    assert set(files.needed()) == {"/copies/even", "/models/odd"}, "what is awake, and what comes"
    files.may_come.set()
    await eventually(lambda: house.state("odd") == "ready" and not house.places._switches)
    assert came == ["even", "odd"] and house.diary[1:] == ["stop even", "even rests", "start odd"]
    assert house.places.health("even").place == replace(
        house.places.health("even").place or Place(), source="/there/copies/even"
    )
    assert len(files.kept) == 2
    await house.end()


async def test_a_model_whose_files_do_not_come_stays_on_disk_says_why_and_harms_no_other() -> None:
    house, files, came = with_files("the gateway answered 404")
    files.may_come.set()
    house.places.follow("odd", START)
    await eventually(lambda: not house.places._switches)
    health = house.places.health("odd")
    assert (health.state, health.reason, house.diary) == ("stopped", "the gateway answered 404", [])
    assert not came
    files.breaks = ""
    await house.bring("odd")
    assert house.places.health("odd").reason == ""
    await house.end()


@pytest.mark.parametrize("is_damaged", [True, False])
async def test_a_model_that_did_not_come_from_a_damaged_copy_comes_from_a_new_one(is_damaged: bool) -> None:
    house, files, came = with_files()
    files.may_come.set()
    house.fakes["odd"].breaks = "SafetensorError: incomplete metadata"
    files.is_damaged = is_damaged

    def took(model: BaseModel) -> None:
        came.append(model.name)
        house.fakes["odd"].breaks = "" if len(came) == 2 else house.fakes["odd"].breaks

    house.places.took = took

    house.places.follow("odd", START)
    await eventually(lambda: not house.places._switches)
    assert house.state("odd") == ("ready" if is_damaged else "failed")
    assert house.diary == ["start odd"] * (1 + is_damaged)
    await house.end()

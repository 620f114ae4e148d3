"""Are the right adapters in the engine, and does nobody's vanish under a running request?"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from adapters.errors import AdapterError
from adapters.layout import SERVED_FILES
from engines.loader import (
    AdapterLoader,
    AdapterMetrics,
    EngineDied,
    LoraEngine,
    Reconciler,
    reason_of,
    reconciler,
)
from engines.loader.slots import Slots
from engines.residency import DesiredAdapters, EngineAdapter, FaultKind, Residency

SLOTS, PLACES = 2, 3
WAIT_S = 5.0


@dataclass
class Request:
    """Stands for vLLM's LoRARequest."""

    lora_name: str
    lora_int_id: int
    lora_path: str


@dataclass
class FakeEngine:
    """vLLM's calls, over a worker that holds what it is given and never puts anything out by itself."""

    errored: bool = False
    host: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    pinned: list[int] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    at_once: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    refuse: dict[str, Exception] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gate.set()

    async def add_lora(self, request: Request) -> bool:
        self.reads.append(request.lora_name)
        self.at_once += 1
        assert self.at_once == 1, "loads of different adapters come one after another"
        try:
            await self.gate.wait()
        finally:
            self.at_once -= 1
        if request.lora_name in self.refuse:
            raise self.refuse[request.lora_name]
        assert len(self.host) < PLACES, "vLLM itself would now choose what to put out"
        self.host.append(request.lora_int_id)
        self.slots = [*self.slots, request.lora_int_id][-SLOTS:]
        return True

    async def remove_lora(self, number: int) -> bool:
        self.host.remove(number)
        self.slots = [n for n in self.slots if n != number]
        return True

    async def pin_lora(self, number: int) -> bool:
        self.pinned.append(number)
        return True

    async def collective_rpc(self, method: str, args: tuple[int, ...] = ()) -> list[Any]:
        if method == "tenantry_unpin":
            self.pinned.remove(args[0])
            return [True]
        return [
            {
                "slots": self.slots,
                "host": self.host,
                "pinned": self.pinned,
                "activation_s": [0.001],
                "slot_evictions": 1,
            }
        ]


@dataclass
class House:
    """A loader with its reconciler on a fake engine."""

    engine: FakeEngine
    frontend: dict[str, Any]
    loader: AdapterLoader
    reconciler: Reconciler
    folder: Path
    revision: int = 0

    def adapter(self, name: str, *, pinned: bool = False) -> EngineAdapter:
        """An adapter whose files are there."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        for file in SERVED_FILES:
            (folder / file).write_bytes(b"x")
        return EngineAdapter(name, str(folder), pinned)

    def tell(self, *names: str, pinned: tuple[str, ...] = ()) -> None:
        """What the gateway wants from now on."""
        self.revision += 1
        wanted = tuple(self.adapter(name, pinned=name in pinned) for name in names)
        self.reconciler.desire(DesiredAdapters(self.revision, wanted))

    async def run(self, name: str) -> None:
        """A request from beginning to end."""
        async with self.loader.lease(self.adapter(name)):
            assert name in self.loader.host

    async def until(self, condition: Callable[[Residency], bool]) -> Residency:
        """Wait for what the reconciler says."""
        await until(lambda: condition(self.reconciler.residency()))
        return self.reconciler.residency()

    @contextlib.asynccontextmanager
    async def reconciling(self) -> AsyncIterator[None]:
        """Keep the engine as desired inside the block."""
        task = asyncio.create_task(self.reconciler.run(self.loader))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds. Raises `TimeoutError`."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - the fakes signal nothing
            await asyncio.sleep(0.001)


async def as_digest(adapter: EngineAdapter, registered: Collection[str]) -> Path:
    """Adapters' files: here the digest is the folder."""
    return Path(adapter.digest)


def new_loader(engine: FakeEngine, frontend: dict[str, Any], reconciler: Reconciler) -> AdapterLoader:
    return AdapterLoader(
        LoraEngine(engine, frontend, Request),
        slots=SLOTS,
        places=PLACES,
        numbers=itertools.count(1),
        blame=reconciler.blame,
        metrics=AdapterMetrics(),
        folder_of=as_digest,
    )


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr(reconciler, "SETTLE_S", 0.0)
    monkeypatch.setattr(reconciler, "REFRESH_INTERVAL_S", 0.0)
    engine, frontend, keeper = (
        FakeEngine(),
        dict[str, Any](),
        Reconciler(slots=SLOTS, metrics=AdapterMetrics()),
    )
    return House(engine, frontend, new_loader(engine, frontend, keeper), keeper, tmp_path)


# -- slots -------------------------------------------------------------------------------------------------


async def test_requests_share_their_adapters_slot_and_others_wait_in_order() -> None:
    slots = Slots(1)
    await slots.acquire("a")
    await slots.acquire("a")
    order: list[str] = []

    async def wait(name: str) -> None:
        await slots.acquire(name)
        order.append(name)

    tasks = [asyncio.create_task(wait(name)) for name in ("b", "c", "b")]
    await asyncio.sleep(0)
    slots.release("a")
    await asyncio.sleep(0)
    assert order == [], "one request of a still runs"
    slots.release("a")
    await asyncio.gather(tasks[0], tasks[2])
    assert order == ["b", "b"], "whoever waits for the same adapter comes with it"
    slots.release("b")
    slots.release("b")
    await tasks[1]
    assert "c" in slots and "b" not in slots


async def test_a_waiter_that_leaves_takes_no_slot_even_if_it_was_just_granted() -> None:
    slots = Slots(1)
    assert slots.try_acquire("a")
    early, late = asyncio.create_task(slots.acquire("b")), asyncio.create_task(slots.acquire("c"))
    await asyncio.sleep(0)
    early.cancel()
    await asyncio.gather(early, return_exceptions=True)
    slots.release("a")
    late.cancel()  # granted, and has not run since
    await asyncio.gather(late, return_exceptions=True)
    assert slots.try_acquire("d")


# -- loading -----------------------------------------------------------------------------------------------


async def test_many_requests_for_one_cold_adapter_load_it_once(house: House) -> None:
    await asyncio.gather(*(house.run("a") for _ in range(20)))
    assert house.engine.reads == ["a"] and "a" in house.frontend


async def test_a_caller_that_leaves_does_not_stop_the_load_for_others(house: House) -> None:
    house.engine.gate.clear()
    first, second = (asyncio.create_task(house.run("a")) for _ in range(2))
    await until(lambda: bool(house.engine.reads))
    first.cancel()
    house.engine.gate.set()
    await second
    assert house.engine.reads == ["a"]


async def test_the_least_recently_used_adapter_makes_way_and_never_one_in_use(house: House) -> None:
    for name in ("a", "b", "c", "a"):
        await house.run(name)
    async with house.loader.lease(house.adapter("b")):
        await house.run("d")
    assert set(house.loader.host) == {"a", "b", "d"}, "c was used least recently; b is in use"
    numbers = dict(zip(house.frontend, (r.lora_int_id for r in house.frontend.values()), strict=True))
    await house.run("c")
    assert house.frontend["c"].lora_int_id == numbers["c"], "the same content keeps its number"


async def test_a_request_for_an_adapter_that_is_just_put_out_waits_until_it_is_back(house: House) -> None:
    for name in ("a", "b", "c"):
        await house.run(name)
    house.engine.gate.clear()
    loading = asyncio.create_task(house.run("d"))
    await until(lambda: "d" in house.engine.reads)
    late = asyncio.create_task(house.run("a"))
    house.engine.gate.set()
    await asyncio.gather(loading, late)
    assert house.engine.reads[-1] == "a", "read again, and not by vLLM inside a step"


@pytest.mark.parametrize("damage", ["missing", "empty", "link"])
async def test_files_that_are_not_as_they_should_never_reach_the_engine(house: House, damage: str) -> None:
    adapter = house.adapter("a")
    house.tell("a")
    file = Path(adapter.digest) / SERVED_FILES[1]
    file.unlink()
    if damage == "empty":
        file.touch()
    if damage == "link":
        file.symlink_to("/etc/hostname")
    for _ in range(3):
        with pytest.raises(AdapterError, match="register it again") as caught:
            async with house.loader.lease(adapter):
                pass
        assert str(house.folder) not in str(caught.value)
    assert house.engine.reads == []
    (_, fault), *_ = house.reconciler.residency().faults
    assert (fault.kind, fault.count) == (FaultKind.LOAD, 1), "read once, not once for each request"


async def test_a_refused_adapter_is_not_asked_of_vllm_again_at_once_and_holds_no_slot(house: House) -> None:
    house.engine.refuse["a"] = Exception("rank 64 > 8 in /var/lib/store/ab/abcd/adapter_config.json")
    for _ in range(SLOTS + 1):
        with pytest.raises(AdapterError, match="rank 64 > 8 in <path>"):
            await house.run("a")
    assert house.engine.reads == ["a"]
    await house.run("b")
    assert "a" not in house.frontend


async def test_more_adapters_than_slots_take_turns(house: House) -> None:
    running: set[str] = set()

    async def run(name: str) -> None:
        async with house.loader.lease(house.adapter(name)):
            running.add(name)
            assert len(running) <= SLOTS, "vLLM's scheduler would let no more run either"
            await asyncio.sleep(0)
            running.discard(name)

    await asyncio.gather(*(run(name) for name in "abcde" * 3))


# -- death -------------------------------------------------------------------------------------------------


async def test_a_call_that_vllm_never_answers_ends_when_the_engine_dies_and_is_held_against_it(
    house: House,
) -> None:
    house.tell("a", "b")
    house.engine.gate.clear()
    waiting = [asyncio.create_task(house.run(name)) for name in "ab"]
    await until(lambda: bool(house.engine.reads))
    house.engine.errored = True
    house.loader.engine.declare_dead()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [EngineDied] * 2
    (name, fault), *others = house.reconciler.residency().faults
    assert (name, fault.kind, fault.count) == (house.engine.reads[0], FaultKind.CRASH, 1)
    assert not others, "the one that only waited is not to blame"


async def test_after_a_restart_everything_is_back_but_what_may_have_killed_the_engine(house: House) -> None:
    house.tell("a", "b", "c", pinned=("b",))
    async with house.reconciling():
        before = await house.until(lambda r: len(r.host) == PLACES and r.pinned == ("b",))
    house.reconciler.blame("a", FaultKind.CRASH, "it died")
    down = house.reconciler.residency()
    assert (down.worker, down.slots, down.host, down.pinned) == (before.worker, (), (), ())
    house.engine = FakeEngine()
    house.loader = new_loader(house.engine, house.frontend, house.reconciler)
    async with house.reconciling():
        back = await house.until(lambda r: set(r.host) == {"b", "c"} and r.pinned == ("b",))
        assert (back.worker, back.engine_starts) == (before.worker, 2)
        await house.run("a")
    assert "a" in house.loader.host, "whoever asks for it still gets it"
    house.tell("b")
    assert not house.reconciler.residency().faults


async def test_whoever_is_blamed_for_an_engine_that_does_not_come_back_is_forgiven(house: House) -> None:
    house.tell("a", "b", "c")
    async with house.reconciling():
        await house.until(lambda r: r.engine_starts == 1)
    house.reconciler.blame("a", FaultKind.CRASH, "it died")
    house.engine = FakeEngine()
    house.loader = new_loader(house.engine, house.frontend, house.reconciler)
    async with house.reconciling():
        await house.until(lambda r: r.engine_starts == 2)
    house.reconciler.blame("b", FaultKind.CRASH, "it died")
    house.reconciler.blame("c", FaultKind.LOAD, "it is broken")
    house.reconciler.forgive()
    faults = dict(house.reconciler.residency().faults)
    assert {name: (fault.kind, fault.engine) for name, fault in faults.items()} == {
        "a": (FaultKind.CRASH, 1),  # that engine was followed by one that worked
        "c": (FaultKind.LOAD, 2),
    }


# -- the desired set ---------------------------------------------------------------------------------------


async def test_the_most_wanted_are_preloaded_until_host_memory_is_full(house: House) -> None:
    async with house.reconciling():
        house.tell(*"abcde")
        residency = await house.until(lambda r: len(r.host) == PLACES)
        await asyncio.sleep(0.01)
    assert set(residency.host) == set("abc") and house.engine.reads == list("abc")


async def test_a_place_that_is_cleared_for_a_request_is_not_taken_by_preloading(house: House) -> None:
    async with house.reconciling():
        house.tell(*"abcd")
        await house.until(lambda r: len(r.host) == PLACES)
        house.engine.gate.clear()
        loading = asyncio.create_task(house.run("d"))
        await until(lambda: "d" in house.engine.reads)
        await house.run("c")  # its end has the reconciler look again
        await asyncio.sleep(0.01)
        house.engine.gate.set()
        await loading
        await asyncio.sleep(0.01)
    assert house.engine.reads == list("abcd"), "nothing was put out for what nobody asked for"


async def test_an_adapter_that_somebody_waits_for_goes_last(house: House) -> None:
    for name in "abc":
        await house.run(name)
    async with house.loader.lease(house.adapter("b")), house.loader.lease(house.adapter("c")):
        waiting = asyncio.create_task(house.run("a"))
        await asyncio.sleep(0)
        with contextlib.suppress(AdapterError):
            await house.loader.preload(house.adapter("d"))
        assert "a" in house.loader.host
    await waiting
    assert house.engine.reads == list("abc")


async def test_a_broken_adapter_keeps_no_other_from_being_preloaded(house: House) -> None:
    house.engine.refuse["a"] = Exception("no")
    async with house.reconciling():
        house.tell(*"abc")
        residency = await house.until(lambda r: set(r.host) == {"b", "c"})
    assert [name for name, _ in residency.faults] == ["a"]


async def test_a_removed_adapter_goes_when_its_last_request_ends(house: House) -> None:
    async with house.reconciling():
        house.tell("a", "b")
        await house.until(lambda r: len(r.host) == 2)
        async with house.loader.lease(house.adapter("a")):
            house.tell("b")
            await asyncio.sleep(0.01)
            residency = house.reconciler.residency()
            assert residency.draining == ("a",) and "a" in residency.host and "a" in house.frontend
        residency = await house.until(lambda r: not r.draining)
    assert residency.host == ("b",) and "a" not in house.frontend
    assert len(house.engine.host) == 1


async def test_a_request_that_still_waits_for_its_slot_is_served_though_its_adapter_is_to_go(
    house: House,
) -> None:
    async with house.reconciling():
        house.tell("a", "b", "c")
        await house.until(lambda r: len(r.host) == 3)
        async with house.loader.lease(house.adapter("a")), house.loader.lease(house.adapter("b")):
            waiting = asyncio.create_task(house.run("c"))
            await asyncio.sleep(0)
            house.tell("a", "b")
            await asyncio.sleep(0.01)
        await waiting
        await house.until(lambda r: set(r.host) == {"a", "b"})


async def test_an_adapter_wanted_again_while_it_drains_is_not_removed(house: House) -> None:
    async with house.reconciling():
        house.tell("a")
        await house.until(lambda r: r.host == ("a",))
        async with house.loader.lease(house.adapter("a")):
            house.tell("b")
            await house.until(lambda r: r.draining == ("a",))
            house.tell("a", "b")
        await house.until(lambda r: set(r.host) == {"a", "b"} and not r.draining)
    assert house.engine.reads == ["a", "b"]


async def test_a_new_number_is_given_after_a_removal(house: House) -> None:
    async with house.reconciling():
        numbers = []
        for _ in range(2):
            house.tell("a")
            await house.until(lambda r: r.host == ("a",))
            numbers.append(house.frontend["a"].lora_int_id)
            house.tell()
            await house.until(lambda r: r.host == () and not r.draining)
    assert numbers[0] != numbers[1]


# -- pins --------------------------------------------------------------------------------------------------


async def test_one_slot_stays_for_all_others(house: House) -> None:
    async with house.reconciling():
        house.tell("a", "b", "c", pinned=("a", "b"))
        residency = await house.until(lambda r: r.pinned == ("a",))
        (name, fault), *_ = residency.faults
        assert name == "b" and "not pinned" in fault.reason
        await house.run("c")
        house.tell("a", "b", "c")
        residency = await house.until(lambda r: not r.pinned)
        assert not residency.faults and house.engine.pinned == []


async def test_a_pin_waits_for_a_slot_and_is_never_put_out(house: House) -> None:
    async with house.reconciling():
        async with house.loader.lease(house.adapter("a")), house.loader.lease(house.adapter("b")):
            house.tell("a", "b", "c", pinned=("c",))
            await asyncio.sleep(0.01)
            assert not house.reconciler.residency().pinned, "both slots are taken"
        await house.until(lambda r: r.pinned == ("c",))
        house.tell(*"abcdef", pinned=("c",))
        for name in "abdefabdef":
            await house.run(name)
        assert "c" in house.loader.host


async def test_a_pinned_adapter_that_is_no_longer_wanted_goes(house: House) -> None:
    async with house.reconciling():
        house.tell("a", pinned=("a",))
        await house.until(lambda r: r.pinned == ("a",))
        house.tell("b")
        await house.until(lambda r: r.host == ("b",) and not r.pinned and not r.draining)


def test_a_reason_holds_no_path() -> None:
    error = ValueError("cannot open '/srv/state/ab/cd.safetensors': ~/x and file:/b/c\n  at 3/4 of it")
    assert reason_of(error) == "cannot open '<path>': <path> and file:<path> at 3/4 of it"
    assert reason_of(RuntimeError()) == "RuntimeError"
    assert len(reason_of(ValueError("x" * 1000))) == 300

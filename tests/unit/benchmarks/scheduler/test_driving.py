"""Open loops send on time whatever happens; closed loops go on when one has ended; both clean up."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time

import pytest

from benchmarks.scheduler import driving
from benchmarks.scheduler.answers import Answer
from benchmarks.scheduler.arrivals import Arrival, Prompts
from benchmarks.scheduler.driving import closed_loop, open_loop, undisturbed
from tests.unit.benchmarks.scheduler.fakes import FakeDoor


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driving, "LEAD_S", 0.0)
    monkeypatch.setattr(driving, "PAUSE_AFTER_ERROR_S", 0.0)


async def finish(answer: Answer) -> None:
    answer.sent_s = answer.first_s = answer.last_s = time.monotonic()
    answer.whole = True


async def never(answer: Answer) -> None:
    await asyncio.Event().wait()


async def test_every_request_of_the_list_is_sent_when_due_with_a_prompt_of_its_own() -> None:
    door = FakeDoor("d", finish)
    arrivals = [Arrival(0.01 * n, 0, 0) for n in range(4)]
    drive = await open_loop(door, arrivals, Prompts("p"), 5, drain_s=1.0)
    assert [answer.arrival for answer in drive.answers] == arrivals
    assert [answer.due_s - drive.started_s for answer in drive.answers] == pytest.approx(
        [0, 0.01, 0.02, 0.03]
    )
    assert all(answer.whole and answer.sent_s >= answer.due_s for answer in drive.answers)
    assert len({prompt for _, prompt in door.asked}) == 4


async def test_what_does_not_end_delays_nobody_and_is_cut_off() -> None:
    drive = await open_loop(FakeDoor("d", never), [Arrival(0.0, 0, 0)] * 3, Prompts("p"), 5, drain_s=0.01)
    assert [answer.cut for answer in drive.answers] == [True] * 3
    assert drive.ended_s >= drive.started_s


async def test_a_flood_is_not_awaited_but_stays_until_the_others_have_ended() -> None:
    running: list[Answer] = []

    async def act(answer: Answer) -> None:
        if answer.arrival.flood:
            running.append(answer)
            await never(answer)
        assert len(running) == 2
        await finish(answer)

    arrivals = [Arrival(0.0, 1, 1, flood=True), Arrival(0.0, 1, 1, flood=True), Arrival(0.0, 0, 0)]
    drive = await open_loop(FakeDoor("d", act), arrivals, Prompts("p"), 5, drain_s=60.0)
    assert [answer.whole for answer in drive.answers] == [False, False, True]


async def test_a_list_of_nothing_but_flood_ends() -> None:
    flood = [Arrival(0.0, 1, 1, flood=True)]
    drive = await open_loop(FakeDoor("d", never), flood, Prompts("p"), 5, drain_s=60.0)
    assert len(drive.answers) == 1


async def test_a_closed_loop_sends_the_next_when_one_has_ended() -> None:
    async def act(answer: Answer) -> None:
        await asyncio.sleep(0)
        await finish(answer)

    clients = [itertools.repeat(Arrival(0.0, tenant, tenant)) for tenant in range(3)]
    drive = await closed_loop(FakeDoor("d", act), clients, Prompts("p"), 5, seconds=0.02)
    assert len(drive.answers) > 6
    assert sum(not answer.whole for answer in drive.answers) <= 3  # those that were cut off
    assert {answer.arrival.tenant for answer in drive.answers} == {0, 1, 2}


async def test_a_fault_of_the_benchmark_is_not_taken_for_an_answer() -> None:
    async def broken(answer: Answer) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await open_loop(FakeDoor("d", broken), [Arrival(0.0, 0, 0)], Prompts("p"), 5, drain_s=1.0)


def test_nothing_is_collected_while_requests_are_sent_and_all_is_as_before_after_it() -> None:
    collections: list[int] = []
    gc.callbacks.append(lambda phase, info: collections.append(info["generation"]))
    try:
        with pytest.raises(ZeroDivisionError), undisturbed():
            collections.clear()
            kept = [[n] for n in range(100_000)]
            assert collections == [] and not gc.isenabled()
            _ = len(kept) / 0
    finally:
        gc.callbacks.pop()
        gc.unfreeze()
    assert gc.isenabled()

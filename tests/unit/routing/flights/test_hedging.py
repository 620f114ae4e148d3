"""Which replica answers a request first, and is everybody else let go?"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pytest

from fleet.current import CurrentFleet
from fleet.types import Fleet
from routing.errors import EngineFailed, InvalidRequest
from routing.flights.attempt import Attempt, ReplicaBroken
from routing.flights.hedging import HedgedRequest
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.state import Replica, declared_replicas
from routing.scheduling.tickets import Ticket
from routing.types import Outcome
from tests.fakes import FakeClock, eventually, small_fleet
from tests.unit.routing.requests import ADAPTER_IDS, request

AT_REST = "<Dispatcher admitted=0 queued=0 in_flight=0 leases=0>"
SOON_S = 0.001


class FakeAttempt(Attempt):
    """An attempt that ends when the test says how. It is never left, and asks nobody."""

    def __init__(self, replica: str) -> None:
        self.replica = replica
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed = False

    async def open(self) -> None:
        try:
            await self.end
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.closed = True

    def answer(self) -> None:
        """It answers."""
        self.end.set_result(None)

    def fail(self, error: Exception) -> Callable[[], None]:
        """It fails in that way."""
        return lambda: self.end.set_exception(error)


class CountingDispatcher(Dispatcher):
    """Counts how often each ticket is settled."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(CurrentFleet(fleet), declared_replicas(fleet), clock=FakeClock())
        self.settled: Counter[int] = Counter()

    def settle(self, ticket: Ticket, outcome: Outcome, **usage: Any) -> None:
        """Note it, and do it."""
        self.settled[id(ticket)] += 1
        super().settle(ticket, outcome, **usage)


@dataclass
class Track:
    """A request over two replicas that are ready."""

    dispatcher: CountingDispatcher
    ticket: Ticket
    attempts: list[FakeAttempt] = field(default_factory=list)  # in the order of their start

    def ask(self, hedge_after_s: float | None = SOON_S) -> HedgedRequest:
        """Make it."""
        return HedgedRequest(self.ticket, self.dispatcher, self._ask, hedge_after_s=hedge_after_s)

    async def hedged(self, asking: HedgedRequest) -> asyncio.Task[Attempt]:
        """Run it until two are asked."""
        running = asyncio.ensure_future(asking.first_answer())
        await eventually(lambda: len(self.attempts) == 2, "the hedge")
        return running

    def finish(self) -> None:
        """End the ticket as its owner does; the hedge must be over by then."""
        assert list(self.dispatcher.settled.values()) == [1] * (len(self.attempts) - 1)
        self.dispatcher.settle(self.ticket, Outcome.COMPLETED)
        assert repr(self.dispatcher) == AT_REST

    def _ask(self, replica: Replica) -> FakeAttempt:
        self.attempts.append(FakeAttempt(replica.name))
        return self.attempts[-1]


@pytest.fixture
def track() -> Track:
    dispatcher = CountingDispatcher(small_fleet(replicas=2))
    for name in ("shared-0", "shared-1"):
        dispatcher.take_residency(name, adapters=ADAPTER_IDS, pinned=(), host=())
        dispatcher.set_ready(name, True)
    ticket = dispatcher.submit(request())
    assert isinstance(ticket, Ticket)
    return Track(dispatcher, ticket)


def replica_of(ticket: Ticket) -> str:
    assert ticket.replica is not None
    return ticket.replica.name


async def test_one_is_asked_at_a_time_without_hedging(track: Track) -> None:
    asking = track.ask(None)
    running = asyncio.ensure_future(asking.first_answer())
    await asyncio.sleep(0)
    track.attempts[0].answer()
    assert await running is track.attempts[0]
    assert (asking.asked, asking.hedged) == (1, False)
    track.finish()


@pytest.mark.parametrize("winner", [0, 1])
async def test_whoever_answers_first_goes_on_and_the_other_one_is_closed(track: Track, winner: int) -> None:
    asking = track.ask()
    running = await track.hedged(asking)
    best, other = track.attempts[winner], track.attempts[1 - winner]
    best.answer()
    assert await running is asking.attempt is best
    assert (best.closed, other.closed) == (False, True)
    assert replica_of(track.ticket) == best.replica
    assert (asking.asked, asking.hedged) == (2, True)
    track.finish()


BROKEN = ReplicaBroken("gone", is_down=False)
DOWN = ReplicaBroken("gone", is_down=True)
WRONG = InvalidRequest("wrong")
FAILED = EngineFailed("failed")


@pytest.mark.parametrize(("one", "other"), list(product((None, BROKEN, DOWN, WRONG, FAILED), repeat=2)))
async def test_however_both_end_at_once_one_end_counts_and_all_capacity_comes_back(
    track: Track, one: Exception | None, other: Exception | None
) -> None:
    running = await track.hedged(track.ask())
    for attempt, error in zip(track.attempts, (one, other), strict=True):
        if error is None:
            attempt.answer()
        else:
            attempt.fail(error)()
    result = (await asyncio.gather(running, return_exceptions=True))[0]
    answers = [end for end in (one, other) if end is None or end is WRONG]
    meant = answers[0] if answers else other
    assert result is (meant or track.attempts[(one, other).index(None)])
    open_attempts = [attempt for attempt in track.attempts if not attempt.closed]
    assert open_attempts == ([result] if isinstance(result, Attempt) else [])
    track.finish()


async def test_a_replica_that_is_down_is_asked_no_more_until_it_is_probed(track: Track) -> None:
    running = await track.hedged(track.ask())
    first, second = track.attempts
    first.fail(DOWN)()
    await eventually(lambda: replica_of(track.ticket) == second.replica)
    assert not track.dispatcher.replicas[first.replica].ready
    assert track.dispatcher.replicas[second.replica].ready
    second.answer()
    assert await running is second
    track.finish()


async def test_a_hedge_that_broke_is_not_followed_by_another_one(track: Track) -> None:
    running = await track.hedged(track.ask())
    track.attempts[1].fail(BROKEN)()
    await eventually(lambda: bool(track.dispatcher.settled))
    await asyncio.sleep(10 * SOON_S)
    assert len(track.attempts) == 2
    track.attempts[0].answer()
    assert await running is track.attempts[0]
    track.finish()


@pytest.mark.parametrize("broken", [0, 1])
async def test_a_replica_that_broke_under_a_request_is_not_asked_again_for_it(
    track: Track, broken: int
) -> None:
    running = await track.hedged(track.ask())
    bad, good = track.attempts[broken], track.attempts[1 - broken]
    bad.fail(BROKEN)()
    await eventually(lambda: bool(track.dispatcher.settled))
    assert track.ticket.request.failed_on == {bad.replica}
    good.answer()
    assert await running is good
    track.finish()


async def test_what_breaks_is_held_against_its_replica_and_what_loses_is_not(track: Track) -> None:
    running = await track.hedged(track.ask())
    first, second = track.attempts
    first.fail(BROKEN)()
    await eventually(lambda: bool(track.dispatcher.settled))
    second.answer()
    await running
    failures = {name: r.engine.health.last_failure for name, r in track.dispatcher.replicas.items()}
    assert bool(failures[first.replica]) and not failures[second.replica]
    track.finish()


@pytest.mark.parametrize("also_answers", [None, 0, 1])
async def test_a_race_that_is_cancelled_leaves_nobody_behind(track: Track, also_answers: int | None) -> None:
    running = await track.hedged(track.ask())
    before = replica_of(track.ticket)
    if also_answers is not None:
        track.attempts[also_answers].answer()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert all(attempt.closed for attempt in track.attempts)
    assert replica_of(track.ticket) == before
    track.finish()


async def test_a_race_that_is_cancelled_before_anybody_was_asked_leaves_nobody_behind(track: Track) -> None:
    running = asyncio.ensure_future(track.ask().first_answer())
    await asyncio.sleep(0)  # the attempt's own task has not begun
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert track.attempts[0].closed
    track.finish()


async def test_a_ticket_that_runs_nowhere_cannot_race(track: Track) -> None:
    track.dispatcher.settle(track.ticket, Outcome.CANCELLED)
    with pytest.raises(RuntimeError, match="without a replica"):
        track.ask()

"""What becomes of requests while no engine that could serve them is ready? They wait for one."""

from __future__ import annotations

from typing import Any

import pytest

from engines.health import EngineHealth, EngineState
from fleet.types import Caps
from routing.errors import QueueTimeout, Unavailable
from routing.scheduling.admission import Cap, Rejection
from routing.scheduling.filters import WaitReason
from routing.scheduling.tickets import Ticket
from routing.types import Outcome
from tests.unit.routing.scheduling.test_dispatcher import AT_REST, House

ONLY = "shared-0"
away = pytest.mark.parametrize(
    "state", [None, *(s for s in EngineState if s is not EngineState.READY)], ids=lambda s: s or "no answer"
)


def lose(house: House, name: str = ONLY, state: EngineState | None = EngineState.STARTING) -> None:
    """Have a replica's engine go away, as the probe finds it."""
    house.dispatcher.replicas[name].engine.told = (
        None if state is None else EngineHealth(state, "its own words")
    )
    house.dispatcher.set_ready(name, False)


def end(house: House, *tickets: Ticket) -> None:
    house.finish(*tickets)
    assert repr(house.dispatcher) == AT_REST


@away
@pytest.mark.parametrize("came", ["before", "meanwhile"])
def test_a_request_waits_for_the_only_engine_and_runs_once_it_is_ready(
    state: EngineState | None, came: str
) -> None:
    house = House(max_num_seqs=1)
    running = house.submit()
    waiting = [house.submit()] if came == "before" else []
    lose(house, state=state)
    house.finish(running, outcome=Outcome.FAILED)
    waiting = waiting or [house.submit()]
    house.clock.now += 20.0
    house.dispatcher.sweep()
    assert house.running(*waiting) == [False] and not waiting[0].is_decided
    assert waiting[0].waits_for == (WaitReason.NO_ROOM if came == "before" else WaitReason.NOT_READY)
    house.be_ready(ONLY)
    assert house.running(*waiting) == [True]
    end(house, *waiting)


def test_those_that_waited_longest_run_first_and_no_more_than_there_is_room_for() -> None:
    house = House(max_num_seqs=2)
    lose(house)
    tickets = [house.submit() for _ in range(4)]
    house.be_ready(ONLY)
    assert house.running(*tickets) == [True, True, False, False]
    end(house, *tickets)


@pytest.mark.parametrize(
    ("states", "words", "retry_after_s"),
    [
        ([EngineState.STARTING], "engine that serves this model is not ready", 5.0),
        ([EngineState.SILENT], "engine that serves this model is not ready", 5.0),
        ([EngineState.FAILED], "does not start", 30.0),
        ([EngineState.FAILED, EngineState.FAILED], "does not start", 30.0),
        ([EngineState.FAILED, EngineState.STARTING], "engine that serves this model is not ready", 5.0),
        ([EngineState.FAILED, None], "engine that serves this model is not ready", 5.0),
    ],
)
def test_what_waits_in_vain_is_told_how_its_engine_stands(
    states: list[EngineState | None], words: str, retry_after_s: float
) -> None:
    house = House(replicas=len(states), caps=Caps(queue_timeout_s=8.0))
    for number, state in enumerate(states):
        lose(house, f"shared-{number}", state)
    ticket = house.submit()
    house.clock.now += 7.9
    house.dispatcher.sweep()
    assert not ticket.is_decided
    house.clock.now += 0.1
    house.dispatcher.sweep()
    refusal = ticket.refusal
    assert isinstance(refusal, QueueTimeout) and refusal.code == "queue_timeout"
    assert refusal.message.startswith("The request waited 8 s, the longest this tenant allows: ")
    assert words in refusal.message and "own words" not in refusal.message
    assert (refusal.status, refusal.retry_after_s) == (503, retry_after_s)
    house.finish(ticket, outcome=Outcome.EXPIRED)
    assert repr(house.dispatcher) == AT_REST


def test_what_waits_for_room_is_not_told_of_engines() -> None:
    house = House(replicas=2, max_num_seqs=1, caps=Caps(queue_timeout_s=8.0))
    lose(house, "shared-1")
    running, waiting = house.submit(), house.submit()
    house.clock.now += 8.0
    house.dispatcher.sweep()
    assert waiting.refusal is not None
    assert (
        waiting.refusal.message
        == "The request waited 8 s for a free replica, the longest this tenant allows."
    )
    end(house, running, waiting)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_request_is_refused_once_nobody_is_left_that_could_ever_serve_it(order: tuple[int, int]) -> None:
    house = House(replicas=2)
    lose(house, "shared-0")
    lose(house, "shared-1")
    waiting = house.submit()
    first, second = (f"shared-{number}" for number in order)
    house.dispatcher.set_draining(first, True)
    assert not waiting.is_decided, "the other one may come back"
    house.dispatcher.set_draining(second, True)
    assert isinstance(waiting.refusal, Unavailable) and waiting.refusal.code == "no_replica_ready"
    with pytest.raises(Unavailable) as refused:
        house.submit()
    assert (refused.value.code, refused.value.retry_after_s) == ("no_replica_ready", 5.0)
    house.finish(waiting, outcome=Outcome.FAILED)
    house.dispatcher.set_draining(second, False)
    end(house, house.submit())


def test_a_request_waits_for_an_engine_while_a_ready_one_is_drained() -> None:
    house = House(replicas=2)
    lose(house, "shared-0")
    house.dispatcher.set_draining("shared-1", True)
    ticket = house.submit()
    assert house.running(ticket) == [False]
    house.be_ready("shared-0")
    assert house.running(ticket) == [True]
    end(house, ticket)


# -- what had been given to an engine that is gone ---------------------------------------------------------


def test_what_the_only_engine_has_not_begun_with_waits_until_it_is_back() -> None:
    house = House()
    ticket = house.submit()
    house.dispatcher.set_ready(ONLY, False)  # it refused the connection
    house.dispatcher.requeue(ticket, certain=True, begun=False)
    assert house.running(ticket) == [False] and ticket.failed_on == {ONLY}
    house.be_ready(ONLY)
    assert house.running(ticket) == [True]
    end(house, ticket)


@pytest.mark.parametrize("user", ["", "u"], ids=["nobody named", "one user"])
def test_what_an_engine_has_not_begun_with_runs_before_what_came_later(user: str) -> None:
    house = House(max_num_seqs=2)
    tickets = []
    for _ in range(5):
        tickets.append(house.submit(user=user))
        house.clock.now += 1.0
    house.dispatcher.set_ready(ONLY, False)
    for ticket in reversed(tickets[:2]):
        house.dispatcher.requeue(ticket, certain=True, begun=False)
    house.be_ready(ONLY)
    assert house.running(*tickets) == [True, True, False, False, False]
    end(house, *tickets)


def test_it_is_not_asked_again_for_longer_than_the_tenant_waits() -> None:
    house = House(caps=Caps(queue_timeout_s=8.0))
    ticket = house.submit()
    for _ in range(7):
        house.clock.now += 1.0
        house.dispatcher.set_ready(ONLY, False)
        house.dispatcher.requeue(ticket, certain=True, begun=False)
        house.dispatcher.sweep()
        house.be_ready(ONLY)
        assert house.running(ticket) == [True]
    house.clock.now += 1.0
    house.dispatcher.set_ready(ONLY, False)
    house.dispatcher.requeue(ticket, certain=True, begun=False)
    house.dispatcher.sweep()
    assert isinstance(ticket.refusal, QueueTimeout)
    house.finish(ticket, outcome=Outcome.EXPIRED)
    assert repr(house.dispatcher) == AT_REST


@pytest.mark.parametrize("certain", [True, False], ids=["its engine died", "it broke off"])
def test_what_an_engine_has_broken_on_is_not_given_to_the_same_one_again(certain: bool) -> None:
    """It may be the reason: a request that kills engines would kill the same one at every start."""
    house = House()
    ticket = house.submit()
    house.dispatcher.set_ready(ONLY, False)
    with pytest.raises(Unavailable) as refused:
        house.dispatcher.requeue(ticket, certain=certain)
    assert refused.value.code == "no_replica_ready"
    assert refused.value.message.startswith("The engine failed on this request, and no other replica")
    end(house, ticket)


@pytest.mark.parametrize("begun", [False, True])
def test_what_an_engine_has_broken_on_waits_for_another_one(begun: bool) -> None:
    house = House(replicas=2)
    ticket = house.submit()
    assert ticket.replica is not None
    broken = ticket.replica.name
    (other,) = {"shared-0", "shared-1"} - {broken}
    house.dispatcher.set_ready(other, False)
    house.dispatcher.set_ready(broken, False)
    house.dispatcher.requeue(ticket, certain=True, begun=begun)
    house.be_ready(broken)
    assert house.running(ticket) == [not begun]
    house.be_ready(other)
    assert house.running(ticket) == [True]
    end(house, ticket)


# -- how much may wait -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "cap"),
    [
        ({"caps": Caps(max_queued=3)}, Cap.QUEUED),
        ({"caps": Caps(max_queued_tokens=30)}, Cap.QUEUED_TOKENS),
        ({"caps": Caps(max_concurrency=3)}, Cap.CONCURRENCY),
        ({"max_queued": 6}, Cap.OVERLOADED),  # half of it is one tenant's
        ({"max_queued_bytes": 6000}, Cap.OVERLOADED),
    ],
    ids=["requests", "tokens", "sequences", "the whole queue", "bodies"],
)
def test_what_waits_for_an_engine_is_bounded_as_any_queue_is(limits: dict[str, Any], cap: Cap) -> None:
    house = House(same_band=True, **limits)
    lose(house)
    offered = [house.offer(size_bytes=1000) for _ in range(50)]
    waiting = [ticket for ticket in offered if isinstance(ticket, Ticket)]
    refused = {rejection.cap for rejection in offered if isinstance(rejection, Rejection)}
    assert (len(waiting), refused) == (3, {cap})
    quiet = house.offer("b", size_bytes=1000)
    assert isinstance(quiet, Ticket), "there is room for another tenant"
    house.be_ready(ONLY)
    end(house, quiet, *waiting)


def test_a_time_without_an_engine_says_nothing_of_what_it_does() -> None:
    """Else all would be shed that waits when it is back, since it seems to be slow."""
    house = House(max_num_seqs=1, ttft_slo_s=5.0)
    tickets = [house.submit() for _ in range(3)]
    for _ in range(10):
        house.clock.now += 0.5
        house.dispatcher.sweep()
        house.finish(next(t for t in tickets if t.replica is not None and t.settled is None))
        tickets.append(house.submit())
    group = house.dispatcher.groups["shared", "base"]
    before = group.predicted_wait_s(tickets[-1].request)
    lose(house)
    for _ in range(100):
        house.clock.now += 0.25
        house.dispatcher.sweep()
    house.be_ready(ONLY)
    house.dispatcher.sweep()
    assert before is not None and group.predicted_wait_s(tickets[-1].request) == pytest.approx(before)
    end(house, *tickets)


def test_when_the_gateway_ends_what_waits_for_an_engine_is_told_so() -> None:
    house = House()
    lose(house)
    ticket = house.submit()
    house.dispatcher.drain()
    assert ticket.refusal is not None and ticket.refusal.code == "shutting_down"
    end(house, ticket)

"""Requests of a model whose turn is not now wait for it; they are refused only where it can never come."""

from __future__ import annotations

import pytest

from routing.errors import QueueTimeout, Unavailable
from routing.scheduling.admission import Cap, Rejection
from routing.scheduling.filters import WaitReason
from routing.scheduling.tickets import Ticket
from routing.types import Outcome
from tests.unit.routing.scheduling.test_dispatcher import AT_REST, House


class Turns:
    """Says when a model's turn would come."""

    until_s: float | None = 0.0
    switch_s = 0.0

    def until_awake_s(self) -> float | None:
        return self.until_s

    def least_s(self) -> float:
        return self.switch_s


def asleep(**options: object) -> House:
    """A house whose shared replica is on disk."""
    house = House(**options)  # type: ignore[arg-type]
    house.dispatcher.set_ready("shared-0", False)
    house.dispatcher.set_asleep("shared-0", True)
    return house


def admitted(decision: Ticket | Rejection) -> Ticket:
    assert isinstance(decision, Ticket)
    return decision


def test_a_request_waits_for_its_model_and_runs_once_that_is_awake() -> None:
    house = asleep()
    ticket = admitted(house.offer())
    assert (ticket.waits_for, ticket.replica) == (WaitReason.ASLEEP, None)
    house.be_ready("shared-0")
    assert ticket.replica is None, "an engine that is ready takes nothing before its turn"
    house.clock.now += 3.0
    house.dispatcher.set_asleep("shared-0", False)
    assert ticket.replica is not None
    assert (ticket.woke_s, ticket.queued_s) == (3.0, 3.0)
    house.dispatcher.settle(ticket, Outcome.COMPLETED)
    assert repr(house.dispatcher) == AT_REST


def test_what_runs_goes_on_when_a_turn_ends_and_what_comes_waits() -> None:
    house = House()
    running = admitted(house.offer())
    house.dispatcher.set_asleep("shared-0", True)
    waiting = admitted(house.offer())
    assert running.is_running and not waiting.is_running
    assert running.woke_s is None
    house.dispatcher.set_asleep("shared-0", False)
    assert waiting.is_running


def test_who_decides_of_turns_is_told_when_something_waits_and_when_a_model_has_run_empty() -> None:
    house = House()
    told: list[str] = []
    house.dispatcher.turn_due = told.append
    running = admitted(house.offer())
    house.dispatcher.set_asleep("shared-0", True)
    assert told == []
    house.dispatcher.settle(running, Outcome.COMPLETED)
    assert told == ["shared"]
    house.offer()
    assert told == ["shared", "shared"]


def test_a_model_on_disk_can_serve_and_one_that_cannot_come_cannot() -> None:
    house = asleep()
    waiting = admitted(house.offer())
    assert house.dispatcher.takes_work(waiting.request.target)
    house.dispatcher.set_asleep("shared-0", True, barred=True)
    assert isinstance(waiting.refusal, Unavailable)
    with pytest.raises(Unavailable):
        house.offer()
    assert not house.dispatcher.takes_work(waiting.request.target)
    house.dispatcher.set_asleep("shared-0", True)
    assert admitted(house.offer()).waits_for is WaitReason.ASLEEP


def test_who_has_waited_too_long_for_a_model_is_told_that_it_was_not_loaded() -> None:
    house = asleep()
    waiting = admitted(house.offer())
    house.clock.now += 1000.0
    house.dispatcher.sweep()
    assert isinstance(waiting.refusal, QueueTimeout)
    assert "not loaded" in waiting.refusal.message


@pytest.mark.parametrize(
    ("until_s", "switch_s", "sheds"),
    [
        (1.5, 0.5, False),  # in time
        (2.5, 0.5, True),  # others go before, and it would be late
        (20.0, 20.0, False),  # late, but only for its own switch: else it would never come
        (25.0, 20.0, True),
        (None, 0.0, False),  # unknown
    ],
)
def test_an_objective_refuses_who_would_be_late_for_others_turns(
    until_s: float | None, switch_s: float, sheds: bool
) -> None:
    house = asleep(ttft_slo_s=2.0, same_band=True)
    turns = Turns()
    turns.until_s, turns.switch_s = until_s, switch_s
    house.dispatcher.groups["shared", "base"].turns = turns
    decision = house.offer()
    assert isinstance(decision, Rejection) is sheds
    if isinstance(decision, Rejection):
        assert decision.cap is Cap.OVERLOADED
        assert decision.retry_after_s == pytest.approx((until_s or 0.0) - 2.0)

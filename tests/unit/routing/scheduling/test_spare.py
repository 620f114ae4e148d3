"""Lines of batches: they take a part of what others leave, count for nobody, and give way at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fleet.types import Caps, KeyLimits
from routing.errors import NoSpareRoom
from routing.scheduling.tickets import Ticket
from routing.types import Outcome
from tests.unit.routing.requests import request
from tests.unit.routing.scheduling.test_dispatcher import AT_REST, House


def line(house: House, tenant: str = "a", model: str = "support", **changes: Any) -> Ticket:
    """Submit a line of a batch. Raises `NoSpareRoom`."""
    asked = request(tenant, model, pool="shared", arrived_s=house.clock.now)
    ticket = house.dispatcher.submit(replace(asked, spare=True, **changes))
    assert isinstance(ticket, Ticket) and ticket.is_running, "a line never waits"
    return ticket


def begin_all(house: House, tenant: str = "a", model: str = "support") -> list[Ticket]:
    """Begin as many lines as may run."""
    begun: list[Ticket] = []
    with pytest.raises(NoSpareRoom):
        while True:
            begun.append(line(house, tenant, model))
    return begun


def end(house: House, *tickets: Ticket) -> None:
    for ticket in tickets:
        house.dispatcher.settle(ticket, Outcome.COMPLETED, prompt_tokens=7, completion_tokens=3)


@pytest.mark.parametrize(("others", "lines"), [(0, 4), (4, 3), (8, 2), (14, 1), (15, 0), (16, 0)])
def test_they_run_in_a_quarter_of_what_others_leave(others: int, lines: int) -> None:
    house = House(max_num_seqs=16)
    running = [house.submit("a") for _ in range(others)]
    begun = begin_all(house)
    assert len(begun) == lines
    end(house, *running, *begun)
    assert repr(house.dispatcher) == AT_REST


def test_none_begins_while_anything_waits_and_has_says_the_same() -> None:
    house = House(max_num_seqs=2)
    running = [house.submit("a") for _ in range(3)]
    probe = replace(request("b", pool="shared"), spare=True)
    assert not house.dispatcher.spare.has(probe)
    end(house, running[0])
    assert not house.dispatcher.spare.has(probe), "two run, which is all that there is"
    end(house, *running)
    assert house.dispatcher.spare.has(probe)
    end(house, line(house, "b"))


def test_they_take_no_slot_of_others_and_give_theirs_up_at_once() -> None:
    house = House(slots=2, max_num_seqs=64)
    begun = [line(house)]
    with pytest.raises(NoSpareRoom):
        line(house, "a", "sales")
    other = house.submit("a", "sales")
    assert other.is_running, "the other slot is free"
    waiting = house.submit("b")
    assert not waiting.is_running
    house.dispatcher.sweep()
    with pytest.raises(NoSpareRoom):
        line(house)
    drain = house.dispatcher.replicas["shared-0"].engine.slot_drain
    assert drain is not None and drain.evicted == "a-support@1", "the batch's, though it is of a higher band"
    end(house, *begun)
    assert waiting.is_running
    end(house, other, waiting)
    assert repr(house.dispatcher) == AT_REST


def test_they_are_no_service_of_their_tenant_and_no_flood() -> None:
    house = House(max_num_seqs=256)
    group = house.dispatcher.groups["shared", "base"]
    before = group.counters["a"]
    for _ in range(30):
        end(house, line(house))
    begun = [line(house) for _ in range(30)]
    house.clock.now += 10
    house.dispatcher.sweep()
    assert group.counters["a"] == before
    assert not group.floods.running and not group.floods.leased and not group.floods.flooding
    end(house, *begun)
    assert not group.floods.leased and repr(house.dispatcher) == AT_REST


def test_they_leave_half_of_every_cap_and_rate_to_others_of_their_tenant_and_key() -> None:
    house = House(max_num_seqs=256, caps=Caps(max_concurrency=6))
    begun = begin_all(house)
    assert len(begun) == 3
    end(house, *begun)
    begun = [house.submit("a") for _ in range(3)]
    assert not begin_all(house), "others have their half already"
    end(house, *begun)
    limited: dict[str, Any] = {"key": "k", "key_limits": KeyLimits(max_concurrency=2)}
    begun = [line(house, **limited)]
    with pytest.raises(NoSpareRoom):
        line(house, **limited)
    end(house, *begun)
    slow = House(max_num_seqs=256, caps=Caps(requests_per_minute=10))
    for _ in range(6):
        end(slow, line(slow))
    with pytest.raises(NoSpareRoom):
        line(slow)


def test_a_line_whose_engine_breaks_waits_nowhere() -> None:
    house = House(replicas=2)
    house.dispatcher.set_ready("shared-1", False)
    ticket = line(house)
    house.dispatcher.set_ready("shared-0", False)
    with pytest.raises(NoSpareRoom):
        house.dispatcher.requeue(ticket, certain=True)
    house.dispatcher.settle(ticket, Outcome.FAILED)
    assert repr(house.dispatcher) == AT_REST


def test_nothing_is_asked_twice_for_a_line() -> None:
    house = House(replicas=2)
    ticket = line(house)
    assert house.dispatcher.hedge(ticket) is None
    end(house, ticket)

"""When and where does each request run, and does every counter come back?"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.admission import Rejection
from routing.dispatcher import Dispatcher
from routing.errors import Unavailable
from routing.scheduling.profile import SLOT_LEASE
from routing.scheduling.state import replica_states
from routing.tickets import Ticket
from routing.types import Band, Caps, Outcome, SchedulerSettings
from tests.fakes import FakeClock, small_fleet
from tests.unit.routing.requests import ADAPTER_IDS, request

AT_REST = "<Dispatcher admitted=0 queued=0 in_flight=0 leases=0>"


class House:
    """A dispatcher over `small_fleet` with a clock of its own; every replica is ready."""

    def __init__(
        self,
        *,
        slots: int = 2,
        replicas: int = 1,
        max_num_seqs: int = 8,
        caps: Caps | None = None,
        same_band: bool = False,
        **scheduler: Any,
    ) -> None:
        self.clock = FakeClock()
        fleet = small_fleet(slots=slots, replicas=replicas, max_num_seqs=max_num_seqs, caps=caps)
        if same_band:
            tenants = {name: replace(t, band=Band.STANDARD) for name, t in fleet.tenants.items()}
            fleet = replace(fleet, tenants=tenants)
        settings = SchedulerSettings(**{"locality_bonus_tokens": 0.0, **scheduler})
        fleet = replace(fleet, gateway=replace(fleet.gateway, scheduler=settings))
        self.dispatcher = Dispatcher(fleet, replica_states(fleet), clock=self.clock)
        for name in self.dispatcher.replicas:
            self.be_ready(name)

    def be_ready(self, replica: str) -> None:
        """What the probe does when a replica answers."""
        self.dispatcher.take_residency(replica, adapters=ADAPTER_IDS, pinned=(), host=())
        self.dispatcher.set_ready(replica, True)

    def submit(self, tenant: str = "a", model: str = "support", **changes: object) -> Ticket:
        """Submit a request that is expected to be admitted."""
        pool = "alone" if tenant == "c" else "shared"
        asked = request(tenant, model, pool=pool, arrived_s=self.clock.now, **changes)  # type: ignore[arg-type]
        ticket = self.dispatcher.submit(asked)
        assert isinstance(ticket, Ticket)
        return ticket

    def finish(self, *tickets: Ticket, outcome: Outcome = Outcome.COMPLETED, tokens: int = 10) -> None:
        """Settle tickets."""
        for ticket in tickets:
            self.dispatcher.settle(ticket, outcome, prompt_tokens=10, completion_tokens=tokens)

    def running(self, *tickets: Ticket) -> list[bool]:
        """Which of them hold a replica."""
        return [ticket.replica is not None for ticket in tickets]


async def test_a_request_runs_at_once_where_there_is_room() -> None:
    house = House()
    ticket = house.submit()
    assert (await ticket.granted()).name == "shared-0"
    assert ticket.queued_s == 0.0
    house.finish(ticket)
    assert repr(house.dispatcher) == AT_REST


async def test_settling_twice_changes_nothing() -> None:
    house = House()
    ticket, other = house.submit(), house.submit()
    house.finish(ticket)
    before = repr(house.dispatcher)
    house.finish(ticket, outcome=Outcome.FAILED)
    assert repr(house.dispatcher) == before
    assert ticket.settled is Outcome.COMPLETED
    house.finish(other)


async def test_an_adapter_without_a_slot_waits_until_one_is_free() -> None:
    house = House(slots=1)
    first, second = house.submit("a", "support"), house.submit("a", "sales")
    third = house.submit("a", "support")
    assert house.running(first, second, third) == [True, False, True]
    house.finish(first)
    assert house.running(second) == [False]
    house.finish(third)
    assert house.running(second) == [True]
    house.finish(second)
    assert repr(house.dispatcher) == AT_REST


async def test_a_higher_band_is_served_first() -> None:
    house = House(max_num_seqs=1)
    running, low, high = house.submit("a"), house.submit("b"), house.submit("a")
    house.finish(running)
    assert house.running(low, high) == [False, True]
    house.finish(high)
    house.finish(low)


async def test_a_flooding_tenant_does_not_hold_up_a_quiet_one() -> None:
    house = House(slots=4, max_num_seqs=2, same_band=True)
    flood = [house.submit("a") for _ in range(20)]
    quiet = house.submit("b")
    house.finish(flood[0], flood[1], tokens=64)
    assert house.running(quiet) == [True], "twenty waited before it, but it has had no service"
    house.finish(quiet, *flood)
    assert repr(house.dispatcher) == AT_REST


async def test_an_adapter_that_never_gets_a_slot_is_given_one_after_a_while() -> None:
    house = House(slots=1)
    busy, starving = house.submit("a", "support"), house.submit("a", "sales")
    house.clock.now += 10.0
    house.dispatcher.sweep()
    late = house.submit("a", "support")
    assert house.running(starving, late) == [False, False], "the victim of the clearing gets no more"
    house.finish(busy)
    assert house.running(starving, late) == [True, False]
    house.finish(starving)
    assert house.running(late) == [True]
    house.finish(late)
    assert repr(house.dispatcher) == AT_REST


async def test_a_clearing_ends_when_nobody_waits_for_it_any_more() -> None:
    house = House(slots=1)
    busy, starving = house.submit("a", "support"), house.submit("a", "sales")
    house.clock.now += 10.0
    house.dispatcher.sweep()
    held_back = house.submit("a", "support")
    house.finish(starving, outcome=Outcome.CANCELLED)
    house.dispatcher.sweep()
    assert house.running(held_back) == [True]
    house.finish(busy, held_back)


async def test_a_request_expires_at_its_tenants_deadline() -> None:
    house = House(max_num_seqs=1, caps=Caps(queue_timeout_s=5.0))
    running, waiting = house.submit(), house.submit()
    house.clock.now += 4.9
    house.dispatcher.sweep()
    assert not waiting.is_decided
    house.clock.now += 0.1
    house.dispatcher.sweep()
    with pytest.raises(Unavailable, match="waited 5 s"):
        await waiting.granted()
    house.finish(waiting, outcome=Outcome.EXPIRED)
    house.finish(running)
    assert repr(house.dispatcher) == AT_REST


async def test_a_ticket_given_back_goes_to_another_replica_before_all_others() -> None:
    house = House(replicas=2, max_num_seqs=1)
    first, second = house.submit(), house.submit()
    waiting = house.submit()
    broken = first.replica
    assert broken is not None
    house.dispatcher.give_back(first)
    assert house.running(first, waiting) == [False, True], "the broken replica may still run others"
    house.finish(second)
    assert house.running(first) == [True]
    assert first.replica is not broken
    house.finish(first, waiting)
    assert repr(house.dispatcher) == AT_REST


async def test_a_ticket_given_back_by_the_last_replica_has_nowhere_to_go() -> None:
    house = House()
    ticket = house.submit()
    with pytest.raises(Unavailable):
        house.dispatcher.give_back(ticket)
    house.finish(ticket, outcome=Outcome.FAILED)
    assert repr(house.dispatcher) == AT_REST


async def test_who_waits_for_a_pool_that_goes_away_is_told_so() -> None:
    house = House(max_num_seqs=1)
    running, waiting = house.submit(), house.submit()
    house.dispatcher.set_ready("shared-0", False)
    with pytest.raises(Unavailable):
        await waiting.granted()
    with pytest.raises(Unavailable):
        house.submit()
    other_pool = house.submit("c")
    house.finish(running, other_pool)
    house.finish(waiting, outcome=Outcome.FAILED)
    assert repr(house.dispatcher) == AT_REST


async def test_a_rejected_request_leaves_no_trace() -> None:
    house = House(caps=Caps(max_concurrency=1))
    ticket = house.submit()
    before = repr(house.dispatcher)
    assert isinstance(house.dispatcher.submit(request()), Rejection)
    assert repr(house.dispatcher) == before
    house.finish(ticket)


async def test_counts_are_by_tenant_and_model() -> None:
    house = House(max_num_seqs=2)
    tickets = [house.submit("a", "support", sequences=2), house.submit("a", "sales"), house.submit("b")]
    assert house.dispatcher.admitted() == {("a", "support"): 2, ("a", "sales"): 1, ("b", "support"): 1}
    assert house.dispatcher.queued() == {("a", "sales"): 1, ("b", "support"): 1}
    house.finish(*tickets)
    assert house.dispatcher.admitted() == {} and house.dispatcher.queued() == {}


def fits(house: House) -> bool:
    """Whether no replica holds more than it can: adapters in slots, sequences in its batch."""
    return all(
        len(r.leases) <= r.slots and r.sequences <= r.max_sequences
        for r in house.dispatcher.replicas.values()
    )


def work_conserving(house: House, waiting: list[Ticket]) -> bool:
    """Whether no request waits that a replica could take by the filters of the profile."""
    replicas = [r for r in house.dispatcher.replicas.values() if r.pool == "shared"]
    return all(SLOT_LEASE.pick(replicas, ticket.request) is None for ticket in waiting)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 3), st.integers(1, 5))
def test_any_interleaving_keeps_every_bound_and_ends_at_rest(
    seed: int, slots: int, replicas: int, width: int
) -> None:
    """Slots are never exceeded, nothing waits that could run, and at the end every counter is zero."""

    async def run() -> None:
        chance = random.Random(seed)
        house = House(slots=slots, replicas=replicas, max_num_seqs=width)
        alive: list[Ticket] = []
        for _ in range(120):
            house.clock.now += chance.random()
            _one_step(house, alive, chance)
            assert fits(house)
            assert work_conserving(house, [t for t in alive if not t.is_decided])
        for ticket in alive:
            house.finish(ticket)
        assert repr(house.dispatcher) == AT_REST

    asyncio.run(run())


def _one_step(house: House, alive: list[Ticket], chance: random.Random) -> None:
    """One random event."""
    step = chance.choice(["arrive"] * 5 + ["finish"] * 4 + ["leave", "fail", "flip", "sweep"])
    if step == "arrive":
        tenant, model = chance.choice([("a", "support"), ("a", "sales"), ("a", "plain"), ("b", "support")])
        asked = request(tenant, model, base=model == "plain", arrived_s=house.clock.now)
        with contextlib.suppress(Unavailable):
            ticket = house.dispatcher.submit(asked)
            if isinstance(ticket, Ticket):
                alive.append(ticket)
    elif step == "flip":
        name = chance.choice([name for name in house.dispatcher.replicas if name.startswith("shared")])
        house.dispatcher.set_ready(name, not house.dispatcher.replicas[name].ready)
    elif step == "sweep":
        house.dispatcher.sweep()
    elif alive:
        ticket = chance.choice(alive)
        if step == "fail" and ticket.replica is not None:
            try:
                house.dispatcher.give_back(ticket)
            except Unavailable as error:
                ticket.refusal = error
        else:
            alive.remove(ticket)
            house.finish(ticket, outcome=Outcome.CANCELLED if step == "leave" else Outcome.COMPLETED)
    for ticket in [t for t in alive if t.refusal is not None]:
        alive.remove(ticket)
        house.finish(ticket, outcome=Outcome.FAILED)

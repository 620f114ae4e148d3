"""When and where does each request run, and does every counter come back?"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleet.current import CurrentFleet
from fleet.types import Band, Caps, SchedulerSettings, Slo
from routing.errors import Unavailable
from routing.scheduling import locality
from routing.scheduling.admission import Cap, Rejection
from routing.scheduling.affinity import Affinity
from routing.scheduling.decisions import Action
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.filters import WaitReason
from routing.scheduling.profile import SLOT_LEASE
from routing.scheduling.state import declared_replicas
from routing.scheduling.tickets import Ticket
from routing.scheduling.view import View
from routing.types import Outcome
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
        ttft_slo_s: float | None = None,
        **scheduler: Any,
    ) -> None:
        self.clock = FakeClock()
        fleet = small_fleet(slots=slots, replicas=replicas, max_num_seqs=max_num_seqs, caps=caps)
        if same_band:
            tenants = {name: replace(t, band=Band.STANDARD) for name, t in fleet.tenants.items()}
            fleet = replace(fleet, tenants=tenants)
        settings = SchedulerSettings(**{"locality_bonus_tokens": 0.0, **scheduler})
        fleet = replace(fleet, gateway=replace(fleet.gateway, scheduler=settings))
        pools = {name: replace(pool, slo=Slo(ttft_s=ttft_slo_s)) for name, pool in fleet.pools.items()}
        fleet = replace(fleet, pools=pools)
        self.fleet = CurrentFleet(fleet)
        self.dispatcher = Dispatcher(self.fleet, declared_replicas(fleet), clock=self.clock)
        for name in self.dispatcher.replicas:
            self.be_ready(name)

    def be_ready(self, replica: str) -> None:
        """What the probe does when a replica answers."""
        self.dispatcher.take_residency(replica, adapters=ADAPTER_IDS, pinned=(), host=())
        self.dispatcher.set_ready(replica, True)

    def offer(self, tenant: str = "a", model: str = "support", **changes: Any) -> Ticket | Rejection:
        """Submit a request, whatever becomes of it."""
        pool = "alone" if tenant == "c" else "shared"
        limit = changes.pop("adapter_limit", None)
        size_bytes = changes.pop("size_bytes", 0)
        asked = request(tenant, model, pool=pool, arrived_s=self.clock.now, **changes)
        target = replace(asked.target, adapter_limit=limit)
        return self.dispatcher.submit(replace(asked, target=target, size_bytes=size_bytes))

    def submit(self, tenant: str = "a", model: str = "support", **changes: Any) -> Ticket:
        """Submit a request that is expected to be admitted."""
        ticket = self.offer(tenant, model, **changes)
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
    assert house.running(starving, late) == [False, False], "the adapter that is evicted gets no more"
    house.finish(busy)
    assert house.running(starving, late) == [True, False]
    house.finish(starving)
    assert house.running(late) == [True]
    house.finish(late)
    assert repr(house.dispatcher) == AT_REST


async def test_a_slot_drains_no_longer_when_nothing_waits_for_it_any_more() -> None:
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
    house.dispatcher.requeue(first)
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
        house.dispatcher.requeue(ticket)
    house.finish(ticket, outcome=Outcome.FAILED)
    assert repr(house.dispatcher) == AT_REST


async def test_who_waits_for_a_pool_whose_last_replica_is_drained_is_told_so() -> None:
    house = House(max_num_seqs=1)
    running, waiting = house.submit(), house.submit()
    house.dispatcher.set_draining("shared-0", True)
    with pytest.raises(Unavailable):
        await waiting.granted()
    with pytest.raises(Unavailable):
        house.submit()
    other_pool = house.submit("c")
    house.finish(running, other_pool)
    house.finish(waiting, outcome=Outcome.FAILED)
    assert repr(house.dispatcher) == AT_REST


async def test_a_running_adapter_leads_by_the_locality_bonus_and_no_further() -> None:
    house = House(
        slots=2, max_num_seqs=2, same_band=True, locality_bonus_tokens=300.0, aging_tokens_per_s=0.0
    )
    flood = [house.submit("a") for _ in range(20)]
    quiet = house.submit("b")
    order = []
    while not quiet.is_decided:
        running = next(t for t in flood if t.replica is not None and t.settled is None)
        house.finish(running, tokens=64)
        order.append(running)
    # Each costs 138; b is lifted to what a had before its second grant.
    assert len(order) == 3, "300 tokens are two requests more"
    house.finish(quiet, *flood)
    assert repr(house.dispatcher) == AT_REST


@pytest.mark.parametrize("bonus", [0.0, 300.0])
async def test_an_adapter_in_memory_gets_a_slot_before_one_that_must_be_read(bonus: float) -> None:
    house = House(slots=1, same_band=True, locality_bonus_tokens=bonus, aging_tokens_per_s=50.0)
    running, cold = house.submit("a"), house.submit("b")
    house.dispatcher.take_residency("shared-0", adapters=ADAPTER_IDS, pinned=(), host=("a-sales@1",))
    house.clock.now += 4.0
    warm = house.submit("a", "sales")  # in memory, and 200 tokens behind
    house.finish(running)
    assert house.running(warm, cold) == ([True, False] if bonus else [False, True])
    house.finish(warm, cold)
    assert repr(house.dispatcher) == AT_REST


async def test_waiting_makes_up_for_service() -> None:
    house = House(slots=4, max_num_seqs=1, same_band=True, aging_tokens_per_s=50.0)
    first = house.submit("a")
    old = house.submit("a")
    house.clock.now += 10.0
    young = house.submit("b")
    house.finish(first, tokens=64)
    assert house.running(old, young) == [True, False], "138 tokens more, but ten seconds older"
    house.finish(old, young)
    assert repr(house.dispatcher) == AT_REST


async def test_a_tenant_with_many_adapters_soon_gives_a_slot_up() -> None:
    house = House(slots=2, same_band=True)
    flood = [house.submit("a", model) for model in ("support", "sales")]
    quiet = house.submit("b")
    house.clock.now += 0.5
    house.dispatcher.sweep()
    more = [house.submit("a", model) for model in ("support", "sales")]
    assert house.running(*more).count(False) == 1, "one of its two adapters gets no more"
    house.finish(*flood)
    assert house.running(quiet) == [True]
    house.finish(quiet, *more)
    assert repr(house.dispatcher) == AT_REST


async def test_a_slot_that_drains_counts_for_the_tenant_that_gets_it() -> None:
    house = House(same_band=True)
    running, group = (
        [house.submit("a"), house.submit("a", "sales")],
        house.dispatcher.groups["shared", "base"],
    )
    waiting = house.submit("b")
    assert group.drains.slot_holders().leased == {"a": 2}
    house.clock.now += 0.5
    house.dispatcher.sweep()
    assert group.drains.slot_holders().leased == {"a": 1, "b": 1}
    house.finish(*running, waiting)
    assert repr(house.dispatcher) == AT_REST


async def test_the_lowest_band_is_not_starved() -> None:
    house = House(slots=4, max_num_seqs=1, lower_band_share=0.1, caps=Caps(max_queued=100))
    running = house.submit("a")
    low = house.submit("b")
    high = [house.submit("a") for _ in range(30)]
    grants = 0
    while not low.is_decided:
        house.finish(running)
        running = next(ticket for ticket in (low, *high) if ticket.replica is not None)
        grants += 1
    assert 10 <= grants <= 12
    house.finish(low, *high)
    assert repr(house.dispatcher) == AT_REST


async def test_a_wide_request_is_not_overtaken_for_ever() -> None:
    house = House(max_num_seqs=4, slot_wait_s=1.0)
    narrow = [house.submit() for _ in range(4)]
    wide = house.submit(sequences=4)
    house.clock.now += 1.0
    late = house.submit("a", "sales")
    house.finish(*narrow[:2])
    assert house.running(wide, late) == [False, False], "the replica is left to run empty for it"
    house.finish(*narrow[2:])
    assert house.running(wide) == [True]
    house.finish(wide)
    assert house.running(late) == [True]
    house.finish(late)
    assert repr(house.dispatcher) == AT_REST


async def test_an_adapter_that_runs_elsewhere_gets_a_slot_that_nobody_else_needs() -> None:
    house = House(replicas=2, max_num_seqs=2, slots=1)
    tickets = [house.submit() for _ in range(4)]
    assert all(house.running(*tickets)), "two on each replica"
    assert {t.replica.name for t in tickets if t.replica} == {"shared-0", "shared-1"}
    house.finish(*tickets)


async def test_a_draining_replica_gets_no_new_work_and_its_leases_run_out() -> None:
    house = House(replicas=2)
    first = house.submit()
    assert first.replica is not None
    house.dispatcher.set_draining(first.replica.name, True)
    second = house.submit()
    assert second.replica is not None and second.replica is not first.replica
    drained = first.replica
    house.finish(first)
    assert not drained.engine.leases and drained.engine.sequences == 0
    house.dispatcher.set_draining(second.replica.name, True)
    with pytest.raises(Unavailable):
        house.submit()
    house.finish(second)
    house.dispatcher.set_draining(drained.name, False)
    house.finish(house.submit())
    assert repr(house.dispatcher) == AT_REST


async def test_a_replica_under_which_requests_break_is_left_alone_for_a_while() -> None:
    house = House(replicas=2, slots=2)
    broken = house.dispatcher.replicas["shared-0"]
    house.dispatcher.set_draining("shared-1", True)
    for tenant in ("a", "b", "a", "b"):  # the first one's word alone counts nothing
        house.dispatcher.settle(house.submit(tenant), Outcome.FAILED, fault=True)
    house.dispatcher.set_draining("shared-1", False)
    house.dispatcher.sweep()
    assert not broken.engine.trusted
    others = [house.submit() for _ in range(4)]
    assert all(t.replica is not None and t.replica is not broken for t in others)
    house.clock.now += 1.0
    house.dispatcher.sweep()
    assert broken.engine.trusted, "one request may try it again"
    house.finish(*others)
    assert repr(house.dispatcher) == AT_REST


async def test_a_replica_without_peers_is_asked_however_often_it_fails() -> None:
    house = House()
    for _ in range(5):
        house.dispatcher.settle(house.submit(), Outcome.FAILED, fault=True)
    ticket = house.submit()
    assert house.running(ticket) == [True]
    house.finish(ticket)


async def test_a_hedge_takes_a_second_place_that_nobody_waits_for_and_is_charged_to_nobody() -> None:
    house = House(replicas=2)
    ticket = house.submit()
    hedge = house.dispatcher.hedge(ticket)
    assert hedge is not None and hedge.replica is not ticket.replica
    assert house.dispatcher.admitted() == {("a", "support"): 1}
    slow, quick = ticket.replica, hedge.replica
    house.dispatcher.swap(ticket, hedge)
    assert (ticket.replica, hedge.replica) == (quick, slow)
    house.finish(hedge, outcome=Outcome.CANCELLED)
    assert slow is not None and not slow.engine.leases
    house.finish(ticket)
    assert repr(house.dispatcher) == AT_REST
    assert not house.dispatcher.groups["shared", "base"].tickets


async def test_a_request_bears_the_time_of_its_hedge_and_of_the_replica_it_left() -> None:
    """Whoever asked for it is the one for whom both replicas worked."""
    house = House(replicas=2)
    ticket = house.submit()
    house.clock.now += 1.0
    hedge = house.dispatcher.hedge(ticket)
    assert hedge is not None
    house.clock.now += 2.0
    house.dispatcher.swap(ticket, hedge)
    house.finish(hedge, outcome=Outcome.CANCELLED)
    ticket.take_over(hedge)
    house.clock.now += 4.0
    house.dispatcher.requeue(ticket)  # the replica of the hedge broke; the first one takes it again
    house.clock.now += 8.0
    house.finish(ticket)
    assert (ticket.engine_s, ticket.slot_s) == (3.0 + 6.0 + 8.0,) * 2


async def test_two_tenants_share_an_engine_and_have_a_slot_each() -> None:
    house = House()
    first, second = house.submit("a"), house.submit("b")
    house.clock.now += 10.0
    house.finish(first, second)
    assert (first.engine_s, second.engine_s) == (5.0, 5.0)
    assert (first.slot_s, second.slot_s) == (10.0, 10.0)


async def test_no_hedge_is_made_where_others_wait_or_nobody_else_is_there() -> None:
    house = House(replicas=2, max_num_seqs=1)
    tickets = [house.submit() for _ in range(3)]
    assert house.dispatcher.hedge(tickets[0]) is None
    assert house.dispatcher.hedge(tickets[2]) is None, "it runs nowhere"
    house.finish(*tickets)
    alone = House()
    ticket = alone.submit()
    assert alone.dispatcher.hedge(ticket) is None
    alone.finish(ticket)


async def test_a_client_that_leaves_says_nothing_of_the_replica() -> None:
    house = House(replicas=2)
    for _ in range(10):
        house.finish(house.submit(), outcome=Outcome.CANCELLED)
    assert all(replica.engine.trusted for replica in house.dispatcher.replicas.values())


async def test_a_restarted_engine_is_given_work_slowly_where_others_carry_the_load() -> None:
    house = House(replicas=2, max_num_seqs=100)
    for name in ("shared-0", "shared-1"):
        house.dispatcher.take_residency(
            name, adapters=ADAPTER_IDS, pinned=(), host=(), incarnation=f"{name}/2", kv_tokens=1000
        )
    fresh = house.dispatcher.replicas["shared-1"]
    assert fresh.engine.capacity == 10
    house.clock.now += 5.0
    house.dispatcher.sweep()
    assert fresh.engine.capacity == 50
    house.clock.now += 5.0
    house.dispatcher.sweep()
    assert fresh.engine.capacity == 100 and fresh.engine.kv_tokens == 1000


async def test_a_request_is_shed_that_would_wait_too_long_for_a_slot_however_little_work_waits() -> None:
    house = House(slots=1, ttft_slo_s=3.5, same_band=True)
    running, waiting = house.submit("a", "support"), house.submit("a", "sales")
    for _ in range(6):  # a slot changes hands every four seconds, and much is done meanwhile that needs none
        house.finish(*[house.submit("b", "plain", base=True) for _ in range(7)], tokens=64)
        house.dispatcher.sweep()
        house.clock.now += 4.0
        house.dispatcher.sweep()
        house.finish(running)
        assert waiting.replica is not None
        running, waiting = waiting, house.submit("a", running.request.target.model)
    refused = house.offer("b")
    assert isinstance(refused, Rejection) and refused.cap is Cap.OVERLOADED
    same_lane = house.submit("a", running.request.target.model)
    assert same_lane.replica is not None, "its adapter has the slot"
    house.finish(running, waiting, same_lane)
    assert repr(house.dispatcher) == AT_REST


def warm_and_cold() -> tuple[House, list[Ticket], Ticket]:
    """A request of `a`: its adapter is in the memory of shared-0, which has no slot; shared-1 is busy."""
    house = House(replicas=2, slots=2)
    house.dispatcher.take_residency("shared-0", adapters=ADAPTER_IDS, pinned=(), host=("a-support@1",))
    house.dispatcher.set_draining("shared-1", True)
    before = [house.submit("b"), house.submit("a", "sales")]
    house.dispatcher.set_draining("shared-1", False)
    house.dispatcher.set_draining("shared-0", True)
    before.append(house.submit("b", "plain", base=True))
    house.dispatcher.set_draining("shared-0", False)
    return house, before, house.submit("a")


async def test_a_request_waits_a_moment_for_a_replica_that_has_its_adapter_in_memory() -> None:
    house, before, ticket = warm_and_cold()
    assert ticket.waits_for is WaitReason.SPARES_READ
    house.clock.now += 0.1
    house.finish(before.pop(0))
    assert (await ticket.granted()).name == "shared-0"
    house.finish(ticket, *before)
    assert repr(house.dispatcher) == AT_REST


@pytest.mark.parametrize("pinned", [False, True])
async def test_a_slot_drains_where_the_adapter_is_in_memory_if_one_can_be(
    pinned: bool,
) -> None:
    house = House(replicas=2, slots=1, slot_wait_s=10.0)
    many, few = [house.submit("a") for _ in range(3)], [house.submit("a", "sales")]
    (busy,), (idle,) = ({ticket.replica.name for ticket in t if ticket.replica} for t in (many, few))
    pins = ("a-support@1",) if pinned else ()
    host = ("a-support@1", "b-support@1")
    house.dispatcher.take_residency(busy, adapters=ADAPTER_IDS, pinned=pins, host=host)
    waiting = house.submit("b")
    house.clock.now += 10.0
    house.dispatcher.sweep()
    house.finish(*few if pinned else many)
    assert (await waiting.granted()).name == (idle if pinned else busy)
    house.finish(waiting, *many if pinned else few)
    assert repr(house.dispatcher) == AT_REST


def test_a_slot_drains_elsewhere_where_the_replica_with_the_adapter_in_memory_can_drain_none() -> None:
    house = House(replicas=2, slots=1, same_band=True)
    running = [house.submit("a"), house.submit("a", "sales")]
    warm, cold = (ticket.replica for ticket in running)
    assert warm is not None and cold is not None
    for where, host in ((warm, ("b-support@1",)), (cold, ())):
        pins = ("a-support@1",) if where is warm else ()
        house.dispatcher.take_residency(where.name, adapters=ADAPTER_IDS, pinned=pins, host=host)
    waiting = house.submit("b")
    house.clock.now += 0.5
    house.dispatcher.sweep()
    assert cold.engine.slot_drain is not None, "a has two slots, b none"
    house.finish(*running, waiting)
    assert repr(house.dispatcher) == AT_REST


@pytest.mark.parametrize(("bonus", "first"), [(0.0, "a-support@1"), (4000.0, "b-support@1")])
def test_a_slot_drains_for_the_many_where_others_have_had_nearly_as_little(bonus: float, first: str) -> None:
    house = House(slots=1, same_band=True, locality_bonus_tokens=bonus)
    house.finish(house.submit("b"), tokens=100)  # it has had somewhat more
    running, early = house.submit("a", "sales"), house.submit("a")
    house.clock.now += 0.1
    many = [house.submit("b") for _ in range(3)]
    house.clock.now += 10.0
    house.dispatcher.sweep()
    replica = house.dispatcher.replicas["shared-0"]
    assert replica.engine.slot_drain is not None and replica.engine.slot_drain.adapter == first
    house.finish(running)
    assert house.running(early, many[0]) == [first == "a-support@1", first == "b-support@1"]
    house.finish(early, *many)
    assert repr(house.dispatcher) == AT_REST


def test_a_slot_drains_for_the_one_of_a_higher_band_before_the_many_of_a_lower() -> None:
    house = House(slots=1, locality_bonus_tokens=1e9)
    running = house.submit("a", "sales")
    many = [house.submit("b") for _ in range(9)]
    early = house.submit("a")
    house.clock.now += 10.0
    house.dispatcher.sweep()
    replica = house.dispatcher.replicas["shared-0"]
    assert replica.engine.slot_drain is not None and replica.engine.slot_drain.adapter == "a-support@1"
    house.finish(running, early, *many)
    assert repr(house.dispatcher) == AT_REST


async def test_an_adapter_whose_replica_is_full_gets_a_slot_of_another_after_a_long_wait() -> None:
    house = House(replicas=2, slots=1, max_num_seqs=2, slot_wait_s=10.0)
    hot, other = [house.submit("a"), house.submit("a")], house.submit("a", "sales")
    waiting = house.submit("a")
    full, taken = hot[0].replica, other.replica
    assert full is not None and taken is not None and full is not taken
    house.clock.now += 9.9
    house.dispatcher.sweep()
    assert taken.engine.slot_drain is None
    house.clock.now += 0.1
    house.dispatcher.sweep()
    assert taken.engine.slot_drain is not None and taken.engine.slot_drain.adapter == "a-support@1"
    house.finish(other)
    assert (await waiting.granted()) is taken
    house.finish(waiting, *hot)
    assert repr(house.dispatcher) == AT_REST


async def test_and_is_read_elsewhere_when_that_moment_is_over() -> None:
    house, before, ticket = warm_and_cold()
    house.clock.now += 0.1
    house.dispatcher.sweep()
    assert not ticket.is_decided
    house.clock.now += 0.1
    house.dispatcher.sweep()
    assert (await ticket.granted()).name == "shared-1"
    house.finish(ticket, *before)
    assert repr(house.dispatcher) == AT_REST


async def test_requests_that_would_miss_the_objective_are_shed_the_low_band_first() -> None:
    house = House(max_num_seqs=2, slots=4, ttft_slo_s=2.0)
    flood = [house.submit("a") for _ in range(4)]
    low = [house.submit("b"), house.submit("b")]
    for _ in range(12):  # it is seen to do about two requests a second
        running = [t for t in flood if t.replica is not None and t.settled is None]
        house.clock.now += 0.5
        house.dispatcher.sweep()
        house.finish(running[0], tokens=64)
        flood += [t for t in [house.offer("a")] if isinstance(t, Ticket)]
    refused = house.offer("b")
    assert isinstance(refused, Rejection) and refused.cap is Cap.OVERLOADED
    assert refused.retry_after_s is not None and 0.5 <= refused.retry_after_s <= 10.0
    accepted = house.offer("a")
    assert isinstance(accepted, Ticket), "the band above is still within it"
    house.finish(accepted, *flood, *low)
    assert repr(house.dispatcher) == AT_REST


async def test_a_full_gateway_refuses_a_flood_and_takes_a_quiet_tenant() -> None:
    house = House(max_num_seqs=1, caps=Caps(max_concurrency=1000, max_queued=1000), max_queued=10)
    flood = [t for t in (house.offer("a") for _ in range(50)) if isinstance(t, Ticket)]
    assert len(flood) == 1 + 5, "one runs, and half of the queue"
    quiet = house.offer("b")
    assert isinstance(quiet, Ticket), "even of the lower band"
    house.finish(quiet, *flood)
    assert repr(house.dispatcher) == AT_REST


async def test_bodies_that_wait_are_bounded_together() -> None:
    house = House(max_num_seqs=1, caps=Caps(max_concurrency=100), max_queued_bytes=1000)
    running = house.submit(size_bytes=10_000)
    assert isinstance(house.offer(size_bytes=501), Rejection)
    waiting = house.offer(size_bytes=500)
    assert isinstance(waiting, Ticket)
    house.finish(running, waiting)
    assert repr(house.dispatcher) == AT_REST


async def test_a_cap_of_an_adapter_counts_all_tenants() -> None:
    house = House()
    tickets = [house.submit(adapter_limit=2), house.submit(adapter_limit=2)]
    refused = house.offer(adapter_limit=2)
    assert isinstance(refused, Rejection) and refused.cap is Cap.ADAPTER_CONCURRENCY
    other = house.submit("a", "sales", adapter_limit=2)
    house.finish(*tickets, other)
    house.finish(house.submit(adapter_limit=2))


async def test_requests_beyond_the_rate_are_refused_and_cost_nothing_more() -> None:
    house = House(caps=Caps(requests_per_minute=2))
    tickets = [house.submit(), house.submit()]
    refused = house.offer()
    assert isinstance(refused, Rejection) and refused.cap is Cap.REQUESTS_PER_MINUTE
    house.finish(*tickets)
    assert repr(house.dispatcher) == AT_REST


async def test_every_decision_can_be_read_afterwards() -> None:
    house = House(slots=1, max_num_seqs=4)
    first, second = house.submit("a", "support"), house.submit("a", "sales")
    assert (second.waits_for, first.picked) == (WaitReason.NO_SLOT, "only")
    house.finish(first)
    report = house.dispatcher.report()
    assert [(d.action, d.reason) for d in report.decisions] == [
        (Action.GRANTED, Affinity.ELSEWHERE),
        (Action.QUEUED, WaitReason.NO_SLOT),
        (Action.GRANTED, "only"),
    ]
    (pool,) = [pool for pool in report.pools if pool.name == "shared"]
    assert [lease.adapter for lease in pool.replicas[0].leases] == ["a-sales@1"]
    assert [(t.name, t.tickets, t.slots) for t in pool.tenants] == [("a", 1, 1)]
    house.finish(second)


async def test_whoever_waits_is_told_once() -> None:
    house = House(max_num_seqs=1)
    first, second = house.submit(), house.submit()
    told: list[Ticket] = []
    first.when_decided(lambda: told.append(first))
    second.when_decided(lambda: told.append(second))
    assert told == [first], "it was decided already"
    waiting = asyncio.ensure_future(second.granted())
    await asyncio.sleep(0)
    house.finish(first)
    assert (await waiting).name == "shared-0"
    house.finish(second)


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
        len(r.engine.leases) <= r.engine.slots and r.engine.sequences <= r.engine.max_sequences
        for r in house.dispatcher.replicas.values()
    )


def work_conserving(house: House, waiting: list[Ticket]) -> bool:
    """Whether no request waits that a replica could take by the filters of the profile."""
    group = house.dispatcher.groups["shared", "base"]
    view = View(group.engines, group.floods)
    return all(isinstance(SLOT_LEASE.pick(t.request, view), WaitReason) for t in waiting)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 3), st.integers(1, 5))
@example(seed=3148, slots=1, replicas=3, width=2)  # the last trusted replica breaks, so that all are
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
            if house.dispatcher.groups["shared", "base"].floods.flooding:
                house.dispatcher.sweep()  # what a flood has left elsewhere is given away by then
            assert work_conserving(house, [t for t in alive if not t.is_decided])
        for ticket in alive:
            house.finish(ticket)
        assert repr(house.dispatcher) == AT_REST

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locality, "READ_WAIT_S", 0.0)  # it leaves requests waiting that could run
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
                house.dispatcher.requeue(ticket)
            except Unavailable as error:
                ticket.refusal = error
        else:
            alive.remove(ticket)
            house.finish(ticket, outcome=Outcome.CANCELLED if step == "leave" else Outcome.COMPLETED)
    for ticket in [t for t in alive if t.refusal is not None]:
        alive.remove(ticket)
        house.finish(ticket, outcome=Outcome.FAILED)

"""What becomes of requests when the fleet is replaced under them?"""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.types import Band, Caps, Fleet, SchedulerSettings, Slo, Tenant
from routing.errors import ModelMoved, RequestError, TenantRemoved
from routing.scheduling.admission import Cap, Rejection
from routing.scheduling.tickets import Ticket
from routing.types import Outcome
from tests.fakes import without_tenant
from tests.unit.routing.scheduling.test_dispatcher import AT_REST, House


def with_tenant(house: House, name: str, **changes: Any) -> None:
    """Replace the fleet by one in which a tenant differs."""
    fleet = house.fleet.now
    tenants = fleet.tenants | {name: replace(fleet.tenants[name], **changes)}
    house.fleet.replace(replace(fleet, tenants=tenants))


def with_places(fleet: Fleet, **tenants: tuple[str, ...]) -> Fleet:
    """A fleet whose pools have other tenants."""
    pools = {name: replace(pool, tenants=tenants[name]) for name, pool in fleet.pools.items()}
    return replace(fleet, pools=pools)


def remove(house: House, name: str) -> None:
    """Take a tenant out of the fleet."""
    house.fleet.replace(without_tenant(house.fleet.now, name))


def forgotten(house: House, tenant: str) -> bool:
    """Whether nothing that counts by tenant knows it any more."""
    house.clock.now += 20.0  # arrivals are remembered for some seconds
    house.dispatcher.sweep()
    group = house.dispatcher.groups["shared", "base"]
    return tenant not in group.ranks and tenant not in group.weights and not group.members.leaving


def test_a_changed_cap_counts_from_the_next_request_on() -> None:
    house = House(caps=Caps(max_concurrency=1))
    first = house.submit()
    assert isinstance(house.offer(), Rejection)
    with_tenant(house, "a", caps=Caps(max_concurrency=2))
    second = house.submit()
    with_tenant(house, "a", caps=Caps(max_concurrency=1))
    refused = house.offer()
    assert isinstance(refused, Rejection) and (refused.cap, refused.limit) == (Cap.CONCURRENCY, 1)
    assert house.running(first, second) == [True, True], "what runs ends under the cap that let it in"
    house.finish(first, second)
    assert repr(house.dispatcher) == AT_REST


@pytest.mark.parametrize(("limit", "let_in"), [(2, False), (3, True)])
def test_another_rate_finds_what_was_counted_before(limit: int, let_in: bool) -> None:
    house = House(caps=Caps(requests_per_minute=10))
    tickets = [house.submit() for _ in range(2)]
    with_tenant(house, "a", caps=Caps(requests_per_minute=limit))
    decision = house.offer()
    assert isinstance(decision, Ticket) == let_in
    house.finish(*tickets, *([decision] if isinstance(decision, Ticket) else []))
    assert repr(house.dispatcher) == AT_REST


def test_a_rate_is_lifted_and_put_back() -> None:
    house = House(caps=Caps(requests_per_minute=1))
    tickets = [house.submit()]
    assert isinstance(house.offer(), Rejection)
    with_tenant(house, "a", caps=Caps())
    tickets += [house.submit() for _ in range(3)]
    with_tenant(house, "a", caps=Caps(requests_per_minute=1))
    assert isinstance(house.offer(), Rejection), "what was counted under it is in the window still"
    house.finish(*tickets)
    assert repr(house.dispatcher) == AT_REST


def test_what_waits_moves_to_the_band_that_its_tenant_has_now() -> None:
    house = House(max_num_seqs=1, lower_band_share=0.0)
    running, low, high = house.submit("a"), house.submit("b"), house.submit("a")
    with_tenant(house, "b", band=Band.HIGH)
    assert house.dispatcher.groups["shared", "base"].backlog.in_band(Band.HIGH.rank) == 1
    house.finish(running)
    assert house.running(low, high) == [True, False]
    house.finish(low, high)
    assert repr(house.dispatcher) == AT_REST


def test_a_tenant_keeps_its_distance_to_the_service_of_a_band() -> None:
    house = House(max_num_seqs=1, same_band=True)
    tickets = [house.submit("a") for _ in range(4)]
    house.finish(*tickets[:3])
    group = house.dispatcher.groups["shared", "base"]
    with_tenant(house, "a", band=Band.LOW)
    assert group.counters["a"] == pytest.approx(group.counters["b"], abs=1000)
    house.finish(*tickets[3:])
    assert repr(house.dispatcher) == AT_REST


def test_a_removed_tenants_queue_is_refused_and_its_running_requests_end() -> None:
    house = House(max_num_seqs=1)
    running, waiting, other = house.submit("a"), house.submit("a", "sales"), house.submit("b")
    remove(house, "a")
    assert isinstance(waiting.refusal, TenantRemoved)
    assert (waiting.refusal.status, waiting.refusal.code) == (403, "tenant_removed")
    assert not waiting.refusal.should_retry
    assert house.running(running, other) == [True, False]
    with pytest.raises(TenantRemoved):
        house.offer("a")
    house.finish(running, waiting)
    assert house.running(other) == [True]
    house.finish(other)
    assert repr(house.dispatcher) == AT_REST
    assert forgotten(house, "a")


def test_a_removed_tenants_request_is_not_tried_elsewhere() -> None:
    house = House(replicas=2)
    running = house.submit("a")
    remove(house, "a")
    assert house.dispatcher.hedge(running) is None
    with pytest.raises(TenantRemoved):
        house.dispatcher.requeue(running)
    house.finish(running, outcome=Outcome.FAILED)
    assert repr(house.dispatcher) == AT_REST
    assert forgotten(house, "a")


def test_a_tenant_that_comes_back_while_something_of_it_runs_goes_on_counting() -> None:
    house = House(caps=Caps(max_concurrency=1))
    before = house.fleet.now
    running = house.submit("a")
    remove(house, "a")
    house.fleet.replace(before)
    assert isinstance(house.offer("a"), Rejection)
    house.finish(running)
    again = house.submit("a")
    house.finish(again)
    assert repr(house.dispatcher) == AT_REST


def test_a_new_tenant_is_served_at_once_and_not_before_all_others() -> None:
    house = House(max_num_seqs=1, same_band=True)
    fleet = house.fleet.now
    served = [house.submit("a") for _ in range(5)]
    house.finish(*served[:3], tokens=5000)
    new = Tenant("d", frozenset(), {"support": "a-support"})
    changed = replace(fleet, tenants=fleet.tenants | {"d": new})
    house.fleet.replace(with_places(changed, shared=("a", "b", "d"), alone=("c",)))
    ticket = house.submit("d")
    group = house.dispatcher.groups["shared", "base"]
    assert group.counters["d"] > 0, "it has saved up nothing from the time before it was there"
    house.finish(*served, ticket)
    assert repr(house.dispatcher) == AT_REST


def test_what_waits_in_a_pool_that_its_tenant_leaves_is_refused_and_may_come_again() -> None:
    house = House(max_num_seqs=1)
    running, waiting = house.submit("a"), house.submit("b")
    house.fleet.replace(with_places(house.fleet.now, shared=("a",), alone=("c", "b")))
    assert isinstance(waiting.refusal, ModelMoved)
    assert (waiting.refusal.status, waiting.refusal.code) == (503, "model_moved")
    assert waiting.refusal.should_retry
    house.finish(running, waiting)
    assert repr(house.dispatcher) == AT_REST
    assert forgotten(house, "b")


def test_a_flood_is_judged_anew_in_another_band() -> None:
    house = House(max_num_seqs=2, same_band=True)
    flood, quiet = [house.submit("a") for _ in range(40)], [house.submit("b")]
    for _ in range(20):
        house.clock.now += 0.25
        house.dispatcher.sweep()
    assert "a" in house.dispatcher.groups["shared", "base"].floods.flooding
    with_tenant(house, "a", band=Band.HIGH)
    house.dispatcher.sweep()
    house.finish(*flood, *quiet)
    assert repr(house.dispatcher) == AT_REST


def test_objectives_count_at_once() -> None:
    house = House()
    fleet = house.fleet.now
    pools = {name: replace(pool, slo=Slo(ttft_s=0.5, itl_s=0.1)) for name, pool in fleet.pools.items()}
    house.fleet.replace(replace(fleet, pools=pools))
    group = house.dispatcher.groups["shared", "base"]
    assert group.slo.ttft_s == 0.5
    assert all(engine.limit is not None for engine in group.engines)
    house.fleet.replace(fleet)
    assert all(engine.limit is None for engine in group.engines)


STEPS = ("submit", "finish", "fail", "cancel", "change", "remove", "back", "settings", "move", "sweep")


@given(steps=st.lists(st.sampled_from(STEPS), max_size=60), seed=st.integers(0, 2**16))
@settings(max_examples=150, deadline=None)
def test_nothing_leaks_whatever_is_changed_in_whatever_state_requests_are(
    steps: list[str], seed: int
) -> None:
    chance = random.Random(seed)
    house = House(slots=1, replicas=2, max_num_seqs=2, caps=Caps(max_concurrency=30, requests_per_minute=500))
    first, tickets = house.fleet.now, list[Ticket]()
    for step in steps * 2:
        house.clock.now += chance.random()
        apply_step(house, step, chance, tickets, first)
        settle_refused(house, tickets)
    house.fleet.replace(first)
    for ticket in tickets:
        house.dispatcher.settle(ticket, Outcome.CANCELLED)
    assert repr(house.dispatcher) == AT_REST
    house.clock.now += 20.0
    house.dispatcher.sweep()
    for group in house.dispatcher.groups.values():
        assert set(group.ranks) == set(group.weights) == set(first.pools[group.pool].tenants)
        assert not group.backlog and not group.floods.running and not group.floods.leased
        assert not group.members.leaving and not group.tickets


def apply_step(house: House, step: str, chance: random.Random, tickets: list[Ticket], first: Fleet) -> None:
    """One thing that may happen."""
    fleet, name = house.fleet.now, chance.choice("abc")
    if step == "submit":
        submit(house, name, chance, tickets)
    elif step == "sweep":
        house.dispatcher.sweep()
    elif step == "back":
        house.fleet.replace(first)
    elif step == "remove" and name in fleet.tenants and len(fleet.tenants) > 1:
        remove(house, name)
    elif step == "move" and len(fleet.tenants) == 3:
        shared = ("a", "b") if chance.random() < 0.5 else ("b",)
        alone = tuple(t for t in "abc" if t not in shared)
        house.fleet.replace(with_places(fleet, shared=shared, alone=alone))
    elif step == "change" and name in fleet.tenants:
        with_tenant(house, name, band=chance.choice(list(Band)), weight=chance.choice([0.5, 1.0, 3.0]))
    elif step == "settings":
        scheduler = SchedulerSettings(
            aging_tokens_per_s=chance.choice([0.0, 500.0]), lower_band_share=chance.choice([0.0, 0.2])
        )
        house.fleet.replace(replace(fleet, gateway=replace(fleet.gateway, scheduler=scheduler)))
    elif tickets:
        end_one(house, step, tickets.pop(chance.randrange(len(tickets))))


def submit(house: House, name: str, chance: random.Random, tickets: list[Ticket]) -> None:
    """Submit a request where the tenant has its place now; with luck an outdated one."""
    try:
        decision = house.offer(name, chance.choice(["support", "sales"] if name == "a" else ["support"]))
    except RequestError:
        return
    if isinstance(decision, Ticket):
        tickets.append(decision)


def end_one(house: House, step: str, ticket: Ticket) -> None:
    """Settle a ticket, in one way or another."""
    if step == "fail" and ticket.is_running:
        with contextlib.suppress(RequestError):
            house.dispatcher.requeue(ticket)
        house.dispatcher.settle(ticket, Outcome.FAILED, fault=ticket.is_running)
    else:
        house.finish(ticket, outcome=Outcome.COMPLETED if step == "finish" else Outcome.CANCELLED)


def settle_refused(house: House, tickets: list[Ticket]) -> None:
    """What a flight does whose ticket is refused."""
    for ticket in [t for t in tickets if t.refusal is not None]:
        tickets.remove(ticket)
        house.dispatcher.settle(ticket, Outcome.REJECTED)

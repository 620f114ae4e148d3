"""What becomes of requests while pools and base models come and go, and engines get other settings?"""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.settings import digest_of
from fleet.types import Fleet, Slo
from routing.errors import ModelMoved, ModelRetired, RequestError
from routing.scheduling.state import RunningSettings, declared_replicas
from routing.scheduling.tickets import Ticket
from routing.types import Outcome
from tests.unit.routing.scheduling.test_dispatcher import AT_REST, House


def put(house: House, fleet: Fleet) -> None:
    """Replace the fleet; replicas leave and join as the gateway has them do."""
    house.fleet.replace(fleet)
    declared = {replica.name: replica for replica in declared_replicas(fleet)}
    for name in house.dispatcher.replicas.keys() - declared.keys():
        house.dispatcher.leave(name)
    for name, replica in declared.items():
        if name not in house.dispatcher.replicas:
            house.dispatcher.join(replica)
            house.be_ready(name)


def without_pool(fleet: Fleet, name: str) -> Fleet:
    """A fleet without a pool, whose tenants have no other one."""
    return replace(fleet, pools={n: pool for n, pool in fleet.pools.items() if n != name})


def moved_from(fleet: Fleet, name: str, to: str) -> Fleet:
    """A fleet without a pool, whose tenants have another one."""
    tenants = fleet.pools[name].tenants
    pool = replace(fleet.pools[to], tenants=fleet.pools[to].tenants + tenants)
    return replace(fleet, pools={to: pool})


def say(house: House, name: str, **values: Any) -> None:
    """An engine says with which settings it runs."""
    engine = house.dispatcher.replicas[name].engine
    assert engine.declared is not None
    model = replace(engine.declared, **values)
    sizes = model.max_loras, model.max_num_seqs, model.max_cpu_loras
    engine.take_settings(RunningSettings(digest_of(model), *sizes))


# -- pools -------------------------------------------------------------------------------------------------


def test_what_runs_in_a_removed_pool_ends_and_what_waits_is_refused_with_its_reason() -> None:
    house = House(max_num_seqs=1)
    running, waiting = house.submit("a"), house.submit("b")
    put(house, without_pool(house.fleet.now, "shared"))
    assert isinstance(waiting.refusal, ModelRetired)
    assert (waiting.refusal.status, waiting.refusal.code) == (404, "model_retired")
    assert house.running(running, waiting) == [True, False]
    assert ("shared", "base") not in house.dispatcher.groups, "nobody counts it among the pools"
    house.finish(waiting, running)
    assert running.settled is Outcome.COMPLETED
    assert repr(house.dispatcher) == AT_REST
    house.dispatcher.sweep()
    assert len(list(house.dispatcher.all_groups())) == 1, "all of it is forgotten"


def test_where_another_pool_serves_the_model_clients_come_again() -> None:
    house = House(max_num_seqs=1)
    running, waiting = house.submit("a"), house.submit("b")
    put(house, moved_from(house.fleet.now, "shared", "alone"))
    assert isinstance(waiting.refusal, ModelMoved) and waiting.refusal.should_retry
    house.finish(waiting, running)
    assert repr(house.dispatcher) == AT_REST


@pytest.mark.parametrize("something_runs", [False, True])
def test_a_request_that_was_meant_for_a_removed_pool_is_refused(something_runs: bool) -> None:
    house = House()
    running = [house.submit("b")] if something_runs else []
    put(house, without_pool(house.fleet.now, "shared"))
    with pytest.raises(ModelRetired):
        house.offer("a")
    assert house.dispatcher.decisions.last(1)[0].reason == "model_retired"
    house.finish(*running)
    assert repr(house.dispatcher) == AT_REST


def test_what_broke_off_in_a_removed_pool_does_not_wait_there() -> None:
    house = House(replicas=2)
    running = house.submit("a")
    put(house, without_pool(house.fleet.now, "shared"))
    with pytest.raises(ModelRetired):
        house.dispatcher.requeue(running)
    house.dispatcher.settle(running, Outcome.FAILED)
    assert repr(house.dispatcher) == AT_REST


def test_a_new_pool_serves_once_an_engine_is_ready_and_makes_the_others_not_unready() -> None:
    house = House()
    whole = house.fleet.now
    put(house, without_pool(whole, "shared"))
    house.dispatcher.sweep()
    house.fleet.replace(whole)
    assert house.dispatcher.groups["shared", "base"].is_new
    (replica,) = [r for r in declared_replicas(whole) if r.pool == "shared"]
    house.dispatcher.join(replica)
    waiting = house.submit("a")
    assert house.running(waiting) == [False]
    house.be_ready(replica.name)
    assert house.running(waiting) == [True]
    assert not house.dispatcher.groups["shared", "base"].is_new
    house.dispatcher.set_ready(replica.name, False)
    assert not house.dispatcher.groups["shared", "base"].is_new, "it counts from then on"
    house.finish(waiting)


def test_a_pool_of_before_the_start_counts_for_readiness() -> None:
    house = House()
    house.fleet.is_known = False  # what was applied before this start is being read
    shared = replace(house.fleet.now.pools["shared"], name="more", tenants=())
    house.fleet.replace(replace(house.fleet.now, pools=house.fleet.now.pools | {"more": shared}))
    assert not house.dispatcher.groups["more", "base"].is_new


def test_a_pool_that_comes_back_while_something_runs_goes_on_with_it() -> None:
    house = House()
    whole, running = house.fleet.now, house.submit("a")
    group = house.dispatcher.groups["shared", "base"]
    put(house, without_pool(whole, "shared"))
    slow = replace(whole.pools["shared"], slo=Slo(ttft_s=9.0))
    put(house, replace(whole, pools=whole.pools | {"shared": slow}))
    assert house.dispatcher.groups["shared", "base"] is group
    assert group.slo.ttft_s == 9.0 and group.members.present == {"a", "b"}
    house.finish(running, house.submit("b"))
    assert repr(house.dispatcher) == AT_REST


STEPS = ("submit", "submit", "finish", "fail", "cancel", "drop", "move", "whole", "sweep", "hedge", "say")


@given(steps=st.lists(st.sampled_from(STEPS), max_size=60), seed=st.integers(0, 2**16))
@settings(max_examples=150, deadline=None)
def test_nothing_leaks_and_no_slot_is_given_twice_whatever_comes_and_goes(
    steps: list[str], seed: int
) -> None:
    chance = random.Random(seed)
    house = House(slots=2, replicas=2, max_num_seqs=3)
    first, tickets = house.fleet.now, list[Ticket]()
    for step in steps * 2:
        house.clock.now += chance.random()
        apply_step(house, step, chance, tickets, first)
        for ticket in [ticket for ticket in tickets if ticket.refusal is not None]:
            tickets.remove(ticket)
            house.dispatcher.settle(ticket, Outcome.EXPIRED)
        for replica in house.dispatcher.replicas.values():
            assert len(replica.engine.leases) <= replica.engine.slots
    for ticket in tickets:
        house.dispatcher.settle(ticket, Outcome.CANCELLED)
    assert repr(house.dispatcher) == AT_REST
    put(house, first)
    house.dispatcher.sweep()
    groups = list(house.dispatcher.all_groups())
    assert len(groups) == len(house.dispatcher.groups) == 2
    assert all(not group.backlog and not group.tickets and not group.floods.running for group in groups)
    house.finish(house.submit("a"), house.submit("c"))


def apply_step(house: House, step: str, chance: random.Random, tickets: list[Ticket], first: Fleet) -> None:
    """One thing that may happen."""
    if step == "submit":
        with contextlib.suppress(RequestError):
            decision: Any = house.offer(chance.choice("abc"))
            tickets += [decision] if isinstance(decision, Ticket) else []
    elif step == "sweep":
        house.dispatcher.sweep()
    elif step == "whole":
        put(house, first)
    elif step == "drop":
        put(house, without_pool(first, chance.choice(["shared", "alone"])))
    elif step == "move":
        put(house, moved_from(first, "shared", "alone"))
    elif step == "say":
        restart_one(house, chance)
    elif step == "hedge":
        hedge_one(house, [ticket for ticket in tickets if ticket.is_running], chance)
    elif tickets:
        ticket = tickets.pop(chance.randrange(len(tickets)))
        if step == "fail" and ticket.is_running:
            with contextlib.suppress(RequestError):
                house.dispatcher.requeue(ticket)
        house.finish(ticket, outcome=Outcome.COMPLETED if step == "finish" else Outcome.CANCELLED)


def hedge_one(house: House, running: list[Ticket], chance: random.Random) -> None:
    """Another engine is asked for a request too, and loses."""
    hedge = house.dispatcher.hedge(chance.choice(running)) if running else None
    if hedge is not None:
        house.dispatcher.settle(hedge, Outcome.CANCELLED)


def restart_one(house: House, chance: random.Random) -> None:
    """Another engine comes up at an empty replica, with other settings."""
    empty = [r.name for r in house.dispatcher.replicas.values() if not r.engine.sequences]
    if empty:
        name = chance.choice(empty)
        house.dispatcher.set_ready(name, False)
        say(house, name, max_loras=chance.choice([1, 2]), max_num_seqs=chance.choice([1, 4]))
        house.be_ready(name)


# -- settings ----------------------------------------------------------------------------------------------


def test_slots_and_sequences_count_by_what_an_engine_runs() -> None:
    house = House(slots=2, max_num_seqs=8)
    say(house, "shared-0", max_loras=1, max_num_seqs=1)
    engine = house.dispatcher.replicas["shared-0"].engine
    assert (engine.slots, engine.capacity, engine.is_outdated) == (1, 1, True)
    first, second = house.submit("a"), house.submit("b")
    assert house.running(first, second) == [True, False]
    house.finish(first, second)


def test_an_engine_is_outdated_by_the_fleet_as_it_is_now_and_while_it_says_so() -> None:
    house = House()
    engine = house.dispatcher.replicas["shared-0"].engine
    assert not engine.is_outdated, "it has not said anything"
    say(house, "shared-0")
    assert not engine.is_outdated
    fleet = house.fleet.now
    base = replace(fleet.base_models["base"], max_model_len=99)
    house.fleet.replace(replace(fleet, base_models={"base": base}))
    assert engine.is_outdated
    house.dispatcher.set_ready("shared-0", False)
    assert not engine.is_outdated, "the next one may have others"
    say(house, "shared-0")
    assert not engine.is_outdated


def test_its_limit_is_sought_anew_with_other_settings_only() -> None:
    house = House(slots=2, max_num_seqs=64)
    fleet = house.fleet.now
    pools = {name: replace(pool, slo=Slo(itl_s=0.1)) for name, pool in fleet.pools.items()}
    house.fleet.replace(replace(fleet, pools=pools))
    engine = house.dispatcher.replicas["shared-0"].engine
    limit = engine.limit
    say(house, "shared-0")
    assert engine.limit is limit
    say(house, "shared-0", max_num_seqs=32)
    assert engine.limit is not limit and engine.limit is not None
    assert (engine.limit.sequences, engine.limit.slo_s) == (32, 0.1)

"""A pool with a range of replicas: what it wants, which of them go first, who is held for the first one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engines.health import EngineHealth, EngineState
from fleet.pool_settings import Scaling
from fleet.types import Caps, Slo
from routing.errors import QueueTimeout
from routing.scheduling.filters import WaitReason
from routing.scheduling.replica_figures import ReplicaState
from routing.scheduling.report import PoolReport
from routing.scheduling.scale import Scale
from routing.scheduling.state import Engine
from routing.scheduling.tickets import Ticket
from routing.types import Outcome
from tests.unit.routing.scheduling.test_dispatcher import AT_REST, House

PLACE = ("shared", "base")
FAILED = EngineHealth(EngineState.FAILED, "CUDA out of memory")
LOADING = EngineHealth(EngineState.STARTING)


class Ranged(House):
    """A house whose shared pool may have `least` to `replicas` replicas; all of them are there."""

    def __init__(self, least: int = 1, *, hold_s: float = 300.0, ttft_s: float | None = None, **options: Any):
        super().__init__(**{"replicas": 3, "slots": 4} | options)
        shared = self.fleet.now.pools["shared"]
        self.take(replace(shared, scaling=Scaling(least, hold_s), slo=Slo(ttft_s=ttft_s)))

    def take(self, pool: Any) -> None:
        self.fleet.replace(replace(self.fleet.now, pools={**self.fleet.now.pools, "shared": pool}))

    @property
    def scale(self) -> Scale:
        return self.dispatcher.groups[PLACE].scale

    def engine(self, number: int) -> Engine:
        return self.dispatcher.replicas[f"shared-{number}"].engine

    def pass_s(self, time_s: float) -> int | None:
        """Let time pass, swept as the gateway does, and return what is wanted then."""
        for _ in range(round(4 * time_s)):
            self.clock.now += 0.25
            self.dispatcher.sweep()
        return None if self.scale.desired is None else self.scale.desired.replicas

    def take_away(self, *numbers: int) -> None:
        """What discovery and the probe do when a replica has gone."""
        for number in numbers:
            self.dispatcher.set_ready(f"shared-{number}", False)
            self.engine(number).told = None

    def shown(self) -> PoolReport:
        return next(pool for pool in self.dispatcher.report().pools if pool.name == "shared")


@pytest.fixture
def empty() -> Ranged:
    """A pool that may have none, and has none."""
    house = Ranged(0, caps=Caps(queue_timeout_s=10.0))
    house.take_away(0, 1, 2)
    house.pass_s(400)
    return house


def test_a_fixed_number_wants_nothing() -> None:
    house = House(replicas=2)
    house.dispatcher.sweep()
    shown = next(pool for pool in house.dispatcher.report().pools if pool.name == "shared")
    assert (shown.replicas_least, shown.replicas_most) == (2, 2)
    assert (shown.replicas_desired, shown.desired_reason) == (None, "")


def test_what_runs_and_what_waits_is_wanted_for_and_shown_with_its_reason() -> None:
    house = Ranged(max_num_seqs=5)
    assert house.pass_s(400) == 1
    tickets = [house.submit() for _ in range(8)]
    assert house.pass_s(90) == 2
    shown = house.shown()
    assert (shown.replicas_least, shown.replicas_most, shown.replicas_desired) == (1, 3, 2)
    assert shown.desired_reason == "need 2.0: 8 sequences run or wait, and a replica takes 4"
    tickets += [house.submit() for _ in range(30)]
    assert house.pass_s(60) == 3
    house.finish(*tickets)
    assert house.pass_s(250) == 3
    assert house.pass_s(200) == 1
    assert repr(house.dispatcher) == AT_REST


def test_adapters_that_wait_for_slots_are_wanted_for() -> None:
    house = Ranged(slots=1, same_band=True)
    house.pass_s(400)
    tickets = [house.submit("a", "support"), house.submit("a", "sales"), house.submit("b", "support")]
    assert house.pass_s(90) == 3
    assert "3 adapters run or wait, and a replica takes 1" in house.shown().desired_reason
    house.finish(*tickets)


def test_new_work_leaves_the_highest_numbers_alone_while_more_are_ready_than_wanted() -> None:
    house = Ranged(max_num_seqs=8)
    assert house.pass_s(400) == 1
    assert [house.engine(number).wanted for number in range(3)] == [True, False, False]
    tickets = [house.submit("a", model) for model in ("support", "sales", "support", "sales")]
    tickets += [house.submit("b") for _ in range(2)]
    assert {ticket.engine and ticket.engine.name for ticket in tickets} == {"shared-0"}
    house.finish(*tickets)
    assert repr(house.dispatcher) == AT_REST


def test_those_that_are_taken_go_first_though_a_lower_number_is_missing() -> None:
    house = Ranged(2, max_num_seqs=8)
    house.take_away(0)
    assert house.pass_s(400) == 2
    assert [house.engine(number).wanted for number in range(3)] == [True, True, False]
    tickets = [house.submit() for _ in range(4)]
    assert {ticket.engine and ticket.engine.name for ticket in tickets} == {"shared-1"}
    house.finish(*tickets)


def test_they_take_what_no_other_could_take_now() -> None:
    house = Ranged(max_num_seqs=2)
    house.pass_s(400)
    tickets = [house.submit() for _ in range(3)]
    assert [ticket.is_running for ticket in tickets] == [True] * 3
    assert tickets[2].engine is not None and tickets[2].engine.name != "shared-0"
    house.finish(*tickets)


def test_an_adapter_that_ran_on_a_replica_that_goes_moves_to_one_that_stays() -> None:
    house = Ranged()
    for number in (0, 1):
        house.dispatcher.set_draining(f"shared-{number}", True)
    ran = house.submit()
    for number in (0, 1):
        house.dispatcher.set_draining(f"shared-{number}", False)
    assert ran.engine is house.engine(2)
    house.pass_s(400)
    others = [house.submit() for _ in range(3)]
    assert all(ticket.engine is not None and ticket.engine.wanted for ticket in others)
    house.finish(ran, *others)
    assert repr(house.dispatcher) == AT_REST


def test_a_request_is_held_for_the_first_replica_longer_than_its_tenants_timeout(empty: Ranged) -> None:
    ticket = empty.submit()
    behind = empty.submit()
    assert {ticket.waits_for, behind.waits_for} == {WaitReason.FROM_ZERO}
    assert empty.pass_s(0.25) == 1
    assert empty.pass_s(60) == 1
    assert not ticket.is_decided
    empty.engine(0).told = LOADING
    empty.pass_s(60)
    empty.be_ready("shared-0")
    assert empty.running(ticket, behind) == [True, True]
    empty.finish(ticket, behind)
    assert repr(empty.dispatcher) == AT_REST


def test_a_gateway_that_begins_says_no_number_before_it_has_found_what_is_there() -> None:
    house = Ranged(0)
    house.take_away(0, 1, 2)
    assert house.pass_s(2) is None
    assert house.shown().replicas_desired is None
    for number in (0, 1, 2):
        house.be_ready(f"shared-{number}")
    assert house.pass_s(2) == 3


def test_a_gateway_that_begins_leaves_replicas_that_load() -> None:
    house = Ranged(0)
    house.take_away(0, 1, 2)
    for number in (0, 1):
        house.engine(number).told = LOADING
    assert house.pass_s(4) == 2


def test_the_first_replica_is_not_taken_away_while_it_loads_though_nobody_waits_any_more(
    empty: Ranged,
) -> None:
    empty.finish(empty.submit())
    empty.engine(0).told = LOADING
    assert empty.pass_s(1000) == 1
    empty.be_ready("shared-0")
    assert empty.pass_s(200) == 1
    assert empty.pass_s(200) == 0


def test_one_that_fails_again_and_again_is(empty: Ranged) -> None:
    empty.finish(empty.submit())
    for _ in range(60):
        empty.engine(0).told = LOADING
        empty.pass_s(5)
        empty.engine(0).told = FAILED
        empty.pass_s(5)
    empty.engine(0).told = LOADING
    assert empty.pass_s(1) == 0
    empty.take_away(0)
    empty.pass_s(1)
    empty.finish(empty.submit())
    empty.engine(0).told = LOADING
    assert empty.pass_s(1000) == 1, "another pod may do better"


async def test_it_is_refused_when_its_time_is_over(empty: Ranged) -> None:
    ticket = empty.submit()
    empty.pass_s(302)
    with pytest.raises(QueueTimeout, match="waited 300 s, the longest this tenant allows: the engine"):
        await ticket.granted()
    empty.dispatcher.settle(ticket, Outcome.EXPIRED)
    assert repr(empty.dispatcher) == AT_REST


async def test_what_is_held_for_an_engine_that_fails_is_refused(empty: Ranged) -> None:
    early = empty.submit()
    empty.pass_s(30)
    empty.engine(0).told = FAILED
    empty.pass_s(2)
    with pytest.raises(QueueTimeout, match="does not start"):
        await early.granted()
    late = empty.submit()
    assert late.waits_for is WaitReason.NOT_READY
    empty.pass_s(11)
    with pytest.raises(QueueTimeout, match="does not start"):
        await late.granted()
    for ticket in (early, late):
        empty.dispatcher.settle(ticket, Outcome.EXPIRED)
    assert repr(empty.dispatcher) == AT_REST


def test_those_that_no_objective_could_be_kept_for_are_held_all_the_same() -> None:
    house = Ranged(0, ttft_s=1.0)
    group = house.dispatcher.groups[PLACE]
    group.work.per_s = 1.0
    house.take_away(0, 1, 2)
    tickets = [house.submit() for _ in range(5)]
    assert {ticket.waits_for for ticket in tickets} == {WaitReason.FROM_ZERO}
    house.finish(*tickets)


def test_work_that_an_objective_refuses_is_wanted_for() -> None:
    house = Ranged(max_num_seqs=1, replicas=3, ttft_s=1.0, caps=Caps(max_concurrency=100))
    house.pass_s(400)
    for number in (1, 2):
        house.dispatcher.set_draining(f"shared-{number}", True)
    running = house.submit()
    house.dispatcher.groups[PLACE].work.per_s = 10.0
    for _ in range(200):
        assert not isinstance(house.offer(), Ticket)
        house.clock.now += 0.25
        house.dispatcher.sweep()
    assert house.pass_s(0.25) == 3
    house.finish(running)


def test_who_asks_for_a_replica_without_waiting_for_it_wakes_the_pool(empty: Ranged) -> None:
    target = empty.submit().request.target
    empty.finish(*empty.dispatcher.waiting())
    assert empty.pass_s(400) == 0
    assert not empty.dispatcher.takes_work(target)
    assert empty.pass_s(0.25) == 1


def test_replicas_that_need_not_be_there_are_away_and_others_are_missed() -> None:
    house = Ranged()
    house.pass_s(400)
    house.take_away(0, 2)
    states = [replica.state for replica in house.shown().replicas]
    assert states == [ReplicaState.NOT_READY, ReplicaState.READY, ReplicaState.AWAY]


def test_another_range_counts_at_once_and_a_fixed_number_ends_it() -> None:
    house = Ranged()
    house.pass_s(400)
    shared = house.fleet.now.pools["shared"]
    house.take(replace(shared, scaling=Scaling(2)))
    assert house.pass_s(0.25) == 2
    house.take(replace(shared, scaling=None))
    assert house.pass_s(0.25) is None
    assert [house.engine(number).wanted for number in range(3)] == [True] * 3

"""Which replica takes a request, and for whom is a slot cleared?"""

from __future__ import annotations

import pytest

from routing.scheduling.filters import has_room, has_slot, is_ready, respects_clearing
from routing.scheduling.profile import AFFINITY, clear_slot
from routing.scheduling.scorers import adapter_affinity, least_loaded, rendezvous
from routing.scheduling.state import SlotClearing
from tests.unit.routing.requests import adapter_id, replica, request


def test_a_replica_that_is_not_ready_or_failed_the_request_is_out() -> None:
    assert is_ready(replica(), request())
    assert not is_ready(replica(ready=False), request())
    assert not is_ready(replica("shared-0"), request(failed_on=frozenset({"shared-0"})))


def test_an_engine_takes_what_it_can_run_at_once() -> None:
    one = replica(max_sequences=4)
    assert has_room(one, request(sequences=4))
    assert has_room(one, request(sequences=9)), "wider than the engine: alone, else never"
    one.acquire("a-support@1", 1)
    assert has_room(one, request(sequences=3))
    assert not has_room(one, request(sequences=4))


def test_a_new_adapter_needs_a_free_slot_and_a_running_one_does_not() -> None:
    one = replica(slots=1)
    assert has_slot(one, request("a"))
    one.acquire("a-support@1", 1)
    assert has_slot(one, request("a"))
    assert not has_slot(one, request("b"))
    assert has_slot(one, request(base=True)), "the base model needs none"
    one.release("a-support@1", 1)
    assert has_slot(one, request("b"))


def test_a_slot_being_cleared_is_for_who_waits_for_it() -> None:
    one = replica(slots=2)
    one.acquire("a-support@1", 1)
    one.acquire("a-sales@1", 1)
    one.clearing = SlotClearing(waiting="b-support@1", victim="a-sales@1")
    assert respects_clearing(one, request("a", "support"))
    assert not respects_clearing(one, request("a", "sales"))
    one.release("a-sales@1", 1)
    assert not respects_clearing(one, request("c", "support")), "a third adapter must not take it"
    assert respects_clearing(one, request("b", "support"))
    one.acquire("b-support@1", 1)
    assert one.clearing is None


def test_scores_are_fractions() -> None:
    one = replica()
    one.acquire("a-support@1", 3)
    for scorer in (adapter_affinity, least_loaded, rendezvous):
        for asked in (request("a"), request("b"), request(base=True)):
            assert 0.0 <= scorer(one, asked) <= 1.0


def test_where_the_adapter_runs_comes_before_where_it_was_seen_before_where_it_is_new() -> None:
    new, seen, running = replica("r0"), replica("r1"), replica("r2")
    seen.acquire("a-support@1", 1)
    seen.release("a-support@1", 1)
    running.acquire("a-support@1", 1)
    assert AFFINITY.pick([new, seen, running], request()) is running
    assert AFFINITY.pick([new, seen], request()) is seen
    assert AFFINITY.pick([new], request()) is new
    assert AFFINITY.pick([], request()) is None


def test_the_base_model_goes_where_there_is_most_room() -> None:
    busy, idle = replica("r0"), replica("r1")
    busy.acquire(None, 4)
    assert AFFINITY.pick([busy, idle], request(base=True)) is idle


def test_new_adapters_spread_by_hash_and_stay_where_they_were() -> None:
    replicas = [replica(f"r{i}", slots=64) for i in range(4)]
    for one in replicas:
        one.adapters = frozenset(adapter_id(f"a-m{i}") for i in range(64))
    picks = {f"m{i}": AFFINITY.pick(replicas, request("a", f"m{i}")) for i in range(64)}
    assert len({id(pick) for pick in picks.values()}) == 4
    again = {f"m{i}": AFFINITY.pick(replicas[::-1], request("a", f"m{i}")) for i in range(64)}
    assert picks == again


def test_the_victim_of_a_clearing_is_the_adapter_with_least_in_flight() -> None:
    one = replica(slots=2)
    one.acquire("a-support@1", 3)
    one.acquire("a-sales@1", 1)
    assert clear_slot([one], request("b")) is one
    assert one.clearing == SlotClearing(waiting="b-support@1", victim="a-sales@1")
    assert clear_slot([one], request("b")) is None, "once is enough"


@pytest.mark.parametrize("why", ["a slot is free", "it runs already", "not ready", "the base model"])
def test_no_slot_is_cleared_where_none_is_needed(why: str) -> None:
    one = replica(slots=2 if why == "a slot is free" else 1, ready=why != "not ready")
    one.acquire("a-support@1", 1)
    asked = {"it runs already": request("a"), "the base model": request(base=True)}.get(why, request("b"))
    assert clear_slot([one], asked) is None
    assert one.clearing is None


def test_residency_is_bounded_and_forgets_the_oldest() -> None:
    one = replica(slots=2)
    for i in range(6):
        one.acquire(f"a-{i}", 1)
        one.release(f"a-{i}", 1)
    assert list(one.resident) == ["a-2", "a-3", "a-4", "a-5"]
    one.forget_residency()
    assert not one.resident

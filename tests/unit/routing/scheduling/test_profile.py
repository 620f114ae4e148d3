"""Which engine takes a request, and why?"""

from __future__ import annotations

import pytest

from routing.scheduling.affinity import HOT_LOAD, Affinity
from routing.scheduling.filters import WaitReason, has_room, has_slot, respects_promise, takes_work
from routing.scheduling.profile import ONLY, SLOT_LEASE, Pick
from routing.scheduling.scorers import adapter_affinity, least_loaded, rendezvous
from routing.scheduling.state import Engine, SlotDrain
from routing.types import Request
from tests.unit.routing.requests import adapter_id, end_on, engine, request, run_on, view_of


def chosen(engines: list[Engine], asked: Request) -> tuple[str, str] | None:
    """Name and reason of the engine that is picked."""
    pick = SLOT_LEASE.pick(asked, view_of(*engines, asked=asked))
    return (pick.engine.name, pick.reason) if isinstance(pick, Pick) else None


def test_a_replica_that_takes_no_work_or_failed_the_request_is_out() -> None:
    assert takes_work(engine(), request(), view_of())
    assert not takes_work(engine(ready=False), request(), view_of())
    assert not takes_work(engine("shared-0"), request(failed_on=frozenset({"shared-0"})), view_of())
    draining = engine()
    draining.replica.draining = True
    assert not takes_work(draining, request(), view_of())


def test_an_engine_takes_what_it_can_run_at_once() -> None:
    one = engine(max_sequences=4)
    assert has_room(one, request(sequences=4), view_of())
    assert has_room(one, request(sequences=9), view_of()), "wider than the engine: alone, else never"
    run_on(one, request())
    assert has_room(one, request(sequences=3), view_of())
    assert not has_room(one, request(sequences=4), view_of())


def test_an_engine_takes_what_its_kv_cache_holds() -> None:
    one = engine(max_sequences=100)
    one.kv_tokens = 100
    run_on(one, request(), times=8)
    assert has_room(one, request(), view_of()), "90 of 100 tokens"
    run_on(one, request())
    assert not has_room(one, request(), view_of())
    one.kv_tokens = 0
    assert has_room(one, request(), view_of()), "it has not said what it holds"


def test_a_fresh_or_slow_replica_takes_its_share_and_never_less_than_one() -> None:
    one = engine(max_sequences=8)
    one.ramp = 0.25
    run_on(one, request())
    assert has_room(one, request(), view_of())
    run_on(one, request())
    assert not has_room(one, request(), view_of())
    one.ramp = 0.01
    assert one.capacity == 1


def test_a_new_adapter_needs_a_free_slot_and_a_running_one_does_not() -> None:
    one = engine(slots=1)
    assert has_slot(one, request("a"), view_of())
    run_on(one, request("a"))
    assert has_slot(one, request("a"), view_of())
    assert not has_slot(one, request("b"), view_of())
    assert has_slot(one, request(base=True), view_of()), "the base model needs none"
    end_on(one, request("a"))
    assert has_slot(one, request("b"), view_of())


def test_a_slot_that_drains_is_for_the_adapter_it_is_promised_to() -> None:
    one = engine(slots=2)
    run_on(one, request("a", "support"))
    run_on(one, request("a", "sales"))
    one.slot_drain = SlotDrain("b-support@1", "b", evicted="a-sales@1")
    assert respects_promise(one, request("a", "support"), view_of())
    assert not respects_promise(one, request("a", "sales"), view_of())
    end_on(one, request("a", "sales"))
    assert not respects_promise(one, request("c", "support"), view_of()), "a third adapter must not take it"
    assert respects_promise(one, request("b", "support"), view_of())
    run_on(one, request("b", "support"))
    assert one.slot_drain is None


def test_scores_are_fractions() -> None:
    one = engine()
    run_on(one, request("a"), times=3)
    for scorer in (adapter_affinity, least_loaded, rendezvous):
        for asked in (request("a"), request("b"), request(base=True)):
            view = view_of(one, asked=asked)
            assert 0.0 <= scorer(one, asked, view) <= 1.0


def test_where_the_adapter_runs_comes_before_where_it_was_seen_before_where_it_is_new() -> None:
    new, seen, running = engine("r0"), engine("r1"), engine("r2")
    run_on(seen, request())
    end_on(seen, request())
    run_on(running, request())
    assert chosen([new, seen, running], request()) == ("r2", Affinity.RUNNING)
    assert chosen([new, seen], request()) == ("r1", Affinity.RESIDENT)
    assert chosen([new], request()) == ("r0", ONLY)
    assert chosen([], request()) is None


def test_a_hot_adapter_gets_a_second_slot_where_it_is_much_emptier() -> None:
    hot, empty = engine("r0", max_sequences=8), engine("r1", max_sequences=8)
    run_on(hot, request(), times=int(HOT_LOAD * 8))
    assert chosen([hot, empty], request()) == ("r0", Affinity.RUNNING)
    run_on(hot, request(), times=2)
    picked = chosen([hot, empty], request())
    assert picked is not None and picked[0] == "r1"


def test_no_second_copy_is_made_while_all_are_as_busy() -> None:
    engines = [engine("r0", max_sequences=8), engine("r1", max_sequences=8)]
    run_on(engines[0], request("a"), times=6)
    run_on(engines[1], request("b"), times=6)
    assert chosen(engines, request("a")) == ("r0", Affinity.RUNNING)
    assert chosen(engines, request("b")) == ("r1", Affinity.RUNNING)


def test_a_crowded_replica_is_no_home() -> None:
    """Bounded load: memory and hashing count only up to a quarter more than the mean."""
    crowded, empty = engine("r0", max_sequences=8), engine("r1", max_sequences=8)
    run_on(crowded, request("a"))
    end_on(crowded, request("a"))
    run_on(crowded, request("b"), times=2)
    assert chosen([crowded, empty], request("a")) != ("r0", Affinity.RESIDENT)


def test_the_base_model_goes_where_there_is_most_room() -> None:
    busy, idle = engine("r0"), engine("r1")
    run_on(busy, request(base=True), times=4)
    picked = chosen([busy, idle], request(base=True))
    assert picked is not None and picked[0] == "r1"


def test_new_adapters_spread_by_hash_and_stay_where_they_were() -> None:
    engines = [engine(f"r{i}", slots=64) for i in range(4)]
    for one in engines:
        one.adapters = frozenset(adapter_id(f"a-m{i}") for i in range(64))
    picks = {f"m{i}": chosen(engines, request("a", f"m{i}")) for i in range(64)}
    assert len(set(picks.values())) == 4
    assert {reason for _, reason in filter(None, picks.values())} == {Affinity.HOME}
    assert picks == {f"m{i}": chosen(engines, request("a", f"m{i}")) for i in range(64)}


@pytest.mark.parametrize(
    ("lacks", "hold"),
    [
        ("ready", WaitReason.NOT_READY),
        ("adapter", WaitReason.ADAPTER_UNKNOWN),
        ("room", WaitReason.NO_ROOM),
        ("slot", WaitReason.NO_SLOT),
        ("drain", WaitReason.SLOT_DRAINING),
        ("trust", WaitReason.NOT_TRUSTED),
    ],
)
def test_a_wait_has_a_reason_from_the_replica_that_came_closest(lacks: str, hold: WaitReason) -> None:
    far, near = engine("r0", ready=False), engine("r1", slots=1, max_sequences=2, ready=lacks != "ready")
    if lacks == "adapter":
        near.adapters = frozenset()
    elif lacks == "room":
        run_on(near, request("b"), times=2)
    elif lacks == "slot":
        run_on(near, request("b"))
    elif lacks == "drain":
        near.slot_drain = SlotDrain("b-support@1", "b", evicted="a-support@1")
    elif lacks == "trust":
        near.trusted = False
    assert SLOT_LEASE.pick(request("a"), view_of(far, near)) is hold


def test_residency_is_bounded_and_forgets_the_oldest() -> None:
    one = engine(slots=2)
    for i in range(6):
        run_on(one, request("a", str(i)))
        end_on(one, request("a", str(i)))
    assert list(one.resident) == [f"a-{i}@1" for i in (2, 3, 4, 5)]
    one.forget_residency()
    assert not one.resident

"""Each public router's rule, and the order in which the driver lets things happen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.simulator.baselines import (
    HashAffinity,
    LeastOutstanding,
    LlmdAffinity,
    RoundRobin,
    SendAtOnce,
    SglangCacheAware,
)
from benchmarks.simulator.costs import EngineSettings
from benchmarks.simulator.driver import Driver
from tests.unit.benchmarks.simulator.fakes import FLAT, a_call


def driven(router: SendAtOnce, *, replicas: int = 3, slots: int = 2) -> Driver:
    """Idle replicas, and a driver that hands this router calls."""
    driver = Driver([EngineSettings(slots=slots)] * replicas, FLAT, router)
    return driver


def place(router: SendAtOnce, *adapters: str) -> list[int]:
    """Where calls for these adapters go, all at once."""
    calls = [replace(a_call(adapter=adapter), key=key) for key, adapter in enumerate(adapters)]
    for call in calls:
        router.arrive(call, 0.0)
    return [call.replica for call in calls if call.replica is not None]


def test_round_robin_takes_each_in_turn() -> None:
    router = RoundRobin()
    driven(router)
    assert place(router, "a", "a", "b", "b") == [0, 1, 2, 0]


def test_least_outstanding_evens_out() -> None:
    router = LeastOutstanding(1)
    driven(router)
    assert sorted(place(router, "a", "a", "a")) == [0, 1, 2]


def test_hashing_keeps_an_adapter_where_it_is_whatever_the_load() -> None:
    router = HashAffinity()
    driven(router)
    assert len(set(place(router, *["a"] * 20))) == 1
    assert len(set(place(router, *(f"a{number}" for number in range(50))))) == 3


def test_cache_aware_follows_an_adapter_until_loads_are_out_of_balance() -> None:
    router = SglangCacheAware(1)
    driven(router, replicas=2)
    placed = place(router, *["a"] * 66)
    assert len(set(placed[:65])) == 1
    assert placed[65] != placed[0]


def test_an_adapter_in_flight_counts_more_than_room_for_one() -> None:
    router = LlmdAffinity(1)
    driven(router, slots=4)
    first = place(router, "a")[0]
    router.tick(0.05)
    assert router.affinity("a", first) == 1.0
    assert router.affinity("b", first) == 0.8
    place(router, "a", "b")
    router.tick(0.1)
    assert {router.affinity("a", replica) for replica in range(3)} <= {0.8, 1.0}


def test_vllms_labels_count_every_adapter_twice_so_that_half_the_slots_look_like_all() -> None:
    router = LlmdAffinity(1)
    driver = driven(router, replicas=1, slots=2)
    driver.send(replace(a_call(adapter="a"), key=0), 0)
    router.adapters[0]["a"] += 1
    router.tick(0.05)
    assert router.affinity("b", 0) == 0.0


def test_metrics_are_as_old_as_the_last_scrape() -> None:
    router = LlmdAffinity(1)
    driven(router, slots=4)
    placed = place(router, "a")
    assert router.affinity("a", placed[0]) == 0.8
    router.tick(0.05)
    assert router.affinity("a", placed[0]) == 1.0


def test_a_router_counts_out_what_has_ended() -> None:
    router = LeastOutstanding(1)
    driver = driven(router)
    calls = [a_call(0.1 * number, f"a{number}") for number in range(5)]
    driver.run(calls)
    assert router.in_flight == [0, 0, 0]
    assert not any(router.adapters)
    assert all(call.finished_s is not None for call in calls)


def test_a_call_knows_its_times() -> None:
    router = RoundRobin()
    call = a_call(1.0, completion=3)
    driven(router).run([call])
    # Ten milliseconds a step, 1.1 s to load the adapter first.
    assert call.ttft_s == pytest.approx(1.11)
    assert call.tpot_s == pytest.approx(0.01)


def test_a_run_that_is_given_up_leaves_calls_without_an_end() -> None:
    call = a_call(completion=1000)
    driven(RoundRobin()).run([call], until_s=2.0)
    assert call.ttft_s is not None and call.finished_s is None and call.tpot_s is None

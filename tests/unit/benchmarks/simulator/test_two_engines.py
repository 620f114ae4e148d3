"""The real benchmark's fleet and arrivals, simulated."""

from __future__ import annotations

from collections import Counter

from benchmarks.simulator.measures import Window, figures
from benchmarks.simulator.scenarios import OURS, scenarios
from benchmarks.simulator.two_engines import CAPACITY_PER_S, COSTS, ENGINE, TwoEngines
from benchmarks.simulator.workloads import NOISY
from simulation.costs import StepCosts
from simulation.driver import Call, Driver

SHORT_S = 10.0


def test_every_adapter_has_one_owner_and_one_tenant_floods() -> None:
    owned = TwoEngines().tenants()
    assert len(owned) == 8 and NOISY in owned
    assert Counter(adapter for adapters in owned.values() for adapter in adapters).most_common(1)[0][1] == 1
    assert sum(map(len, owned.values())) == 24


def test_the_flood_comes_on_top_of_the_same_steady_calls() -> None:
    steady, flooded = (TwoEngines(flood=flood, duration_s=SHORT_S).calls(seed=3) for flood in (0.0, 1.5))
    kept = Counter((call.at_s, call.adapter) for call in flooded)
    assert all(kept[call.at_s, call.adapter] for call in steady)
    added = len(flooded) - len(steady)
    assert 0.8 < added / (1.5 * CAPACITY_PER_S * SHORT_S) < 1.2
    assert [call.at_s for call in flooded] == sorted(call.at_s for call in flooded)


def test_calls_are_the_same_for_the_same_seed() -> None:
    workload = TwoEngines(duration_s=SHORT_S)
    first, again, other = ([(c.at_s, c.adapter) for c in workload.calls(seed)] for seed in (1, 1, 2))
    assert first == again != other


def test_every_client_has_one_request_in_flight_until_time_is_over() -> None:
    workload = TwoEngines(clients=2, duration_s=2.0)
    calls = workload.calls(seed=1)
    assert len(calls) == 16 and all(call.at_s == 0.0 for call in calls)
    Driver([ENGINE, ENGINE], COSTS, scenarios()["two-engines"][-1].router(OURS, 1, {})).run(calls)
    assert len(calls) > 50 and all(call.finished_s for call in calls)
    for at_s in (0.5, 1.0, 1.5):
        in_flight = Counter(call.tenant for call in calls if call.at_s <= at_s < (call.finished_s or 0.0))
        assert in_flight == dict.fromkeys(workload.tenants(), 2)
    assert max(call.at_s for call in calls) < 2.0


def test_its_engines_have_costs_of_their_own() -> None:
    assert StepCosts() != COSTS
    assert {scenario.costs for scenario in scenarios()["two-engines"]} == {COSTS}


def test_neighbours_keep_their_goodput_under_the_flood_with_ours_and_lose_it_with_round_robin() -> None:
    steady, flood, *others = scenarios()["two-engines"]
    labels = [one.label for one in (steady, flood, *others)]
    assert labels == ["steady", "flood", "clients' flood", "busy", "saturated"]
    workload = TwoEngines(flood=1.5, duration_s=SHORT_S)
    goodput = {}
    for router in (OURS, "round robin"):
        calls = workload.calls(seed=1)
        driver = Driver([ENGINE, ENGINE], COSTS, flood.router(router, 1, {}))
        driver.run(calls)
        found = figures(calls, driver.engines, Window(2.0, SHORT_S))
        goodput[router] = found.neighbours_goodput_share
    assert goodput[OURS] > 0.9 > 0.6 > goodput["round robin"]


def longest_s(calls: list[Call], tenant: str, begin_s: float, end_s: float) -> float:
    """Longest time to first token of a tenant's calls that arrive in a window."""
    waits = [call.ttft_s for call in calls if call.tenant == tenant and begin_s <= call.at_s < end_s]
    return max(wait for wait in waits if wait is not None)


def run_ours(calls: list[Call]) -> list[Call]:
    """Let them all run under our scheduler."""
    Driver([ENGINE, ENGINE], COSTS, scenarios()["two-engines"][0].router(OURS, 1, {})).run(calls)
    return calls


def test_the_largest_tenant_is_not_held_down_where_more_is_asked_for_than_slots_serve_at_once() -> None:
    busy = run_ours(TwoEngines(load=1.25, duration_s=60.0).calls(seed=1))
    assert longest_s(busy, "t0", 2.0, 60.0) < 6.0, "as a flood it waits for more than twenty seconds"


def test_a_tenant_that_has_sent_many_at_once_is_soon_served_as_before() -> None:
    workload = TwoEngines(duration_s=50.0)
    burst = [workload._call(10.0, 0, 0) for _ in range(60)]
    calls = run_ours(burst + workload.calls(seed=1))
    assert longest_s(calls, "t0", 10.0, 20.0) > 1.0, "its own burst is before it"
    assert longest_s(calls, "t0", 35.0, 50.0) < 1.0


def test_a_flood_of_clients_that_wait_for_answers_is_bound_for_as_long_as_it_lasts() -> None:
    calls = run_ours(TwoEngines(flood_clients=100, duration_s=30.0).calls(seed=1))
    neighbours = sorted(call.ttft_s or 0.0 for call in calls if call.tenant != NOISY and call.at_s >= 2.0)
    assert neighbours[int(0.99 * len(neighbours))] < 1.0

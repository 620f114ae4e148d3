"""Who has had least service for its weight?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from routing.fairness import VirtualCounters, cost


def test_a_completion_token_costs_two_prompt_tokens() -> None:
    assert cost(10, 5) == 20.0


def test_service_counts_by_weight() -> None:
    counters = VirtualCounters({"a": 1.0, "b": 2.0})
    counters.charge("a", 100)
    counters.charge("b", 100)
    assert (counters["a"], counters["b"]) == (100.0, 50.0)


def test_who_comes_back_from_idle_saved_nothing_up() -> None:
    counters = VirtualCounters({"a": 1.0, "b": 1.0, "c": 1.0})
    counters.charge("a", 100)
    counters.charge("b", 70)
    counters.lift("c", ["a", "b"])
    assert counters["c"] == 70.0


def test_a_lift_never_takes_service_away() -> None:
    counters = VirtualCounters({"a": 1.0, "b": 1.0})
    counters.charge("a", 100)
    counters.lift("a", ["b"])
    counters.lift("a", [])
    assert counters["a"] == 100.0


@given(st.lists(st.integers(1, 500), min_size=20, max_size=200), st.floats(0.25, 4.0))
def test_two_backlogged_tenants_differ_by_no_more_than_one_request(costs: list[int], weight: float) -> None:
    """Sheng et al. 2024, theorem 4.4: the largest request bounds the gap between backlogged clients."""
    counters = VirtualCounters({"a": 1.0, "b": weight})
    for tokens in costs:
        tenant = min("ab", key=counters.__getitem__)
        counters.charge(tenant, tokens)
    assert abs(counters["a"] - counters["b"]) <= max(costs) / min(1.0, weight) + 1e-6

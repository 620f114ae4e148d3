"""Who has had least service for its weight?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from routing.scheduling.fairness import VirtualCounters, cost


def test_a_completion_token_costs_two_prompt_tokens() -> None:
    assert cost(10, 5) == 20.0


def test_service_counts_by_weight() -> None:
    counters = VirtualCounters({"a": 1.0, "b": 2.0})
    counters.serve("a", 100)
    counters.serve("b", 100)
    assert (counters["a"], counters["b"]) == (100.0, 50.0)


def test_a_request_that_used_less_than_expected_is_given_the_rest_back() -> None:
    counters = VirtualCounters({"a": 2.0})
    counters.serve("a", 100)
    counters.correct("a", -40)
    assert counters["a"] == 30.0


def test_who_comes_back_from_idle_saved_nothing_up() -> None:
    counters = VirtualCounters({"a": 1.0, "b": 1.0, "c": 1.0})
    for tenant in ("a", "b", "a", "b"):
        counters.serve(tenant, 100)
    counters.lift("c")
    assert counters["c"] == 100.0, "the counter of the tenant served last, before it was charged"


def test_staying_away_saves_nothing_up_even_where_nobody_ever_had_to_wait() -> None:
    """Service counts as virtual time whether others queue for it or not."""
    counters = VirtualCounters({"a": 1.0, "b": 1.0})
    for _ in range(1000):
        counters.serve("a", 10)
    counters.lift("b")
    assert counters["b"] == 9990.0


def test_a_lift_never_takes_service_away() -> None:
    counters = VirtualCounters({"a": 1.0, "b": 1.0})
    counters.serve("a", 100)
    counters.lift("a")
    assert counters["a"] == 100.0


def test_bands_have_a_time_each() -> None:
    counters = VirtualCounters({"high": 1.0, "low": 1.0, "new": 1.0}, {"high": 0, "low": 2, "new": 2})
    counters.serve("high", 100)
    counters.serve("high", 100)
    counters.lift("new")
    assert counters["new"] == 0.0


@given(
    st.lists(st.integers(1, 500), min_size=20, max_size=200),
    st.lists(st.floats(0.25, 4.0), min_size=2, max_size=4),
)
def test_tenants_that_always_wait_differ_by_no_more_than_a_request_of_each(
    costs: list[int], weights: list[float]
) -> None:
    """Goyal et al. 1996, theorem 1: |Si/wi - Sj/wj| <= li/wi + lj/wj, l the largest request."""
    tenants = {f"t{i}": weight for i, weight in enumerate(weights)}
    counters = VirtualCounters(tenants)
    for tokens in costs:
        counters.serve(min(tenants, key=counters.__getitem__), tokens)
    for one, w in tenants.items():
        for other, v in tenants.items():
            bound = max(costs) / w + max(costs) / v
            assert abs(counters[one] - counters[other]) <= bound + 1e-6

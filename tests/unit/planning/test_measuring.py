"""What requests say of the demand, and how little a few of them say."""

from __future__ import annotations

import numpy as np
import pytest

from planning.measuring import (
    concurrency_of,
    hourly_counts,
    measured,
    spread_of,
    usual_spread,
)
from planning.requests import Requests, sifted
from planning.values import Demand

HOUR_S = 3600.0
DAY_S = 86_400.0


def demand_of(*rows: tuple[float, str, float, float], cached: float = 0.0, took_s: float = 1.0) -> Demand:
    found = Requests()
    for row in rows:
        found.add(*row, cached=cached, took_s=took_s, tenant="shop")
    return measured(sifted(found), "test")


def steady(days: float, *, gap_s: float = 600.0, model: str = "a") -> list[tuple[float, str, float, float]]:
    return [(1e9 + float(at), model, 100.0, 20.0) for at in np.arange(0, days * DAY_S, gap_s)]


def test_a_model_is_measured_by_its_requests() -> None:
    one = demand_of(*steady(8), cached=25).models[0]
    assert one.model == "a"
    assert one.tenants == ("shop",)
    assert one.requests == 8 * 144
    assert one.prompt.p50 == one.prompt.most == 100
    assert one.cached == pytest.approx(0.25)
    assert len(one.hourly) == 192
    assert set(one.hourly) == {6.0}
    assert one.burstiness == pytest.approx(0.0, abs=0.05)


def test_arrivals_by_chance_vary_as_much_as_they_are_apart_and_bursts_more() -> None:
    chance = np.random.default_rng(1)
    by_chance = np.cumsum(chance.exponential(60.0, 20_000))
    bursts = np.cumsum(chance.gamma(1 / 9, 540.0, 20_000))
    for times, low, high in ((by_chance, 0.9, 1.1), (bursts, 2.0, 3.3)):
        one = demand_of(*((float(at), "a", 10.0, 10.0) for at in times)).models[0]
        assert low < one.burstiness < high


def test_a_day_that_has_a_rhythm_has_no_bursts_for_that() -> None:
    chance = np.random.default_rng(2)
    times = [
        float(at)
        for hour in range(240)
        for at in hour * HOUR_S + chance.uniform(0, HOUR_S, chance.poisson(200 if hour % 24 < 8 else 4))
    ]
    one = demand_of(*((at, "a", 10.0, 10.0) for at in times)).models[0]
    assert one.burstiness < 1.2


def test_a_few_hours_and_a_few_days_are_said_to_be_little() -> None:
    assert "It covers 5.8 hours: nothing is known of the other hours" in demand_of(*steady(0.25)).notes[0]
    assert "It covers 3.0 days: nothing is known of the rest of a week" in demand_of(*steady(3)).notes[0]
    assert demand_of(*steady(8)).notes == ()


def test_a_model_with_a_few_requests_is_said_to_be_guessed() -> None:
    found = demand_of(*steady(8), (1e9 + 5, "rare", 10.0, 5.0))
    assert any(note.startswith("1 of 2 models had fewer than 20 requests") for note in found.notes)
    assert found.of("rare") is not None
    assert found.of("nothing") is None


def test_tokens_that_are_not_known_are_the_median_in_the_trace_and_nothing_in_the_lengths() -> None:
    rows = [*steady(8), (1e9 + 7, "a", 0.0, 0.0), (1e9 + 9, "b", 0.0, 0.0)]
    found = demand_of(*rows)
    assert found.trace is not None
    assert found.trace.prompt.min() == 100
    assert found.trace.completion.min() == 20
    silent = found.of("b")
    assert silent is not None
    assert silent.prompt.most == 0


def test_one_request_makes_a_demand() -> None:
    found = demand_of((5.0, "a", 10.0, 1.0))
    assert found.duration_s == 60
    assert found.models[0].hourly == (1.0,)


@pytest.mark.parametrize(
    ("begins", "took", "most"),
    [([0.0, 100.0], [1.0, 1.0], 1), ([0.0, 0.0, 0.0], [10.0, 10.0, 10.0], 3), ([0.0, 5.0], [10.0, 10.0], 2)],
)
def test_requests_in_flight_are_counted(begins: list[float], took: list[float], most: int) -> None:
    assert concurrency_of(np.array(begins), np.array(took)) == most


def test_without_ends_nothing_is_said_of_what_is_in_flight() -> None:
    assert concurrency_of(np.array([0.0]), np.array([np.nan])) is None


def test_the_last_hour_may_be_a_part_of_one() -> None:
    assert hourly_counts(np.array([0.0, 3599.0, 3600.0, 5400.0]), 5400.0) == (2.0, 2.0)


def test_spreads_of_nothing_and_of_a_mean() -> None:
    assert spread_of(np.empty(0, dtype=np.int32)).mean == 0
    usual = usual_spread(200)
    assert usual.mean == 200
    assert usual.p50 < usual.mean < usual.p90 < usual.p99 < usual.most
    assert usual.p99 / usual.p50 == pytest.approx(10.2, rel=0.01)


def test_two_thousand_models_are_measured_quickly() -> None:
    found = Requests()
    chance = np.random.default_rng(3)
    for at, model in zip(chance.uniform(0, DAY_S, 100_000), chance.integers(0, 2000, 100_000), strict=True):
        found.add(float(at), f"m{model}", 100, 20)
    assert len(measured(sifted(found), "test").models) == 2000

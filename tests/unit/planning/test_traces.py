"""Requests to simulate: made from rates, or cut from a recording."""

from __future__ import annotations

import numpy as np
import pytest

from planning.measuring import measured, usual_spread
from planning.requests import Requests, sifted
from planning.traces import busiest, grown, part, synthetic
from planning.values import HOUR_S, Demand, ModelDemand, Spread, Trace


def demand_of(*models: ModelDemand, duration_s: float = 24 * HOUR_S) -> Demand:
    return Demand("test", None, duration_s, models)


def model(name: str, hourly: tuple[float, ...], burstiness: float = 1.0) -> ModelDemand:
    lengths = Spread(150.0, 100.0, 300.0, 800.0, 1000.0)
    return ModelDemand(name, (), sum(hourly), hourly, lengths, usual_spread(50), burstiness=burstiness)


def recorded(times: list[float]) -> Trace:
    found = Requests()
    for at in times:
        found.add(at, "a", 10, 10)
    trace = measured(sifted(found), "test").trace
    assert trace is not None
    return trace


def test_made_requests_have_the_rates_hours_and_lengths_that_are_expected() -> None:
    day = tuple(1000.0 if hour < 6 else 10.0 for hour in range(24))
    made = synthetic(demand_of(model("a", day), model("b", (50.0,) * 24)), seed=1, duration_s=24 * HOUR_S)
    of_a = made.time_s[made.model == 0]
    assert len(of_a) == pytest.approx(sum(day), rel=0.05)
    assert np.mean(of_a < 6 * HOUR_S) == pytest.approx(6000 / 6180, abs=0.01)
    assert np.all(np.diff(made.time_s) >= 0)
    assert np.median(made.prompt) == pytest.approx(100, rel=0.1)
    assert np.quantile(made.prompt, 0.99) == pytest.approx(800, rel=0.15)
    assert made.completion.min() >= 1


def test_bursts_are_made_as_they_were_measured() -> None:
    made = synthetic(demand_of(model("a", (2000.0,) * 24, burstiness=4.0)), seed=2, duration_s=24 * HOUR_S)
    gaps = np.diff(made.time_s)
    assert 3.0 < gaps.std() / gaps.mean() < 5.0


def test_one_seed_makes_one_trace_and_a_model_does_not_change_another_ones_requests() -> None:
    alone = synthetic(demand_of(model("a", (20.0,) * 24)), seed=3, duration_s=HOUR_S)
    again = synthetic(demand_of(model("a", (20.0,) * 24)), seed=3, duration_s=HOUR_S)
    beside = synthetic(
        demand_of(model("a", (20.0,) * 24), model("b", (9.0,) * 24)), seed=3, duration_s=HOUR_S
    )
    other = synthetic(demand_of(model("a", (20.0,) * 24)), seed=4, duration_s=HOUR_S)
    assert alone.time_s.tolist() == again.time_s.tolist() == beside.time_s[beside.model == 0].tolist()
    assert alone.time_s.tolist() != other.time_s.tolist()


def test_after_the_end_the_hours_begin_anew_and_growth_makes_more() -> None:
    two = demand_of(model("a", (1000.0, 0.0)), duration_s=2 * HOUR_S)
    made = synthetic(two, seed=5, begin_s=HOUR_S, duration_s=2 * HOUR_S)
    assert len(made) == pytest.approx(1000, rel=0.15)
    assert made.time_s.min() >= HOUR_S
    assert len(synthetic(two, seed=5, duration_s=2 * HOUR_S, growth=3.0)) == pytest.approx(3000, rel=0.1)


def test_models_without_traffic_make_nothing() -> None:
    assert len(synthetic(demand_of(model("a", (0.0,) * 24)), seed=1, duration_s=HOUR_S)) == 0
    assert len(synthetic(demand_of(), seed=1, duration_s=HOUR_S)) == 0


def test_an_absurd_rate_is_refused_before_it_takes_all_memory() -> None:
    with pytest.raises(ValueError, match="simulate a shorter time"):
        synthetic(demand_of(model("a", (1e9,) * 24)), seed=1, duration_s=24 * HOUR_S)


def test_parts_of_a_recording() -> None:
    trace = recorded([0.0, 100.0, 200.0, 201.0, 202.0, 400.0])
    assert busiest(trace, 10.0).time_s.tolist() == [0.0, 1.0, 2.0]
    assert busiest(trace, 1000.0) is trace
    assert part(trace, 100.0, 101.0).time_s.tolist() == [0.0, 100.0]
    assert grown(trace, 2.0).time_s[-1] == 200.0
    with pytest.raises(ValueError, match="above 0"):
        grown(trace, 0.0)

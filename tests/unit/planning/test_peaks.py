"""Who is busy when, and who peaks together."""

from __future__ import annotations

import pytest

from planning.measuring import NOTHING
from planning.peaks import correlations, rhythms, sharing
from planning.values import HOUR_S, Demand, ModelDemand, Spread

LENGTHS = Spread(100.0, 100.0, 100.0, 100.0, 100.0)
DAY = tuple(100.0 if 8 <= hour < 18 else 0.0 for hour in range(24))
NIGHT = tuple(0.0 if 8 <= hour < 18 else 100.0 for hour in range(24))
EVEN = (10.0,) * 24


def demand_of(**models: tuple[float, ...]) -> Demand:
    hours = len(next(iter(models.values())))
    return Demand(
        "test",
        0.0,
        hours * HOUR_S,
        tuple(
            ModelDemand(name, (), sum(hourly), hourly, LENGTHS, LENGTHS) for name, hourly in models.items()
        ),
    )


def test_a_model_is_busy_idle_and_active_as_its_hours_say() -> None:
    found = {one.model: one for one in rhythms(demand_of(day=DAY, even=EVEN))}
    assert found["day"].busiest_hour == 8
    assert found["day"].busiest_rate == pytest.approx(100 / 3600)
    assert found["day"].idle == pytest.approx(14 / 24)
    assert found["day"].active == pytest.approx(10 / 24)
    assert found["even"].idle == 0
    assert [one.model for one in rhythms(demand_of(even=EVEN, day=DAY))] == ["day", "even"]


def test_day_and_night_take_turns_and_two_days_peak_together() -> None:
    told = sharing(demand_of(day=DAY, night=NIGHT, other=DAY, even=EVEN))
    assert [(pair.one, pair.other) for pair in told.together] == [("day", "other")]
    assert told.together[0].correlation == pytest.approx(1.0)
    assert {(pair.one, pair.other) for pair in told.apart} == {("night", "day"), ("night", "other")}
    assert told.compared == 4


def test_room_for_peaks_is_saved_where_they_fall_in_different_hours() -> None:
    assert sharing(demand_of(day=DAY, night=NIGHT)).headroom == pytest.approx(2.0)
    assert sharing(demand_of(day=DAY, other=DAY)).headroom == pytest.approx(1.0)


def test_a_few_hours_correlate_nothing() -> None:
    assert sharing(demand_of(a=(1.0, 5.0), b=(1.0, 5.0))).compared == 0


def test_of_a_source_that_knows_no_hours_nobody_is_said_to_peak_together() -> None:
    ending = (*EVEN, 3.0)
    assert sharing(demand_of(a=EVEN, b=(0.0,) * 24)).compared == 0
    assert sharing(demand_of(a=ending, b=ending)).compared == 0
    assert sharing(demand_of(a=EVEN, b=DAY)).compared == 2


def test_hours_that_are_all_alike_correlate_with_nothing() -> None:
    found = demand_of(even=EVEN, day=DAY)
    assert correlations(found.models, found)[0, 1] == 0


def test_a_model_without_traffic_and_a_demand_without_models_are_told_of() -> None:
    silent = Demand("test", None, HOUR_S, (ModelDemand("a", (), 0.0, (0.0,), NOTHING, NOTHING),))
    assert rhythms(silent)[0].rate == 0
    assert rhythms(silent)[0].busiest_hour is None
    assert sharing(Demand("test", None, HOUR_S, ())).headroom == 1.0


def test_an_hour_that_has_only_begun_is_not_the_busiest() -> None:
    begun = Demand("test", 0.0, HOUR_S + 1.0, (ModelDemand("a", (), 101.0, (100.0, 1.0), LENGTHS, LENGTHS),))
    assert rhythms(begun)[0].busiest_rate == pytest.approx(100 / 3600)


def test_of_two_thousand_models_the_largest_are_compared() -> None:
    models = {f"m{number}": tuple(float(number + hour % 3) for hour in range(24)) for number in range(2000)}
    told = sharing(demand_of(**models))
    assert told.compared == 200
    assert len(told.together) == 10

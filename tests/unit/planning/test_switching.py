"""What do switches between models that share hosts take, and who must not meet them?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from planning.forecast import calls_of, simulate
from planning.loads import CostOf, load_of
from planning.pools import pool_of
from planning.reasons import why
from planning.sharing import Rules, Sharing, Sharings
from planning.switching import BY_MEMORY, Leaving, Switches, switches_of
from planning.traces import synthetic
from planning.units import units_of
from planning.values import DAY_S, Device, Figure, Model, ModelDemand, ServingCost, Source, Way
from tests.unit.planning.plans import GIB, MACHINE, asked, cost_of, demand, whole

PUT_S, COLD_S = 2.0, 40.0


def with_ways(ways: Mapping[Way, float]) -> CostOf:
    """Costs of which these ways were measured, too."""

    def cost(model: Model, device: Device) -> ServingCost:
        known = cost_of(model, device)
        measured = {way: Figure(seconds, Source.MEASURED) for way, seconds in ways.items()}
        return replace(known, switches={**known.switches, **measured})

    return cost


def by_turns(
    models: Sequence[Model],
    demands: Sequence[ModelDemand],
    costs: CostOf = cost_of,
    rules: Rules | None = None,
) -> list[Sharing]:
    """The ways in which all of them share."""
    sharings = Sharings([MACHINE], costs, DAY_S, rules or Rules())
    return [one for one in sharings.of(units_of(models, demand(*demands))) if one.takes_turns]


def leaving(rates: Mapping[str, float]) -> Leaving:
    """Models of a shape each, or of a common one where the names begin alike."""
    found = Leaving(BY_MEMORY)
    for name, per_day in rates.items():
        model = whole(name, shape=name[0])
        (unit,) = units_of([model], demand(asked(name, per_day)))
        found.add(load_of(unit, MACHINE.device, cost_of, DAY_S))
    return found


def test_a_switch_takes_on_average_what_those_take_that_may_go() -> None:
    (unit,) = units_of([whole("a1", shape="a")], demand(asked("a1", 100)))
    load = load_of(unit, MACHINE.device, cost_of, DAY_S)
    mixed = leaving({"a1": 100, "a2": 300, "b1": 100})
    assert mixed.usual_s(load) == pytest.approx(0.75 * PUT_S + 0.25 * COLD_S)
    assert mixed.dearest_s(load) == COLD_S
    assert leaving({"a1": 100, "a2": 300}).dearest_s(load) == PUT_S


def test_a_dear_switch_that_hardly_a_request_meets_does_not_count() -> None:
    (unit,) = units_of([whole("a1", shape="a")], demand(asked("a1", 100)))
    load = load_of(unit, MACHINE.device, cost_of, DAY_S)
    assert leaving({"a1": 100, "a2": 10_000, "b1": 50}).dearest_s(load) == PUT_S
    assert leaving({"a1": 100, "a2": 10_000, "b1": 500}).dearest_s(load) == COLD_S


def test_once_the_odd_one_stays_awake_the_others_switches_are_cheap() -> None:
    models = [*(whole(f"m{i}") for i in range(6)), whole("odd", 14)]
    (one,) = by_turns(models, [asked(model.name, 40, ttft_s=10.0) for model in models])
    assert one.pinned == ("odd",)
    load = one.loads[0]
    assert "a switch takes 2 s, objective 10 s: takes turns" in why(one, load, "m0", Rules())


def test_where_every_switch_is_too_dear_nothing_takes_turns() -> None:
    models = [whole(f"m{i}", 20.0 + i) for i in range(6)]
    assert by_turns(models, [asked(model.name, 40, ttft_s=30.0) for model in models]) == []


def test_a_fork_that_was_measured_lets_models_of_different_shapes_take_turns() -> None:
    models = [whole(f"m{i}", 20.0 + i) for i in range(6)]
    demands = [asked(model.name, 40, ttft_s=30.0) for model in models]
    (one,) = by_turns(models, demands, with_ways({Way.FORK: 9.0}))
    assert one.pinned == ()
    assert not one.switches.sleeps
    assert "a switch takes 9 s" in why(one, one.loads[0], "m0", Rules())


def test_the_simulation_takes_the_ways_that_the_plan_goes_by() -> None:
    models = [whole(f"m{i}", 40.0 + i) for i in range(4)]
    demands = [asked(model.name, 1000) for model in models]
    seen = {}
    for seconds in (1.0, 20.0):
        (one,) = by_turns(models, demands, with_ways({Way.FORK: seconds}), Rules(switching=1.0))
        trace = synthetic(demand(*demands), seed=1, begin_s=0.0, duration_s=1800.0, growth=1.0)
        run = simulate(one, calls_of(trace, one), 1800.0, {each.model: each for each in demands})
        seen[seconds] = max(model.p99_s for model in run.models.values())
    assert seen[1.0] < 10 < 20 < seen[20.0]


def test_models_sleep_where_it_was_measured_how_they_wake_and_leave_room_for_it() -> None:
    models = [whole(f"m{i}", 12.0 + i) for i in range(16)]
    demands = [asked(model.name, 5) for model in models]
    wakes = {Way.WAKE1: 2.2, Way.WAKE2: 6.5}
    ways = {found.switches.sleeps: found for found in by_turns(models, demands, with_ways(wakes))}
    assert ways[True].tail_s < ways[False].tail_s
    assert ways[True].awake < ways[False].awake
    assert [pool_of(ways[sleeps], "pool", ()).sleep for sleeps in (True, False)] == [True, False]
    alike = [whole(f"m{i}") for i in range(8)]
    assert not any(one.switches.sleeps for one in by_turns(alike, demands[:8], with_ways(wakes)))


def test_without_host_memory_for_all_a_model_wakes_from_disk_and_with_slots_it_cannot() -> None:
    (unit,) = units_of([whole("a", 16)], demand(asked("a", 10)))
    load = load_of(unit, MACHINE.device, with_ways({Way.WAKE1: 2.0, Way.WAKE2: 6.0}), DAY_S)
    small = replace(MACHINE, host_memory_bytes=8 * 40 * GIB)
    assert switches_of([load] * 2, small, sleeps=True) == Switches(True, True)
    assert switches_of([load] * 3, small, sleeps=True) == Switches(False, True)
    assert Switches(True, True).of(load, same_shape=False) == 2.0
    assert Switches(False, True).of(load, same_shape=False) == 6.0
    assert Switches(False, True).of(replace(load, slots=4), same_shape=False) == COLD_S
    assert Switches().between(load, None) == COLD_S

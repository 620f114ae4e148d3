"""A plan is simulated before it is shown, and searched anew where it would miss an objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from fleet.types import Strategy
from planning import planner
from planning.forecast import Forecaster, calls_of, simulate
from planning.planner import Input, Planned, plan
from planning.search import Search
from planning.sharing import Rules, Sharing, Sharings
from planning.units import NoPlanError, units_of
from planning.values import DAY_S, Demand, Machine, Model, ModelDemand, Spread, Trace
from tests.unit.planning.plans import MACHINE, MIG_GPU, adapter, asked, cost_of, dedicated, demand, whole


def planned(
    models: Sequence[Model],
    *demands: ModelDemand,
    machine: Machine = MACHINE,
    rules: Rules | None = None,
) -> Planned:
    given = Input(demand(*demands), tuple(models), (machine,), cost_of)
    return plan(given, rules, seeds=1, most=300)


def sharings_of(models: Sequence[Model], asks: Demand, rules: Rules | None = None) -> tuple[Sharing, ...]:
    found = Sharings([MACHINE], cost_of, DAY_S, rules or Rules())
    return Search(units_of(models, asks), found).best().sharings


def test_the_plan_that_is_shown_meets_all_objectives_in_the_simulation() -> None:
    models = [whole(f"m{i}") for i in range(7)]
    found = planned(models, *(asked(m.name, 400, ttft_s=10.0) for m in models))
    assert found.meets
    assert all(run.models for forecast in found.plan.forecasts for run in forecast.runs)


def test_a_search_that_misses_an_objective_binds_the_next_one() -> None:
    models = [whole(f"m{i}", 30) for i in range(4)]
    demands = [asked(m.name, 1500, ttft_s=2.2) for m in models]
    found = planned(models, *demands)
    assert found.attempts
    assert "of its first tokens within 2.2 s" in found.attempts[0].why
    assert found.meets
    assert found.rules.awake


def test_where_no_plan_meets_all_objectives_it_says_so() -> None:
    machine = replace(MACHINE, devices=1, count=1)
    models = [whole(f"m{i}", 30) for i in range(4)]
    found = planned(models, *(asked(m.name, 1500, ttft_s=2.2) for m in models), machine=machine)
    assert not found.meets
    assert found.plan.missed


def test_a_prompt_that_alone_takes_longer_than_the_objective_is_named_with_what_can_be_met() -> None:
    with pytest.raises(
        NoPlanError, match=r"`x` is to have its first token within 0.001 s.* ask for 0\.\d+ s"
    ):
        planned([whole("x")], asked("x", 10, ttft_s=0.001))


def test_adapters_turns_and_slices_are_compared_with_a_fleet_for_each_model() -> None:
    models = [whole("base"), *(adapter(f"a{i}", "base") for i in range(5)), whole("w0"), whole("w1")]
    demands = [asked(m.name, 100) for m in models[1:]]
    ways = planned(models, *demands, machine=replace(MACHINE, device=MIG_GPU)).ways
    counts = [way[0] for way in ways.values() if not isinstance(way, str)]
    assert next(iter(ways)) == "one fleet a model"
    assert counts[0] == 7
    assert counts == sorted(counts, reverse=True)


def test_headroom_says_how_far_demand_may_grow() -> None:
    found = planned([whole("x", 30)], asked("x", 40_000, ttft_s=1.0))
    (room,) = found.headroom
    assert room.holds >= 1.0
    assert room.breaks is None or "`x`" in room.first


def test_without_objectives_headroom_is_the_load_of_the_devices() -> None:
    (room,) = planned([whole("x")], asked("x", 1_000_000)).headroom
    assert room.by_load
    assert room.breaks is not None
    assert room.breaks < 3


def test_an_objective_that_is_missed_as_it_is_holds_at_no_demand() -> None:
    rules = Rules(strategies=frozenset({Strategy.MULTI_LORA, Strategy.REPLICA_PER_MODEL}))
    box = replace(MACHINE, devices=1, count=1)
    found = planned([whole("x", 30)], asked("x", 300_000, ttft_s=0.5), machine=box, rules=rules)
    assert not found.meets
    (room,) = found.headroom
    assert (room.holds, room.breaks) == (1.0, 1.0)
    assert room.first.startswith("`x`: ")
    assert [attempt.devices for attempt in found.attempts][-1] is None


def test_a_whole_model_that_carries_adapters_is_not_counted_as_one() -> None:
    models = [
        *(whole("x"), whole("y", could_be="x", could_be_rank=8), whole("z", could_be="y", could_be_rank=8)),
        adapter("a", "z"),
    ]
    said = planned(models, asked("x", 10), asked("a", 10)).changes
    assert "if the whole models that could be adapters were: the same number of devices" in said


def test_what_would_change_the_answer_is_asked() -> None:
    models = [whole("x"), whole("y", could_be="x", could_be_rank=8)]
    said = planned(models, asked("x", 10), dedicated("y", 10)).changes
    assert any(text.startswith("if nobody were dedicated") and text.endswith("1 device") for text in said)


def test_the_second_plan_does_without_turns() -> None:
    models = [whole(f"m{i}") for i in range(6)]
    found = planned(models, *(asked(m.name, 20) for m in models))
    assert found.second is not None
    assert {sharing.strategy for sharing in found.second.found.sharings} == {Strategy.REPLICA_PER_MODEL}


def test_requests_of_a_trace_go_to_their_models_and_cached_tokens_are_not_computed() -> None:
    models = [whole("base"), adapter("a", "base")]
    asks = demand(asked("a", 10, "shop", "mill"), asked("base", 10))
    (sharing,) = sharings_of(models, asks)
    columns = [np.array(c) for c in ([0.0, 1.0, 2.0], [0, 1, 0], [100, 50, 10], [60, 0, 10], [5, 6, 7])]
    calls = calls_of(Trace(("a", "base"), *columns), sharing)
    assert [(c.tenant, c.adapter, c.prompt_tokens) for c in calls] == [
        ("shop", "a", 40),
        ("base-inc", None, 50),
        ("shop", "a", 1),
    ]


def test_a_recorded_trace_is_simulated_first_and_made_ones_after_it() -> None:
    models = [whole("x")]
    count = 400
    times = np.sort(np.random.default_rng(1).uniform(0, 3600, count))
    alike = np.full(count, 0), np.full(count, 300), np.full(count, 0), np.full(count, 100)
    asks = replace(demand(asked("x", count, hourly=(float(count),))), duration_s=3600.0)
    asks = replace(asks, trace=Trace(("x",), times, *alike))
    (sharing,) = sharings_of(models, asks)
    runs = Forecaster(asks, seeds=2).of(sharing).runs
    assert [run.length_s for run in runs] == [3600.0, 3600.0]
    recorded, made = (run.models["x"].requests for run in runs)
    assert recorded == np.count_nonzero(times >= 360.0) != made
    (cut,) = Forecaster(asks, seeds=1, most=100).of(sharing).runs
    assert 600 < cut.length_s < 1200


def test_engines_beside_each_other_keep_their_device_as_busy_as_they_together_are() -> None:
    models = [whole("x"), whole("y")]
    asks = demand(asked("x", 20_000), asked("y", 20_000))
    (sharing,) = sharings_of(models, asks)
    run = Forecaster(asks, seeds=1).of(sharing).runs[0]
    assert 0.0 < run.busy <= 1.0
    assert (run.switching, run.switches_per_h) == (0.0, 0.0)


def test_that_models_come_for_the_first_time_is_no_turn() -> None:
    rare = [whole("x"), whole("y")]
    (beside,) = sharings_of(rare, demand(asked("x", 100), asked("y", 1)))
    for run in Forecaster(demand(asked("x", 100), asked("y", 1))).of(beside).runs:
        assert (run.switching, run.switches_per_h) == (0.0, 0.0)
        assert run.length_s == 3600.0
    models = [whole(f"m{i}", 30) for i in range(4)]
    asks = demand(*(asked(m.name, 1500, ttft_s=20.0) for m in models))
    (turns,) = sharings_of(models, asks)
    run = Forecaster(asks, seeds=1).of(turns).runs[0]
    assert run.switches_per_h > 10
    assert run.switching == pytest.approx(run.switches_per_h * 2.0 / 3600, rel=0.2)


def test_a_busy_model_beside_another_does_not_wait_for_its_own_start() -> None:
    models = [whole("x", 2), whole("y", 2)]
    asks = demand(asked("x", 3_000_000, ttft_s=1.0), asked("y", 10))
    (sharing,) = sharings_of(models, asks)
    forecast = Forecaster(asks, seeds=1, most=1000).of(sharing)
    assert forecast.runs[0].length_s < 40  # a cold start takes as long
    assert forecast.misses() == {}


def test_however_often_a_model_is_asked_for_its_requests_are_simulated() -> None:
    asks = demand(asked("x", 1e9, prompt=Spread(20, 20, 20, 20, 20), completion=Spread(5, 5, 5, 5, 5)))
    (sharing,) = sharings_of([whole("x", 1)], asks)
    (run,) = Forecaster(asks, seeds=1, most=200).of(sharing, growth=5.0).runs
    assert 0 < run.models["x"].requests <= 200


def test_a_set_without_requests_has_no_figures() -> None:
    asks = demand(asked("x", 10))
    (sharing,) = sharings_of([whole("x")], asks)
    run = simulate(sharing, [], 1.0, {})
    assert run.models == {}
    assert run.busy == 0.0


def test_of_many_models_one_short_run_is_made_and_some_questions_are_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(planner, "FEW_UNITS", 3)
    models = [whole(f"m{i}") for i in range(5)]
    found = planned(models, *(asked(m.name, 20) for m in models))
    assert all(len(forecast.runs) == 1 for forecast in found.plan.forecasts)
    assert found.second is None
    assert found.changes == ()

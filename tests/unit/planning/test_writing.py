"""A plan is written as a fleet that `check` passes, and as a page that fetches nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fleet import read_fleet
from fleet.types import Isolation, Strategy
from fleet.writer import write_fleet
from planning.answer import answer_of
from planning.page import page
from planning.placing import place_all
from planning.planner import Input, Planned, plan
from planning.sharing import Rules
from planning.units import NoPlanError
from planning.values import Machine, Model, ModelDemand, Way
from planning.writing import Written, fleet_of
from tests.unit.planning.plans import MACHINE, MIG_GPU, adapter, asked, cost_of, dedicated, demand, whole
from tests.unit.planning.test_switching import with_ways

BOX = replace(MACHINE, count=1)
MIG_BOX = replace(BOX, device=MIG_GPU)
MODELS = [whole("base"), adapter("a", "base"), adapter("b", "base"), whole("x"), whole("y", 30)]
ASKED = [
    asked("a", 200, ttft_s=2.0),
    dedicated("b", 20, "mill"),
    asked("x", 30, "shop"),
    asked("y", 5, "shop"),
]


def planned(
    models: Sequence[Model] = MODELS,
    demands: Sequence[ModelDemand] = ASKED,
    *,
    machine: Machine = BOX,
    rules: Rules | None = None,
) -> Planned:
    return plan(Input(demand(*demands), tuple(models), (machine,), cost_of), rules, seeds=1, most=60)


@pytest.fixture(scope="module")
def example() -> Planned:
    return planned()


def written(found: Planned, models: Sequence[Model] = MODELS) -> Written:
    return fleet_of(place_all(found.plan.found.sharings), models, None)


def read_back(made: Written, folder: Path) -> None:
    """Write the fleet and read it as `check` does, without looking for the models' folders."""
    path = folder / "fleet.yaml"
    path.write_text(write_fleet(made.fleet, key_variables=made.key_variables))
    again = read_fleet(path, keys_needed=False, files=False).fleet
    assert again.pools == made.fleet.pools
    assert again.base_models == made.fleet.base_models


def test_the_fleet_of_a_plan_is_read_back_as_it_was_written(tmp_path: Path, example: Planned) -> None:
    made = written(example)
    read_back(made, tmp_path)
    assert made.fleet.tenants["mill"].isolation is Isolation.DEDICATED
    assert any("MILL_API_KEY" in text for text in made.todo)


def test_every_device_has_one_pool(example: Planned) -> None:
    pools = written(example).fleet.pools.values()
    devices = [device for pool in pools for device in pool.devices]
    assert len(devices) == len(set(devices)) == example.plan.found.devices


def test_slices_are_named_by_profile_where_no_other_pool_has_such_on_the_device(tmp_path: Path) -> None:
    rules = Rules(strategies=frozenset({Strategy.MULTI_LORA, Strategy.REPLICA_PER_MODEL, Strategy.MIG}))
    models = [whole("small", 1), whole("large", 14)]
    found = planned(models, [asked(m.name, 100) for m in models], machine=MIG_BOX, rules=rules)
    made = written(found, models)
    read_back(made, tmp_path)
    assert {pool.strategy for pool in made.fleet.pools.values()} == {Strategy.MIG}
    assert all(pool.mig is not None for pool in made.fleet.pools.values())


def test_slices_alike_of_two_pools_are_to_be_named_by_their_uuids(tmp_path: Path) -> None:
    rules = Rules(strategies=frozenset({Strategy.REPLICA_PER_MODEL, Strategy.MIG}))
    models = [whole("x", 1), whole("y", 1)]
    found = planned(models, [asked(m.name, 100) for m in models], machine=MIG_BOX, rules=rules)
    made = written(found, models)
    read_back(made, tmp_path)
    assert all(
        device.startswith("MIG-gpu0-") for pool in made.fleet.pools.values() for device in pool.devices
    )
    assert any("tenantry mig plan" in text for text in made.todo)


def test_with_a_fleet_of_today_its_tenants_and_settings_stay(example: Planned) -> None:
    now = written(example).fleet
    now = replace(now, gateway=replace(now.gateway, log_requests=False))
    made = fleet_of(place_all(example.plan.found.sharings), MODELS, now)
    assert made.fleet.tenants == now.tenants
    assert not made.fleet.gateway.log_requests
    assert made.key_variables == {}


def test_a_model_without_a_source_cannot_be_written() -> None:
    models = [whole("x", source="")]
    with pytest.raises(NoPlanError, match="where `x` is, is not known"):
        written(planned(models, [asked("x", 10)]), models)


def test_the_answer_is_plain_json_with_a_reason_for_every_model(example: Planned) -> None:
    answer = json.loads(json.dumps(answer_of(example)))
    assert {one["model"] for one in answer["models"]} == {"a", "b", "x", "y"}
    assert all(one["why"] for one in answer["models"])
    by_name = {one["model"]: one["why"] for one in answer["models"]}
    assert by_name["a"].endswith("adapter")
    assert by_name["b"].startswith("contract: dedicated")
    assert any("faults are not simulated" in text for text in answer["not_known"])


def test_reasons_name_the_objective_and_the_switch_of_a_model_that_stays_awake() -> None:
    models = [whole(f"m{i}") for i in range(6)]
    demands = [asked(m.name, 20, ttft_s=1.0 if m.name == "m0" else 60.0) for m in models]
    answer = answer_of(planned(models, demands))
    by_name = {one["model"]: one["why"] for one in answer["models"]}
    assert by_name["m0"] == "objective 1 s, a switch takes 2 s: stays awake"
    assert "takes turns" in by_name["m5"]


def test_a_page_fetches_nothing_and_shows_names_as_text() -> None:
    models = [whole("<script>x"), whole("y")]
    text = page(answer_of(planned(models, [asked("<script>x", 100), asked("y", 10)])))
    assert "<script" not in text
    assert "&lt;script&gt;x" in text
    assert text.count("<svg") == 3
    assert "http" not in text


def test_pools_whose_models_sleep_in_the_plan_are_written_so(tmp_path: Path) -> None:
    models = [whole(f"m{i}", 12.0 + i) for i in range(10)]
    costs = with_ways({Way.WAKE1: 2.2, Way.WAKE2: 6.5})
    given = Input(demand(*(asked(m.name, 20, ttft_s=20.0) for m in models)), tuple(models), (BOX,), costs)
    made = written(plan(given, seeds=1, most=60), models)
    read_back(made, tmp_path)
    assert any(pool.sleep for pool in made.fleet.pools.values())

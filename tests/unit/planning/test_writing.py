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
from planning.loads import ENGINE_BYTES, USABLE
from planning.naming import unique
from planning.page import page
from planning.placing import place_all
from planning.planner import Input, Planned, plan
from planning.pools import QUARTER_GIB
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


ODD = [
    *("[red]x[/red]", "acme/my model", "mödel ☃ 日本", "<script>alert(1)</script>", "a\x1b[31mb", " spaced "),
    *(
        "☃",
        "日本",
        "UPPER",
        "upper",
        "a..b",
        "../..",
        "x@2",
        "-dash-",
        "y" * 200,
        "model-mesh-1",
        "0",
        "null",
    ),
]


@pytest.mark.parametrize("is_known", [True, False], ids=["into a fleet", "without a fleet"])
@pytest.mark.parametrize("is_adapter", [True, False], ids=["adapters", "whole models"])
def test_models_and_tenants_with_odd_names_are_written_as_a_fleet_that_is_read_back(
    tmp_path: Path, is_adapter: bool, is_known: bool
) -> None:
    made = [
        replace(adapter(name, "base") if is_adapter else whole(name, 1), source=f"/models/{number}")
        for number, name in enumerate(ODD)
    ]
    asks = [asked(name, 10, name) for name in ODD] + [asked("base", 10, "operator", "a-b", "a_b", "9")]
    found = planned([whole("base", 1), *made], asks)
    now = None
    if is_known:
        now = written(planned([whole("base", 1)], asks[-1:]), [whole("base", 1)]).fleet
    fleet = fleet_of(place_all(found.plan.found.sharings), made, now)
    read_back(fleet, tmp_path)
    models = {*fleet.fleet.base_models, *fleet.fleet.adapters}
    assert len(models) == len(ODD) + 1
    assert {"upper", "model-mesh-1", "0", "null"} < models
    (told,) = [text for text in fleet.todo if "does not take all names" in text]
    assert "` spaced ` is `spaced`" in told
    if is_known:
        assert fleet.fleet.tenants == now.tenants if now is not None else False
        assert any(text.startswith("no tenant has a name yet for 0, ") for text in fleet.todo)
    else:
        assert len(fleet.fleet.tenants) == len(ODD) + 4
        assert len(set(fleet.key_variables.values())) == len(ODD) + 5
        reached = {model for tenant in fleet.fleet.tenants.values() for model in tenant.models.values()}
        assert reached == models


def test_pools_have_names_of_their_own_whatever_models_are_called() -> None:
    models = [whole(f"model-mesh-{i}", 40) for i in range(3)] + [whole(f"m{i}", 20) for i in range(6)]
    found = planned(
        models, [dedicated(m.name, 10) for m in models[:3]] + [asked(m.name, 9) for m in models[3:]]
    )
    names = [one.name for one in place_all(found.plan.found.sharings)]
    assert len(names) == len(set(names))
    assert unique(["a", "a", "a-1", "b"], ("b",)) == ["a-2", "a-3", "a-1", "b-1"]


@pytest.mark.parametrize("kinds", [("a100-80gb", "small"), ("a100-80gb", "a100-80gb")])
def test_devices_are_pinned_only_where_they_are_all_of_one_kind(
    tmp_path: Path, kinds: tuple[str, str]
) -> None:
    first, second = (
        Machine(kind, replace(BOX.device, kind=kind, memory_bytes=gib * 2**30), 1, BOX.host_memory_bytes)
        for kind, gib in zip(kinds, (80, 24), strict=True)
    )
    models = [whole("x", 40), whole("y", 8)]
    asks = demand(dedicated("x", 10, "mill"), asked("y", 10))
    if kinds[0] == kinds[1]:
        first = second = replace(first, devices=2)
    made = written(plan(Input(asks, tuple(models), (first, second), cost_of), seeds=1, most=60), models)
    read_back(made, tmp_path)
    pinned = [pool.devices for pool in made.fleet.pools.values()]
    if kinds[0] == kinds[1]:
        assert sorted(pinned) == [("0",), ("1",)]
    else:
        assert pinned == [(), ()]
        assert "devices of several kinds (a100-80gb, small): say where hosts run" in made.todo


def test_slices_that_are_there_are_to_be_named_by_their_uuids(tmp_path: Path) -> None:
    box = replace(BOX, device=replace(BOX.device, kind="h200/3g.71gb"), devices=2)
    models = [whole("x"), whole("y")]
    made = written(planned(models, [dedicated("x", 10), asked("y", 10)], machine=box), models)
    read_back(made, tmp_path)
    pinned = sorted(pool.devices for pool in made.fleet.pools.values())
    assert pinned == [("MIG-h200-3g.71gb-0",), ("MIG-h200-3g.71gb-1",)]
    assert any("for MIG-h200-3g.71gb..." in text for text in made.todo)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("gib", [(16, 20), (12, 14, 16, 18, 20, 22, 24), (30, 35, 40)])
def test_caches_of_models_that_share_a_device_fill_it_and_fit(gib: tuple[int, ...], devices: int) -> None:
    models = [whole(f"m{i}", each * devices, tensor_parallel=devices) for i, each in enumerate(gib)]
    found = planned(models, [asked(m.name, 20) for m in models])
    made = written(found, models).fleet
    (one,) = found.plan.found.sharings
    assert one.strategy is Strategy.MODEL_MESH or one.awake == 1
    room = BOX.device.memory_bytes * USABLE
    held = sorted(
        load.weight_bytes + ENGINE_BYTES + (made.base_models[load.unit.base.name].kv_cache_bytes or 0)
        for load in one.loads
    )[-one.awake :]
    assert 0.9 * room < sum(held) <= room
    for load in one.loads:
        cache = one.cache_tokens(load) * 131_072 / devices
        assert cache == pytest.approx(made.base_models[load.unit.base.name].kv_cache_bytes, abs=QUARTER_GIB)


def test_an_objective_that_a_pool_cannot_have_is_said() -> None:
    models = [whole("x"), whole("y"), whole("z")]
    made = written(planned(models, [asked("x", 10, ttft_s=2.0), asked("y", 10), asked("z", 10, ttft_s=9.0)]))
    said = (
        "a pool has one objective, `model-mesh` has none, since not all of its models have one: shorter are "
    )
    assert f"{said}`z` 9 s, `x` 2 s" in made.todo
    made = written(planned(models[:2], [asked("x", 10, ttft_s=2.0), asked("y", 10, ttft_s=9.0)]))
    assert "a pool has one objective, `model-mesh` has 9 s: shorter are `x` 2 s" in made.todo


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


def test_slots_whose_size_is_not_known_are_said() -> None:
    models = [whole("base", slot_bytes_per_rank=0), adapter("a", "base"), whole("x", slot_bytes_per_rank=0)]
    said = answer_of(planned(models, [asked("a", 10), asked("x", 10)]))["not_known"]
    assert "what an adapter's slot takes is not known of `base`: counted as nothing" in said


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

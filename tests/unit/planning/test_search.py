"""The search finds the fewest devices, and says how far from that it may be."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import pytest

from fleet.types import Isolation, Strategy
from planning.loads import peak_rate
from planning.search import Search, divided
from planning.sharing import Rules, Sharing, Sharings
from planning.units import NoPlanError, Unit, units_of
from planning.values import DAY_S, Machine, Model, ModelDemand, Served, Today
from tests.unit.planning.plans import (
    GIB,
    GPU,
    MACHINE,
    MIG_GPU,
    adapter,
    asked,
    cost_of,
    dedicated,
    demand,
    whole,
)

SIZES = (8.0, 16.0, 30.0)
MIG_MACHINE = replace(MACHINE, device=MIG_GPU)


def search(
    models: Sequence[Model],
    demands: Sequence[ModelDemand],
    *,
    machine: Machine = MACHINE,
    rules: Rules | None = None,
    today: Today | None = None,
) -> Search:
    units = units_of(models, demand(*demands))
    return Search(units, Sharings([machine], cost_of, DAY_S, rules or Rules()), today)


def divisions(units: Sequence[Unit]) -> Iterator[list[list[Unit]]]:
    """Every division of units into sets."""
    if not units:
        yield []
        return
    first, *others = units
    for division in divisions(others):
        yield [[first], *division]
        for index in range(len(division)):
            yield [*division[:index], [first, *division[index]], *division[index + 1 :]]


def by_brute_force(units: Sequence[Unit], machine: Machine) -> float:
    """The fewest devices of all divisions and all ways of each set."""
    sharings, least = Sharings([machine], cost_of, DAY_S, Rules()), float("inf")
    scores = Search(units, sharings)
    for division in divisions(units):
        for chosen in product(*(sharings.of(members) for members in division)):
            least = min(least, scores.score(chosen)[0])
    return least


def an_instance(seed: int, most: int) -> tuple[list[Model], list[ModelDemand]]:
    """Some whole models and adapters, busy and idle, tight and loose, shared, grouped and dedicated."""
    chance = random.Random(seed)
    models, demands = [], []
    for index in range(chance.randint(2, most)):
        name = f"m{index}"
        models.append(whole(name, chance.choice(SIZES)))
        changes = {
            "ttft_s": chance.choice([None, None, 1.0, 10.0]),
            "group": chance.choice(["", "", "", "eu"]),
        }
        if chance.random() < 0.15:
            changes = {"isolation": Isolation.DEDICATED}
        demands.append(asked(name, 10 ** chance.uniform(2, 6), **changes))
        if chance.random() < 0.3:
            models.append(adapter(f"{name}-a", name))
            demands.append(asked(f"{name}-a", 10 ** chance.uniform(2, 4), **changes))
    return models, demands


@pytest.mark.parametrize("seed", range(30))
def test_no_division_has_fewer_devices(seed: int) -> None:
    machine, most = (MIG_MACHINE, 4) if seed % 3 == 0 else (MACHINE, 7)
    models, demands = an_instance(seed, most)
    found = search(models, demands, machine=machine).best()
    assert found.is_exact
    assert found.gap == 0
    assert found.score[0] == pytest.approx(by_brute_force(units_of(models, demand(*demands)), machine))
    assert found.bound <= found.devices


def test_the_bound_is_below_what_is_found_where_not_every_division_is_looked_at() -> None:
    models = [whole(f"m{i}") for i in range(40)]
    found = search(models, [asked(m.name, 2000) for m in models]).best()
    assert not found.is_exact
    assert 1 <= found.bound <= found.devices
    assert found.gap == found.devices - found.bound
    assert found.devices < 40


def test_adapters_cost_next_to_nothing_beside_their_base() -> None:
    names = [f"a{i}" for i in range(40)]
    models = [whole("base"), *(adapter(name, "base") for name in names)]
    found = search(models, [asked(name, 100) for name in names]).best()
    assert found.devices == 1
    assert found.sharings[0].strategy is Strategy.MULTI_LORA


def test_a_dedicated_tenant_shares_no_device() -> None:
    models = [whole("base"), adapter("a", "base"), adapter("b", "base")]
    found = search(models, [asked("a", 100), dedicated("b", 100)]).best()
    assert found.devices == 2
    assert {sharing.circle for sharing in found.sharings} == {"", "tenant b-inc"}


def test_groups_share_no_device() -> None:
    models = [whole("x", 8), whole("y", 8), whole("z", 8)]
    demands = [asked("x", 10, group="eu"), asked("y", 10, group="us"), asked("z", 10, group="eu")]
    found = search(models, demands).best()
    assert sorted(len(sharing.units) for sharing in found.sharings) == [1, 2]


def test_models_that_fit_beside_each_other_take_no_turns() -> None:
    found = search([whole("x"), whole("y")], [asked("x", 100), asked("y", 100)]).best()
    assert [(s.strategy, s.awake, s.takes_turns) for s in found.sharings] == [(Strategy.MODEL_MESH, 2, False)]


def test_models_that_do_not_fit_take_turns_and_a_tight_objective_stays_awake() -> None:
    models = [whole(f"m{i}") for i in range(6)]
    demands = [asked(m.name, 50, ttft_s=1.0 if m.name == "m0" else 60.0) for m in models]
    (sharing,) = search(models, demands).best().sharings
    assert sharing.takes_turns
    assert sharing.pinned == ("m0",)
    assert sharing.awake < 6


def test_busy_models_take_no_turns_with_each_other() -> None:
    models = [whole(f"m{i}", 40) for i in range(3)]
    found = search(models, [asked(m.name, 100_000) for m in models]).best()
    assert not any(sharing.takes_turns for sharing in found.sharings)


def test_more_load_than_a_device_bears_needs_copies() -> None:
    (sharing,) = search([whole("x")], [asked("x", 3_000_000)]).best().sharings
    assert sharing.strategy is Strategy.REPLICA_PER_MODEL
    assert sharing.hosts > 1
    assert sharing.busy <= 0.7


@pytest.mark.parametrize("per_day", [3_000_000, 30_000_000])
@pytest.mark.parametrize("gib", [1, 16, 40])
def test_a_model_that_one_engine_can_serve_fits_however_often_it_is_asked_for(
    gib: float, per_day: float
) -> None:
    (sharing,) = search([whole("x", gib)], [asked("x", per_day)]).best().sharings
    (load,) = sharing.loads
    assert sharing.hosts == math.ceil(load.load / 0.7)
    assert load.need_bytes <= 0.9 * MACHINE.device.memory_bytes


def test_an_hour_that_has_only_just_begun_is_not_the_busiest() -> None:
    begun = asked("x", 240, hourly=(10.0,) * 24 + (5.0,))
    assert peak_rate(begun, DAY_S + 60) == pytest.approx(5 / 900)
    assert peak_rate(replace(begun, hourly=(5.0,)), 60.0) == pytest.approx(5 / 60)


def test_slices_pack_where_models_are_small_and_must_not_share_an_engine() -> None:
    rules = Rules(strategies=frozenset({Strategy.MULTI_LORA, Strategy.REPLICA_PER_MODEL, Strategy.MIG}))
    models = [whole(f"m{i}", 1) for i in range(6)]
    found = search(models, [asked(m.name, 100) for m in models], machine=MIG_MACHINE, rules=rules).best()
    assert found.devices == 1
    assert {sharing.strategy for sharing in found.sharings} == {Strategy.MIG}


def test_slices_of_a_device_are_counted_by_a_legal_layout() -> None:
    assert divided(MIG_GPU, (("1g.10gb", 7),)) == 1
    assert divided(MIG_GPU, (("4g.40gb", 2),)) == 2
    assert divided(MIG_GPU, (("3g.40gb", 2), ("1g.10gb", 1))) == 2


def test_of_equal_plans_the_one_with_fewer_moves_is_taken() -> None:
    models = [whole("x"), whole("y")]
    now = {m.name: (Served(m.name, m.name, Strategy.REPLICA_PER_MODEL, 1),) for m in models}
    busy = [asked(m.name, 600_000) for m in models]
    found = search(models, busy, today=Today(now, 2)).best()
    assert found.score[2] == 0
    assert {sharing.strategy for sharing in found.sharings} == {Strategy.REPLICA_PER_MODEL}


def test_a_model_that_fits_no_device_is_named_with_its_size() -> None:
    with pytest.raises(
        NoPlanError, match=r"`large` needs 2\d\d\.\d GiB .* largest device given is a100-80gb"
    ):
        search([whole("large", 200)], [asked("large", 10)]).best()


def test_too_few_devices_are_named() -> None:
    machine = replace(MACHINE, devices=1, count=1)
    models = [whole("x"), whole("y")]
    with pytest.raises(NoPlanError, match="need 2 devices a100-80gb, and there are 1"):
        search(models, [asked("x", 10), dedicated("y", 10)], machine=machine).best()


SMALL_GPU = replace(GPU, kind="small", memory_bytes=24 * GIB)


@pytest.mark.parametrize("small_price", [None, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("order", [1, -1])
def test_where_a_kind_is_too_few_another_one_is_used(small_price: float | None, order: int) -> None:
    large = replace(MACHINE, devices=1, count=1)
    small = replace(large, device=replace(SMALL_GPU, price_per_hour=small_price))
    models = [whole("x", 40), whole("y", 8)]
    units = units_of(models, demand(asked("x", 10), dedicated("y", 10)))
    found = Search(units, Sharings([large, small][::order], cost_of, DAY_S, Rules())).best()
    assert {s.loads[0].unit.base.name: s.machine.device.kind for s in found.sharings} == {
        "x": "a100-80gb",
        "y": "small",
    }
    assert found.money_per_hour == (None if small_price is None else 2.0 + small_price)
    assert found.score[0] == (2.0 if small_price is None else 2.0 + small_price)


def test_machines_of_one_kind_are_counted_together() -> None:
    one = replace(MACHINE, devices=1, count=1)
    units = units_of([whole("x"), whole("y")], demand(asked("x", 10), dedicated("y", 10)))
    assert Search(units, Sharings([one, one], cost_of, DAY_S, Rules())).best().devices == 2
    with pytest.raises(NoPlanError, match="need 2 devices a100-80gb, and there are 1"):
        Search(units, Sharings([one], cost_of, DAY_S, Rules())).best()


def test_a_model_may_be_spread_over_devices() -> None:
    (sharing,) = search([whole("x", 120, tensor_parallel=2)], [asked("x", 10)]).best().sharings
    assert sharing.whole_devices == 2


def test_hundreds_of_models_take_seconds() -> None:
    models = [whole(f"m{i}", SIZES[i % 3]) for i in range(200)]
    demands = [asked(m.name, 20 + i % 50) for i, m in enumerate(models)]
    begun_s = time.process_time()
    found = search(models, demands).best()
    assert time.process_time() - begun_s < 10
    assert found.bound <= found.devices < 100


def test_memory_of_sleepers_on_the_host_decides_what_a_switch_takes() -> None:
    models = [whole(f"m{i}") for i in range(8)]
    demands = [asked(m.name, 50, ttft_s=5.0) for m in models]

    def pinned(host_gib: int) -> list[Sharing]:
        machine = replace(MACHINE, host_memory_bytes=host_gib * GIB)
        return [s for s in search(models, demands, machine=machine).best().sharings if s.takes_turns]

    assert pinned(1024)  # from host memory: 2 s
    assert not pinned(16)  # from disk: 8 s, more than the objective


def test_the_devices_of_a_plan_are_priced() -> None:
    found = search([whole("x"), whole("y")], [asked("x", 10), dedicated("y", 10)]).best()
    assert found.money_per_hour == 2 * (GPU.price_per_hour or 0.0)

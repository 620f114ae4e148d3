"""What stays together and what stays apart; and what contradicts itself is named."""

from __future__ import annotations

import pytest

from planning.units import NoPlanError, units_of
from planning.values import Model
from tests.unit.planning.plans import adapter, asked, dedicated, demand, whole

BASE = [whole("base"), adapter("a", "base"), adapter("b", "base")]


def test_adapters_are_one_unit_with_their_base() -> None:
    (unit,) = units_of(
        BASE, demand(asked("a", 10, ttft_s=3.0), asked("b", 10, ttft_s=1.0), asked("base", 10))
    )
    assert unit.models == ("a", "b", "base")
    assert [one.name for one in unit.adapters] == ["a", "b"]
    assert unit.ttft_s == 1.0


def test_a_dedicated_tenants_adapter_has_a_copy_of_its_base() -> None:
    units = units_of(BASE, demand(asked("a", 10), dedicated("b", 10, "shop")))
    assert [unit.name for unit in units] == ["base", "base for tenant shop"]


def test_models_that_nobody_asks_for_count_with_a_request_a_day() -> None:
    models = [whole("x"), whole("y")]
    units = units_of([*models, whole("z")], demand(asked("x", 0), asked("z", 10)))
    assert [(unit.name, unit.demands[0].requests) for unit in units] == [("x", 1.0), ("y", 1.0), ("z", 10)]


def test_a_base_model_that_only_carries_adapters_needs_no_demand() -> None:
    (unit,) = units_of(BASE[:2], demand(asked("a", 10)))
    assert unit.models == ("a",)


def test_a_model_that_is_not_described_is_named() -> None:
    with pytest.raises(NoPlanError, match="`z` is asked for, and no model is called so"):
        units_of(BASE, demand(asked("z", 10)))


@pytest.mark.parametrize(
    ("models", "wrong"),
    [
        ([adapter("a", "gone")], "`a` is an adapter of `gone`, which is not described"),
        ([whole("x", could_be="gone")], "`x` could be an adapter of `gone`, which is not described"),
        ([adapter("a", "a")], "`a` is an adapter of `a`, which is no other whole model"),
        ([whole("x", could_be="x")], "`x` could be an adapter of `x`, which is no other whole model"),
        ([*BASE, adapter("c", "a")], "`c` is an adapter of `a`, which is no other whole model"),
        ([*BASE, whole("x", could_be="a")], "`x` could be an adapter of `a`, which is no other whole model"),
    ],
)
@pytest.mark.parametrize("is_asked_for", [True, False])
def test_what_is_no_adapter_of_a_whole_model_that_is_described_is_named(
    models: list[Model], wrong: str, is_asked_for: bool
) -> None:
    model = models[-1].name if is_asked_for else "y"
    with pytest.raises(NoPlanError, match=wrong):
        units_of([*models, whole("y")], demand(asked(model, 10)))


def test_a_demand_without_requests_is_no_demand() -> None:
    with pytest.raises(NoPlanError, match="nobody asks for any model"):
        units_of([whole("x")], demand(asked("x", 0)))


def test_a_dedicated_model_of_two_tenants_is_a_contradiction() -> None:
    with pytest.raises(NoPlanError, match="`x` is dedicated, and shop and mill ask for it"):
        units_of([whole("x")], demand(dedicated("x", 10, "shop", "mill")))


def test_a_tenant_that_is_dedicated_with_one_model_only_is_a_contradiction() -> None:
    models = [whole("x"), whole("y")]
    with pytest.raises(NoPlanError, match="tenant `shop` is dedicated with `x` and not with `y`"):
        units_of(models, demand(dedicated("x", 10, "shop"), asked("y", 10, "shop")))

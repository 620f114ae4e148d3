"""What counts where a tenant is declared and changed at run time? Is a change checked as a file is?"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet import read_fleet
from fleet.changes import NOT_DECLARED, Amended, set_values, with_changes
from fleet.entries import flat, nested, overlaid
from fleet.tenant_change import TenantChange
from fleet.types import Band, Budget, Fleet, Isolation
from fleet.writer import write_fleet
from tests.fakes import small_fleet, without_tenant

FLEET = small_fleet()
NEW = TenantChange("d", revision=1, admitted=True)
CHAT = {"models.chat": "base", "pools": ["shared"]}


def amended(*changes: TenantChange, declared: Fleet = FLEET) -> Amended:
    return with_changes(declared, {change.tenant: change for change in changes})


def change(tenant: str, /, admitted: bool = False, **values: Any) -> TenantChange:
    paths = {path.replace("__", "."): value for path, value in values.items()}
    return set_values(TenantChange(tenant, revision=1, admitted=admitted), paths, 5.0, "key k1")


def test_without_changes_the_fleet_is_the_declared_one() -> None:
    assert amended().fleet == FLEET


def test_what_was_set_wins_value_by_value_and_the_rest_stays_declared() -> None:
    tenant = amended(change("a", weight=2.0, caps__requests_per_minute=7)).fleet.tenants["a"]
    assert (tenant.weight, tenant.caps.requests_per_minute) == (2.0, 7)
    assert tenant.caps.max_queued == FLEET.tenants["a"].caps.max_queued
    assert tenant.models == FLEET.tenants["a"].models
    assert tenant.key_hashes == FLEET.tenants["a"].key_hashes


def test_a_tenant_that_was_admitted_is_on_its_pool() -> None:
    found = amended(set_values(NEW, CHAT, 1.0, "key k1"))
    assert found.unfit == {}
    assert found.fleet.tenants["d"].models == {"chat": "base"}
    assert found.fleet.pools["shared"].tenants == ("a", "b", "d")


def test_a_tenant_that_was_removed_stays_removed_whatever_is_declared() -> None:
    removed = replace(TenantChange("b"), removed=True)
    assert amended(removed).fleet == without_tenant(FLEET, "b")
    declared = replace(FLEET, tenants=FLEET.tenants | {"b": replace(FLEET.tenants["b"], weight=9.0)})
    assert "b" not in amended(removed, declared=declared).fleet.tenants


def test_a_tenant_that_is_declared_later_gets_what_was_not_set() -> None:
    mine = set_values(NEW, CHAT | {"weight": 3.0}, 1.0, "key k1")
    later = replace(FLEET.tenants["b"], name="d", weight=5.0, band=Band.LOW)
    pools = FLEET.pools | {"shared": replace(FLEET.pools["shared"], tenants=("a", "b", "d"))}
    declared = replace(FLEET, tenants=FLEET.tenants | {"d": later}, pools=pools)
    found = amended(mine, declared=declared).fleet.tenants["d"]
    assert (found.weight, found.band) == (3.0, Band.LOW)
    assert found.models == {"support": "b-support", "chat": "base"}
    assert found.key_hashes == later.key_hashes


def test_a_tenant_that_was_admitted_anew_takes_nothing_of_the_declared_one() -> None:
    mine = replace(set_values(NEW, CHAT, 1.0, "k"), tenant="b", apart=True, generation=1)
    found = amended(mine).fleet.tenants["b"]
    assert (found.key_hashes, found.models, found.band) == (frozenset(), {"chat": "base"}, Band.STANDARD)
    assert found.account == "b#1"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (
            {"models.chat": "bse"},
            "tenants.d.models.chat: no adapter or base model is called `bse`; did you mean",
        ),
        ({"weight": -1.0}, "tenants.d.weight: must be greater than 0"),
        ({"weight": "2"}, "tenants.d.weight: must be a number"),
        ({"priority": "urgent"}, "tenants.d.priority: `urgent` is not one of"),
        ({"caps.max_queued": -1}, "tenants.d.caps.max_queued: must be greater than or equal to 0"),
        ({"caps.rpm": 1}, "tenants.d.caps.rpm: unknown key `rpm`"),
        ({"colour": "red"}, "tenants.d.colour: unknown key `colour`"),
        ({"budget.monthly_tokens": 0}, "tenants.d.budget.monthly_tokens: must be greater than or equal to 1"),
        ({"adapter_sources": ["nowhere"]}, "tenants.d.adapter_sources[0]: "),
        ({"pools": ["shred"]}, "tenants.d.pools[0]: no pool is called `shred`; did you mean `shared`?"),
        ({"pools": []}, "tenants.d.models.chat: tenant `d` is on no pool"),
        ({"pools": ["shared", "alone"]}, "pools `shared` and `alone` both serve `base`"),
        ({"pools": ["alone"]}, "tenant `c` is dedicated and shares this pool with `d`"),
        ({"isolation": "dedicated"}, "tenant `d` is dedicated and shares this pool with `a`, `b`"),
        ({"default_model": "other"}, "tenants.d.default_model: `other` is not one of this tenant's models"),
        ({"models.base": "a-support"}, "the alias `base` is also the name of a model this tenant may use"),
    ],
)
def test_a_change_is_refused_in_the_words_of_a_fleet_file(values: dict[str, Any], problem: str) -> None:
    mine = set_values(NEW, CHAT | values, 1.0, "key k1")
    for found in (amended(mine), amended().with_change(mine)):
        assert any(problem in each for each in found.unfit["d"]), found.unfit
        assert found.fleet == FLEET


def test_every_problem_is_told() -> None:
    mine = change("a", weight=-1.0, priority="urgent", caps__max_queued=-1)
    assert len(amended(mine).unfit["a"]) == 3


def test_a_change_that_no_longer_fits_is_kept_and_counts_again_when_it_does() -> None:
    mine = set_values(NEW, CHAT, 1.0, "key k1")
    bases = {"other": replace(FLEET.base_models["base"], name="other")}
    without = replace(
        FLEET,
        base_models=bases,
        adapters={name: replace(each, base_model="other") for name, each in FLEET.adapters.items()},
        tenants={n: t for n, t in FLEET.tenants.items() if n != "a"},
        pools={
            n: replace(p, base_models=("other",), tenants=tuple(t for t in p.tenants if t != "a"))
            for n, p in FLEET.pools.items()
        },
    )
    found = amended(mine, declared=without)
    assert "no adapter or base model is called `base`" in found.unfit["d"][0]
    assert found.fleet == without and found.changes["d"] is mine
    assert "d" in with_changes(FLEET, found.changes).fleet.tenants


def test_a_suspended_tenant_stays_suspended_where_the_rest_of_its_change_does_not_fit() -> None:
    found = amended(change("a", suspended=True, models__x="nothing")).fleet.tenants["a"]
    assert found.suspended and found.models == FLEET.tenants["a"].models


def test_a_change_of_a_tenant_that_is_declared_no_more_is_told() -> None:
    found = amended(change("b", weight=2.0), declared=without_tenant(FLEET, "b"))
    assert found.unfit == {"b": (NOT_DECLARED,)}


def test_who_leaves_a_pool_makes_room_for_who_must_be_alone() -> None:
    mine = change("d", admitted=True, models__chat="base", pools=["alone"], isolation="dedicated")
    assert amended(mine).unfit.keys() == {"d"}
    gone = replace(TenantChange("c", revision=1), removed=True)
    for found in (amended(mine, gone), amended(mine).with_change(gone)):
        assert found.unfit == {}
        assert found.fleet.pools["alone"].tenants == ("d",)
        assert found.fleet.tenants["d"].isolation is Isolation.DEDICATED


def test_a_budget_is_set_and_taken_away_as_a_whole() -> None:
    declared = replace(FLEET, tenants=FLEET.tenants | {"a": replace(FLEET.tenants["a"], budget=Budget(9))})
    found = amended(change("a", budget=None), declared=declared).fleet.tenants["a"]
    assert found.budget is None
    again = set_values(change("a", budget=None), {"budget.monthly_tokens": 5}, 1.0, "k")
    assert amended(again, declared=declared).fleet.tenants["a"].budget == Budget(5)


VALUES = st.fixed_dictionaries(
    {},
    optional={
        "weight": st.floats(0.1, 100),
        "priority": st.sampled_from(["high", "standard", "low"]),
        "caps.requests_per_minute": st.none() | st.integers(1, 1000),
        "caps.max_queued": st.integers(0, 100),
        "budget.monthly_tokens": st.integers(1, 10**9),
        "suspended": st.booleans(),
        "models.x.y": st.sampled_from(["base", "a-support"]),
        "pools": st.sampled_from([["shared"], ["alone"], []]),
        "isolation": st.sampled_from(["shared", "dedicated"]),
    },
)
CHANGES = st.lists(
    st.builds(
        lambda name, values, admitted, removed: replace(
            set_values(TenantChange(name, revision=1, admitted=admitted), values, 1.0, "k"), removed=removed
        ),
        st.sampled_from(["a", "b", "c", "d", "e"]),
        VALUES,
        st.booleans(),
        st.sampled_from([False, False, False, True]),
    ),
    max_size=6,
)


@given(CHANGES)
@settings(deadline=None, max_examples=150)
def test_one_change_after_the_other_leads_where_all_at_once_do(changes: list[TenantChange]) -> None:
    step = amended()
    for each in changes:
        step = step.with_change(each)
    whole = with_changes(FLEET, step.changes)
    assert (step.fleet.tenants, step.unfit.keys()) == (whole.fleet.tenants, whole.unfit.keys())
    for name, pool in whole.fleet.pools.items():
        assert {*step.fleet.pools[name].tenants} == {*pool.tenants}
        assert all(tenant in whole.fleet.tenants for tenant in pool.tenants)


@given(CHANGES)
@settings(deadline=None, max_examples=60)
def test_the_present_fleet_written_down_loads_as_the_same(changes: list[TenantChange]) -> None:
    present = with_changes(FLEET, {each.tenant: each for each in changes}).fleet
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fleet.yaml"
        path.write_text(write_fleet(present, key_variables={}))
        again = read_fleet(path, env={}).fleet
    for part in ("base_models", "adapters", "tenants", "pools", "gateway", "usage"):
        assert getattr(again, part) == getattr(present, part)


@given(VALUES, VALUES)
def test_values_are_told_by_path_and_put_together_again(below: dict[str, Any], above: dict[str, Any]) -> None:
    whole = overlaid(below, above)
    assert flat(nested(whole)) == whole
    assert {path: whole[path] for path in above} == above


def test_one_change_among_ten_thousand_tenants_does_not_look_at_all_of_them() -> None:
    mine = set_values(NEW, CHAT, 1.0, "k")
    many = {f"t{i}": replace(mine, tenant=f"t{i}") for i in range(10_000)}
    whole = with_changes(FLEET, many)
    assert len(whole.fleet.tenants) == 10_003
    began_s = time.perf_counter()
    found = whole.with_change(set_values(many["t7"], {"weight": 2.0}, 2.0, "k"))
    assert time.perf_counter() - began_s < 0.5, "some 3 ms on an idle machine"
    assert found.fleet.tenants["t7"].weight == 2.0
    assert found.fleet.tenants["t8"] is whole.fleet.tenants["t8"]

"""Which adapters would another fleet leave without an engine that can hold them?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from adapters.states import VersionState
from fleet.types import Fleet
from routing.catalog.entries import AdapterEntry, AdapterKey, Rollout, RolloutPlan
from routing.lifecycle.fitting import why_unfit
from tests.fakes import entry_of, small_fleet, version_of, without_tenant

FLEET = small_fleet()
OWN = entry_of("own", tenant="a")  # rank 8, of base model `base`


def with_model(**values: Any) -> Fleet:
    """The fleet with another base model."""
    return replace(FLEET, base_models={"base": replace(FLEET.base_models["base"], **values)})


def rolled_out(entry: AdapterEntry) -> AdapterEntry:
    """The adapter while its second version is rolled out."""
    versions = (*entry.versions, version_of(entry.key, 2))
    return replace(entry, versions=versions, rollout=Rollout(2, RolloutPlan()))


def without_shared(fleet: Fleet) -> Fleet:
    return replace(fleet, pools={"alone": fleet.pools["alone"]})


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (FLEET, None),
        (with_model(max_lora_rank=8, max_loras=1), None),
        (with_model(max_lora_rank=1), "adapter a/own: it has rank 8, and max_lora_rank of `base` would be 1"),
        (with_model(max_loras=0), "adapter a/own: base model `base` would have no slots; retire it first"),
        (replace(FLEET, base_models={}), "adapter a/own: its base model `base` would be removed"),
    ],
)
def test_a_tenant_s_own_adapter_is_named_where_no_engine_could_hold_it(
    after: Fleet, words: str | None
) -> None:
    reasons = why_unfit([OWN], FLEET, after)
    assert len(reasons) == int(words is not None)
    assert words is None or words in reasons[0]


def test_what_was_so_before_is_no_reason_against_another_change() -> None:
    narrow = with_model(max_lora_rank=1)
    assert why_unfit([OWN], narrow, replace(narrow, pools={})) == []
    assert why_unfit([OWN], replace(FLEET, base_models={}), replace(FLEET, base_models={})) == []


def test_a_version_that_does_not_answer_has_no_say() -> None:
    for state in (VersionState.RETIRED, VersionState.QUARANTINED):
        key = AdapterKey("a", "own")
        entry = entry_of("own", tenant="a", versions=[version_of(key, state=state)], live=None)
        assert why_unfit([entry], FLEET, with_model(max_lora_rank=1)) == []
    retired = replace(OWN, versions=tuple(replace(v, state=VersionState.RETIRED) for v in OWN.versions))
    assert why_unfit([retired], FLEET, replace(FLEET, base_models={})) == []


def test_a_declared_adapter_goes_with_its_declaration_and_moves_with_it() -> None:
    entry = entry_of("a-sales")
    gone = replace(FLEET, adapters={}, base_models={})
    assert why_unfit([entry], FLEET, gone) == []
    other = replace(FLEET.base_models["base"], name="other", max_lora_rank=1)
    moved = replace(
        FLEET,
        base_models={"other": other},
        adapters={"a-sales": replace(FLEET.adapters["a-sales"], base_model="other")},
    )
    (reason,) = why_unfit([entry], FLEET, moved)
    assert reason == "adapter a-sales: it has rank 8, and max_lora_rank of `other` would be 1"


@pytest.mark.parametrize("entry", [rolled_out(OWN), rolled_out(entry_of("a-sales"))], ids=["own", "declared"])
def test_a_rollout_keeps_the_pool_that_it_needs(entry: AdapterEntry) -> None:
    (reason,) = why_unfit([entry], FLEET, without_shared(FLEET))
    assert "version 2 is being rolled out, and no pool would serve it; roll it back first" in reason
    moved = without_shared(FLEET)
    alone = replace(moved.pools["alone"], tenants=("a", "c"))
    assert why_unfit([entry], FLEET, replace(moved, pools={"alone": alone})) == [], "it goes on there"
    assert why_unfit([replace(entry, rollout=None)], FLEET, without_shared(FLEET)) == []


def test_the_adapters_of_a_tenant_that_is_removed_too_keep_nothing() -> None:
    smaller = without_tenant(FLEET, "a")
    assert why_unfit([rolled_out(OWN)], FLEET, smaller) == []
    assert why_unfit([OWN], FLEET, replace(smaller, base_models={}, pools={})) == []

"""Is all that another declared fleet leaves without a place named, and nothing else?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fleet.changes import Amended, set_values, with_changes
from fleet.current import CurrentFleet
from fleet.money import OwnPrices, Prices
from fleet.tenant_change import TenantChange
from fleet.types import Budget, Fleet, Pool, Strategy, Tenant
from routing.catalog.directory import Directory
from routing.catalog.entries import Alias, ApiKey, KeyRole
from routing.lifecycle.consequences import consequences, oddities
from tests.fakes import entry_of, small_fleet, without_tenant

FLEET = small_fleet()
ELSEWHERE = Pool("elsewhere", Strategy.MULTI_LORA, ("other",), 1, (), ("a",))


def with_tenant(fleet: Fleet = FLEET, name: str = "a", **changes: Any) -> Fleet:
    return replace(fleet, tenants=fleet.tenants | {name: replace(fleet.tenants[name], **changes)})


def change(tenant: str, values: dict[str, Any], **fields: Any) -> TenantChange:
    return set_values(TenantChange(tenant, revision=1, **fields), values, 5.0, "key k1")


def told(
    after: Fleet, *changes: TenantChange, aliases: tuple[Alias, ...] = (), before: Fleet = FLEET
) -> list[str]:
    """What is said where tenant a has an adapter `own`, and b a key, an adapter and these aliases."""
    by_name = {each.tenant: each for each in changes}
    present = with_changes(before, by_name)
    directory = Directory(CurrentFleet(present.fleet))
    for name in FLEET.adapters:
        directory.put(entry_of(name))
    directory.put(entry_of("own", tenant="a"))
    directory.put(entry_of("bs", tenant="b"))
    directory.put_key(ApiKey("1", "t1", "0" * 64, KeyRole.INFERENCE, "b"))
    directory.put_key(ApiKey("2", "t2", "1" * 64, KeyRole.INFERENCE, "b", revoked_s=2.0))
    for alias in aliases:
        directory.put_alias(alias)
    return consequences(present, with_changes(after, by_name), directory)


def alias(model: str, tenant: str = "a") -> Alias:
    return Alias(tenant, "latest", model, 1.0, "key k1")


def test_what_still_fits_is_not_named() -> None:
    changes = (
        change("a", {"weight": 2.0}),
        change("d", {"models.chat": "base", "pools": ["shared"]}, admitted=True),
    )
    found = (alias("own"), alias("b-support", "b"))
    assert told(FLEET, *changes, aliases=found) == []
    assert told(with_tenant(suspended=True), *changes, aliases=found) == []


@pytest.mark.parametrize(
    ("values", "fields", "served"),
    [
        ({"models.chat": "b-support"}, {}, "it is as declared"),
        ({"models.chat": "b-support", "suspended": True}, {}, "it is as declared, and stays suspended"),
    ],
)
def test_a_change_that_names_an_adapter_which_is_dropped_is_named_with_what_counts_then(
    values: dict[str, Any], fields: dict[str, Any], served: str
) -> None:
    adapters = {name: each for name, each in FLEET.adapters.items() if name != "b-support"}
    after = replace(with_tenant(name="b", models={"plain": "base"}, default_model=None), adapters=adapters)
    (text,) = told(after, change("a", values, **fields))
    assert text.startswith(
        f"tenant a: what was set at run time is not applied, {served}: tenants.a.models.chat:"
    )


def test_an_admitted_tenant_whose_pool_is_gone_opens_nothing() -> None:
    fewer = replace(FLEET, pools={"shared": FLEET.pools["shared"]})
    admitted = change("d", {"models.chat": "base", "pools": ["alone"]}, admitted=True)
    before = without_tenant(FLEET, "c")
    (text,) = told(without_tenant(fewer, "c"), admitted, before=before)
    assert text.startswith("tenant d: what was set at run time is not applied, its keys open nothing: ")
    assert "alone" in text


def test_a_change_that_fits_again_is_named() -> None:
    admitted = change("d", {"models.chat": "base", "pools": ["alone"]}, admitted=True)
    fewer = without_tenant(replace(FLEET, pools={"shared": FLEET.pools["shared"]}), "c")
    assert told(without_tenant(FLEET, "c"), admitted, before=fewer) == [
        "tenant d: what was set at run time fits again, and counts"
    ]


def test_a_tenant_that_goes_leaves_keys_adapters_and_aliases_behind() -> None:
    assert told(without_tenant(FLEET, "b"), aliases=(alias("bs", "b"),)) == [
        "tenant b: what was made at run time counts for nothing while the tenant is gone: "
        "1 key, 1 adapter, 1 alias"
    ]
    assert told(without_tenant(FLEET, "c")) == []


@pytest.mark.parametrize(
    ("changes", "model", "words"),
    [
        (
            {"models": {"plain": "base"}},
            "sales",
            "its alias latest leads nowhere: adapter a-sales can no longer",
        ),
        (
            {"models": {"support": "a-support"}},
            "plain",
            "its alias latest leads nowhere: base model base can no",
        ),
        (
            {"models": {"latest": "a-support"}},
            "own",
            "its alias latest is hidden: the name means adapter a-support",
        ),
        (
            {"models": {"own": "base"}},
            "support",
            "its adapter own is hidden: the name means base model base now",
        ),
    ],
)
def test_an_alias_or_adapter_that_leads_elsewhere_is_named(
    changes: dict[str, Any], model: str, words: str
) -> None:
    after = with_tenant(default_model=None, **changes)
    found = [text for text in told(after, aliases=(alias(model),)) if words in text]
    assert len(found) == 1 and found[0].startswith("tenant a: ")


def test_an_own_adapter_whose_base_model_the_tenant_loses_is_named() -> None:
    other = replace(FLEET.base_models["base"], name="other")
    after = with_tenant(models={"plain": "other"}, default_model="plain")
    pools = FLEET.pools | {"shared": replace(FLEET.pools["shared"], tenants=("b",)), "elsewhere": ELSEWHERE}
    after = replace(after, base_models=FLEET.base_models | {"other": other}, pools=pools)
    assert told(after) == [
        "tenant a: its adapter own answers nothing: no pool of the tenant has base model base any more"
    ]


def test_a_value_that_the_file_changes_in_vain_is_named() -> None:
    assert told(with_tenant(weight=3.0, suspended=True), change("a", {"weight": 2.0})) == [
        "tenant a: weight 1 -> 3 does not count: another value was set at run time by key k1"
    ]


VAIN = "does not count: another value was set at run time by key k1"


@pytest.mark.parametrize(
    ("values", "changes", "said"),
    [
        (
            {"prices": {"factor": 0.5}},
            {"prices": OwnPrices(7000)},
            ["factor none -> 0.7", "models none -> none"],
        ),
        ({"prices": None}, {"prices": OwnPrices(7000)}, ["factor none -> 0.7", "models none -> none"]),
        ({"adapter_sources": ["hf://a"]}, {"adapter_sources": ("hf://b",)}, ["adapter_sources changed"]),
        ({"budget": None}, {"budget": Budget(9)}, ["monthly_tokens none -> 9", "soft none -> 0.8"]),
        (
            {"budget.soft": 0.5, "budget.monthly_tokens": 5},
            {"budget": Budget(9)},
            ["monthly_tokens none -> 9", "soft none -> 0.8"],
        ),
        (
            {"models.plain": None},
            {"models": {"support": "a-support", "plain": "a-sales"}},
            ["alias plain base -> a-sales"],
        ),
        ({"pools": ["shared"]}, {"request_limits": {"max_tokens": 5}}, []),
    ],
)
def test_whatever_kind_of_value_the_file_changes_in_vain_it_is_said_in_words(
    values: dict[str, Any], changes: dict[str, Any], said: list[str]
) -> None:
    priced = replace(FLEET, prices=Prices("EUR"))
    found = told(with_tenant(priced, **changes), change("a", values), before=priced)
    vain = [text.removeprefix("tenant a: ").removesuffix(f" {VAIN}") for text in found if VAIN in text]
    assert vain == said


def test_a_tenant_that_was_removed_or_admitted_and_is_declared_now_is_named_once() -> None:
    before = without_tenant(FLEET, "b")
    removed = replace(TenantChange("b", removed=True, changed_by="key k1"))
    stays = "tenant b: is declared, and was removed by key k1; it stays so"
    assert told(FLEET, removed, before=before) == [stays]
    assert told(with_tenant(weight=2.0), removed) == [], "it was so before"
    admitted = change("b", {"models.chat": "base", "pools": ["shared"]}, admitted=True)
    assert told(FLEET, admitted, before=before) == [
        "tenant b: is declared, and was admitted at run time too: what was set then wins"
    ]
    anew = replace(admitted, apart=True, changed_by="key k1")
    assert list(oddities(with_changes(FLEET, {"b": anew})).values()) == [
        "tenant b: was admitted anew by key k1; nothing declared of it counts"
    ]


def test_a_directory_under_another_fleet_leaves_the_first_as_it_was() -> None:
    directory = Directory(CurrentFleet(FLEET))
    directory.put(entry_of("a-support"))
    tenant: Tenant = FLEET.tenants["a"]
    other = directory.under(with_tenant(models={"x": "a-support"}))
    assert other.describe(with_tenant(models={"x": "a-support"}).tenants["a"], "x") is not None
    assert directory.describe(tenant, "x") is None and directory.describe(tenant, "support") is not None


def test_what_is_odd_is_empty_without_changes() -> None:
    assert oddities(Amended(FLEET, {}, FLEET, {})) == {}

"""Who calls, and what does a name mean for this caller?"""

from __future__ import annotations

import pytest

from routing.tenants import Directory
from tests.fakes import key_of, small_fleet

directory = Directory(small_fleet())


def test_a_key_finds_its_tenant() -> None:
    tenant = directory.authenticate(key_of("b"))
    assert tenant is not None and tenant.name == "b"


@pytest.mark.parametrize("key", ["", "wrong", key_of("a") + " ", key_of("operator"), "\udcff"])
def test_any_other_key_finds_nobody(key: str) -> None:
    assert directory.authenticate(key) is None


def test_the_operator_is_nobodys_tenant() -> None:
    assert directory.is_operator(key_of("operator"))
    assert not directory.is_operator(key_of("a"))


@pytest.mark.parametrize(
    ("tenant", "name", "engine_model"),
    [
        ("a", "support", "a-support"),
        ("a", "a-support", "a-support"),
        ("a", "plain", "base"),
        ("a", "base", "base"),
        ("a", None, "a-support"),
        ("b", "support", "b-support"),
        ("b", "a-support", None),
        ("b", "base", None),
        ("b", "", None),
    ],
)
def test_a_name_means_what_the_tenant_declared(
    tenant: str, name: str | None, engine_model: str | None
) -> None:
    target = directory.resolve(small_fleet().tenants[tenant], name)
    assert (target.engine_model if target else None) == engine_model


def test_an_adapters_own_name_is_the_same_target_as_its_alias() -> None:
    tenant = small_fleet().tenants["a"]
    assert directory.resolve(tenant, "a-support") is directory.resolve(tenant, "support")


def test_a_tenant_is_served_by_its_own_pool() -> None:
    target = directory.resolve(small_fleet().tenants["c"], "support")
    assert target is not None and target.pool == "alone"

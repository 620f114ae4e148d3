"""Which keys everybody knows, and whether a fleet takes them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from fleet import load_fleet
from fleet.demo_keys import DEMO_KEY_HASHES, demo_keys, uses_demo_keys
from fleet.key_hash import hash_key
from fleet.types import Fleet
from tests.e2e.serving import ROOT
from tests.fakes import small_fleet

OWNERS = ("acme", "globex", "initech", "umbrella", "operator")


def with_key(owner: str, key: str) -> Fleet:
    """The small fleet with one more key: of a tenant, or of an operator."""
    fleet, digest = small_fleet(), frozenset({hash_key(key)})
    if owner == "operator":
        settings = replace(fleet.gateway, operator_key_hashes=fleet.gateway.operator_key_hashes | digest)
        return replace(fleet, gateway=settings)
    tenant = replace(fleet.tenants[owner], key_hashes=fleet.tenants[owner].key_hashes | digest)
    return replace(fleet, tenants={**fleet.tenants, owner: tenant})


def test_the_hashes_are_those_of_the_documented_keys() -> None:
    assert {hash_key(f"{owner}-demo-key") for owner in OWNERS} == DEMO_KEY_HASHES


def test_the_demo_fleet_has_all_of_them() -> None:
    assert demo_keys(load_fleet(ROOT / "fleet.yaml")) == DEMO_KEY_HASHES


@pytest.mark.parametrize("owner", ["a", "c", "operator"])
@pytest.mark.parametrize("name", OWNERS)
def test_one_of_them_is_enough_wherever_it_stands(owner: str, name: str) -> None:
    assert uses_demo_keys(with_key(owner, f"{name}-demo-key"))
    assert demo_keys(with_key(owner, f"{name}-demo-key")) == {hash_key(f"{name}-demo-key")}


@pytest.mark.parametrize("owner", ["a", "operator"])
def test_a_key_of_ones_own_is_none_of_them(owner: str) -> None:
    assert not uses_demo_keys(with_key(owner, "acme-demo-key2"))
    assert not uses_demo_keys(small_fleet())


def test_bentomls_configuration_leaves_it_to_the_service_where_the_gateway_listens() -> None:
    configured = yaml.safe_load((ROOT / "configuration.yaml").read_text())
    assert "host" not in configured["services"]["gateway"]["http"], "it would win over the demo's 127.0.0.1"

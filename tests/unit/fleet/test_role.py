"""Which part of a fleet does a process serve?"""

from __future__ import annotations

import pytest

from fleet.mig import SliceName
from fleet.role import Part, Role, RoleError, host_in, on_devices_given, part_of, require_none_here
from fleet.types import Host
from tests.fakes import small_fleet

NOTHING: dict[str, str | None] = {"fleet": None, "pool": None, "replica": None, "platform": "cpu"}


@pytest.mark.parametrize("environ", [{}, {"TENANTRY_OWN_DEVICES": ""}, {"TENANTRY_OWN_DEVICES": "0"}])
def test_a_host_has_the_devices_of_the_fleet_file(environ: dict[str, str]) -> None:
    host = Host("shared-1", (("shared-1", "base"),), "1")
    assert on_devices_given(host, environ) is host


def test_in_a_container_with_devices_of_its_own_a_host_takes_these() -> None:
    own = {"TENANTRY_OWN_DEVICES": "1"}
    host = Host("shared-1", (("shared-1", "base"),), "1")
    assert on_devices_given(host, own) == Host("shared-1", (("shared-1", "base"),), None)
    third = Host("small-2", (("small-2", "base"),), None, SliceName(gpu="3", profile="1g.18gb", number=2))
    assert on_devices_given(third, own).on_slice == SliceName(gpu="0", profile="1g.18gb", number=0)
    by_uuid = Host("small-0", (("small-0", "base"),), "MIG-8d3f", SliceName(uuid="MIG-8d3f"))
    assert on_devices_given(by_uuid, own) == Host("small-0", (("small-0", "base"),), None)


def test_without_a_word_it_is_the_whole_fleet() -> None:
    whole = Part(Role.ALL, "fleet.yaml", None, None)
    assert part_of(NOTHING, {}) == whole
    assert part_of(NOTHING, {"TENANTRY_ROLE": "", "TENANTRY_POOL": "", "TENANTRY_REPLICA": ""}) == whole


@pytest.mark.parametrize(
    ("said", "part"),
    [
        ({"fleet": "other.yaml"}, Part(Role.ALL, "other.yaml", None, None)),
        ({"pool": "shared"}, Part(Role.ALL, "fleet.yaml", "shared", None)),
        ({"replica": "shared-0"}, Part(Role.ENGINE, "fleet.yaml", None, "shared-0")),
    ],
    ids=["fleet", "pool", "replica"],
)
def test_a_variable_says_what_an_argument_says(said: dict[str, str], part: Part) -> None:
    variables = {f"TENANTRY_{name.upper()}": value for name, value in said.items()}
    assert part_of(NOTHING | said, {}) == part
    assert part_of(NOTHING, variables) == part
    assert part_of(NOTHING | said, variables) == part, "said twice alike"


def test_roles_are_named() -> None:
    assert part_of(NOTHING, {"TENANTRY_ROLE": "gateway"}).role is Role.GATEWAY
    assert part_of(NOTHING, {"TENANTRY_ROLE": "all", "TENANTRY_POOL": "shared"}).role is Role.ALL
    variables = {"TENANTRY_ROLE": "engine", "TENANTRY_REPLICA": "shared-0"}
    assert part_of(NOTHING, variables) == Part(Role.ENGINE, "fleet.yaml", None, "shared-0")


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        ({}, {"TENANTRY_ROLE": "leader"}, "one of all, gateway, engine"),
        ({}, {"TENANTRY_ROLE": "engine"}, "needs TENANTRY_REPLICA"),
        ({}, {"TENANTRY_ROLE": "gateway", "TENANTRY_REPLICA": "shared-0"}, "does not go with 'shared-0'"),
        ({"replica": "shared-0"}, {"TENANTRY_ROLE": "all"}, "does not go with 'shared-0'"),
        ({"pool": "shared"}, {"TENANTRY_POOL": "alone"}, "pool is 'shared' by argument and 'alone' by"),
        ({"fleet": "a.yaml"}, {"TENANTRY_FLEET": "b.yaml"}, "leave one out"),
    ],
    ids=["no role", "no host", "gateway and host", "all and host", "two pools", "two files"],
)
def test_what_does_not_go_together_is_refused(
    arguments: dict[str, str], variables: dict[str, str], words: str
) -> None:
    with pytest.raises(RoleError, match=words):
        part_of(NOTHING | arguments, variables)


def test_a_host_is_found_by_its_name_or_the_names_are_told() -> None:
    fleet = small_fleet()
    pool, host = host_in(fleet, "alone-0")
    assert (pool.name, host.name) == ("alone", "alone-0")
    with pytest.raises(RoleError, match=r"no replica 'alone-7'; it has .*alone-0"):
        host_in(fleet, "alone-7")


def test_a_gateway_alone_must_know_where_its_engines_run() -> None:
    require_none_here(Role.GATEWAY, [])
    require_none_here(Role.ALL, ["shared-0"])
    with pytest.raises(RoleError, match=r"nothing says where shared-0, alone-0 run.*TENANTRY_ENGINE_FILE"):
        require_none_here(Role.GATEWAY, ["shared-0", "alone-0"])

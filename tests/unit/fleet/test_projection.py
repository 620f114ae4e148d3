"""The part of a fleet that one pool needs, and nothing of anybody else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fleet import FleetError, project, read_fleet
from fleet.content import Guard, OnFailure
from fleet.types import Fleet, Slo, TrustedProxies
from fleet.writer import write_fleet
from tests.fakes import small_fleet
from tests.unit.fleet.files import changed, declared, digest, write


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return read_fleet(write(tmp_path, declared())).fleet


def test_a_pool_keeps_its_tenants_their_adapters_and_its_base_model(fleet: Fleet) -> None:
    part = project(fleet, "alone")
    assert list(part.base_models) == ["base"]
    assert list(part.adapters) == ["c-support"]
    assert part.tenants == {"gamma": fleet.tenants["gamma"]}
    assert part.pools == {"alone": fleet.pools["alone"]}
    assert part.gateway == fleet.gateway


def test_caps_and_objectives_come_along(tmp_path: Path) -> None:
    data = changed("tenants/gamma/caps", {"tokens_per_minute": 9, "max_queued_tokens": 8})
    data["adapters"]["c-support"]["max_concurrency"] = 7
    data["pools"]["alone"] |= {"slo": {"ttft_s": 2, "itl_s": 0.05}, "hedge_after_s": 1, "replicas": 2}
    data["gateway"]["scheduler"] = {"aging_tokens_per_s": 6}
    fleet = read_fleet(write(tmp_path, data)).fleet
    part = read_fleet(write(tmp_path, write_fleet(project(fleet, "alone"), key_variables={}))).fleet
    assert (part.tenants["gamma"].caps.tokens_per_minute, part.tenants["gamma"].caps.max_queued_tokens) == (
        9,
        8,
    )
    assert part.adapters["c-support"].max_concurrency == 7
    assert (part.pools["alone"].slo, part.pools["alone"].hedge_after_s) == (Slo(2.0, 0.05), 1.0)
    assert part.gateway.scheduler.aging_tokens_per_s == 6.0


def test_nothing_of_anybody_else_is_left(fleet: Fleet) -> None:
    text = repr(project(fleet, "alone"))
    for foreign in ("alpha", "beta", "a-support", "b-support", "plain", digest("alpha"), digest("beta")):
        assert foreign not in text


def test_guards_of_other_tenants_are_left_out(fleet: Fleet) -> None:
    guards = {name: Guard(OnFailure.REFUSE, plugin="words") for name in ("alpha", "gamma")}
    fleet = replace(fleet, gateway=replace(fleet.gateway, guards=guards))
    assert project(fleet, "alone").gateway.guards.keys() == {"gamma"}


def test_users_of_other_tenants_whom_a_proxy_signs_in_are_left_out(fleet: Fleet) -> None:
    proxies = TrustedProxies(("10.0.0.7/32",), "x-user", None, (), {"gamma": ("gus",), "alpha": ("ann",)})
    fleet = replace(fleet, gateway=replace(fleet.gateway, trusted_proxies=proxies))
    alone = project(fleet, "alone").gateway.trusted_proxies
    assert alone is not None and alone.tenants == {"gamma": ("gus",)}
    fleet = replace(
        fleet, gateway=replace(fleet.gateway, trusted_proxies=replace(proxies, tenants={"gamma": ("gus",)}))
    )
    assert project(fleet, "shared").gateway.trusted_proxies is None, "nobody is left to sign in"


def test_a_tenant_on_two_pools_has_in_each_what_is_served_there(fleet: Fleet) -> None:
    assert project(fleet, "shared").tenants["alpha"].models == {"support": "a-support"}
    whole = project(fleet, "whole")
    assert whole.tenants["alpha"].models == {"raw": "plain"}
    assert not whole.adapters


def test_a_default_model_served_elsewhere_is_no_default_here(fleet: Fleet) -> None:
    alpha = replace(fleet.tenants["alpha"], default_model="support")
    fleet = replace(fleet, tenants={**fleet.tenants, "alpha": alpha})
    assert project(fleet, "shared").tenants["alpha"].default_model == "support"
    assert project(fleet, "whole").tenants["alpha"].default_model is None


def test_a_part_is_a_fleet_of_its_own(fleet: Fleet, tmp_path: Path) -> None:
    for pool in fleet.pools:
        part = project(fleet, pool)
        assert read_fleet(write(tmp_path, write_fleet(part, key_variables={}))).fleet == part
        assert project(part, pool) == part


def test_the_fleet_itself_is_left_as_it_was() -> None:
    fleet = small_fleet()
    project(fleet, "alone")
    assert fleet == small_fleet()


def test_an_unknown_pool_is_refused_with_the_one_that_was_meant(fleet: Fleet) -> None:
    with pytest.raises(FleetError, match="no pool is called `alon`; did you mean `alone`"):
        project(fleet, "alon")

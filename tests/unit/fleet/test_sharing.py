"""Which tenants can meet in one engine, and that a dedicated one meets nobody."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet import FleetError, project, read_fleet
from fleet.sharing import Company, Use, met_by, met_by_turns, pools_of, who_shares, who_uses
from fleet.types import Fleet, Isolation
from tests.fakes import small_fleet
from tests.unit.fleet.files import changed, declared, digest, problems, write


def test_each_replica_is_listed_with_its_tenants_and_device() -> None:
    fleet = small_fleet(replicas=2)
    shared = replace(fleet.pools["shared"], devices=("0", "1"))
    fleet = replace(fleet, pools={**fleet.pools, "shared": shared})
    assert who_shares(fleet) == [
        Company("shared", "shared-0", "base", "0", ("a", "b")),
        Company("shared", "shared-1", "base", "1", ("a", "b")),
        Company("alone", "alone-0", "base", None, ("c",)),
    ]


def test_a_tenant_meets_nobody_on_a_base_model_it_does_not_use(tmp_path: Path) -> None:
    data = changed(
        "pools/whole/base_models", ["plain", "other"], changed("base_models/other", {"source": "org/other"})
    )
    data["pools"]["whole"]["tenants"] = ["alpha", "beta"]
    data["tenants"]["beta"]["models"]["raw"] = "other"
    fleet = read_fleet(write(tmp_path, data)).fleet
    assert [(c.replica, c.tenants) for c in who_shares(fleet) if c.pool == "whole"] == [
        ("whole-0", ("alpha",)),
        ("whole-1", ("beta",)),
    ]
    assert pools_of(fleet, fleet.tenants["beta"]) == ["shared", "whole"]


def test_replicas_of_other_pools_on_the_same_device_are_named() -> None:
    fleet = small_fleet(replicas=2)
    pools = {
        "shared": replace(fleet.pools["shared"], devices=("0,1", "2,3")),
        "alone": replace(fleet.pools["alone"], devices=("3",)),
    }
    beside = {c.replica: c.beside for c in who_shares(replace(fleet, pools=pools))}
    assert beside == {"shared-0": (), "shared-1": ("alone-0",), "alone-0": ("shared-1",)}


def test_a_tenant_meets_those_whose_requests_its_engines_run() -> None:
    companies = who_shares(small_fleet(replicas=2))
    assert {tenant: met_by(tenant, companies) for tenant in "abc"} == {"a": ["b"], "b": ["a"], "c": []}


def test_a_tenant_meets_by_turns_those_whose_models_share_its_hosts(tmp_path: Path) -> None:
    data = changed("base_models/other", {"source": "org/other"})
    data["pools"]["whole"] |= {"strategy": "swap", "base_models": ["plain", "other"]}
    data["pools"]["whole"]["tenants"] = ["alpha", "beta"]
    data["tenants"]["beta"]["models"] = {"raw": "other"}
    data["pools"]["shared"]["tenants"] = ["alpha"]
    companies = who_shares(read_fleet(write(tmp_path, data)).fleet)
    assert {name: met_by(name, companies) for name in ("alpha", "beta", "gamma")} == {
        "alpha": [],
        "beta": [],
        "gamma": [],
    }
    assert {name: met_by_turns(name, companies) for name in ("alpha", "beta", "gamma")} == {
        "alpha": ["beta"],
        "beta": ["alpha"],
        "gamma": [],
    }


def test_each_model_of_a_pool_is_listed_with_those_who_may_ask_for_it() -> None:
    fleet = small_fleet()
    both = replace(fleet.tenants["b"], models={"support": "b-support", "x": "a-support", "y": "a-support"})
    fleet = replace(fleet, tenants={**fleet.tenants, "b": both})
    assert who_uses(fleet) == [
        Use("shared", "base", "a-support", ("a", "b")),
        Use("shared", "base", "a-sales", ("a",)),
        Use("shared", "base", "base", ("a",)),
        Use("shared", "base", "b-support", ("b",)),
        Use("alone", "base", "c-support", ("c",)),
    ]


# -- dedicated means alone -----------------------------------------------------------------------------------

TENANTS = ("ta", "tb", "tc")
BASES = ("base", "plain")


@st.composite
def plans(draw: st.DrawFn) -> dict[str, Any]:
    """Tenants with models, each on one of two pools of its base model; now and then two pools are one."""
    models = {name: draw(st.lists(st.sampled_from(BASES), min_size=1, unique=True)) for name in TENANTS}
    on: dict[str, list[str]] = {f"{base}-{index}": [] for base in BASES for index in range(2)}
    for tenant, base in [(name, base) for name in TENANTS for base in models[name]]:
        on[f"{base}-{draw(st.integers(0, 1))}"].append(tenant)
    pools = [([pool.partition("-")[0]], tenants) for pool, tenants in on.items()]
    if draw(st.booleans()):
        pools = [
            ([*pools[0][0], *pools[2][0]], list(dict.fromkeys(pools[0][1] + pools[2][1]))),
            pools[1],
            pools[3],
        ]
    isolation = {name: draw(st.sampled_from(["shared", "dedicated"])) for name in TENANTS}
    replicas = draw(st.integers(1, 2))
    listed = [(bases, tenants, replicas) for bases, tenants in pools if tenants]
    return {"isolation": isolation, "models": models, "pools": listed}


def planned(plan: dict[str, Any]) -> dict[str, Any]:
    """A fleet file with these tenants on these pools, whether they may stand there or not."""
    return {
        "base_models": {name: {"source": f"org/{name}"} for name in BASES},
        "tenants": {
            name: {
                "api_keys": [{"sha256": digest(name)}],
                "models": {model: model for model in plan["models"][name]},
                "isolation": plan["isolation"][name],
            }
            for name in TENANTS
        },
        "pools": {
            f"p{index}": {
                "strategy": "replica-per-model",
                "base_models": bases,
                "tenants": tenants,
                "replicas": replicas,
            }
            for index, (bases, tenants, replicas) in enumerate(plan["pools"])
        },
    }


def assert_dedicated_tenants_are_alone(fleet: Fleet) -> None:
    """The rule itself, for replicas and, which says more, for pools."""
    dedicated = {name for name, t in fleet.tenants.items() if t.isolation is Isolation.DEDICATED}
    for tenants in (set(company.tenants) for company in who_shares(fleet)):
        assert len(tenants) <= 1 or not tenants & dedicated
    for pool in fleet.pools.values():
        assert len(pool.tenants) == 1 or not dedicated & set(pool.tenants)
    for name in dedicated:
        assert met_by(name, who_shares(fleet)) == met_by_turns(name, who_shares(fleet)) == []


@settings(max_examples=150, deadline=None)
@given(plans())
def test_whatever_a_fleet_file_declares_no_dedicated_tenant_ever_shares_a_replica(
    plan: dict[str, Any],
) -> None:
    mixed = any(
        len(tenants) > 1 and any(plan["isolation"][tenant] == "dedicated" for tenant in tenants)
        for _, tenants, _ in plan["pools"]
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            fleet = read_fleet(write(Path(folder), planned(plan))).fleet
        except FleetError:
            return
    assert not mixed
    assert_dedicated_tenants_are_alone(fleet)
    for pool in fleet.pools:
        assert_dedicated_tenants_are_alone(project(fleet, pool))


@pytest.mark.parametrize("isolated", [n for k in (1, 2, 3) for n in itertools.combinations(TENANTS, k)])
def test_a_pool_with_a_dedicated_tenant_and_another_is_refused_for_that_and_nothing_else(
    tmp_path: Path, isolated: tuple[str, ...]
) -> None:
    plan = {
        "isolation": {tenant: "dedicated" if tenant in isolated else "shared" for tenant in TENANTS},
        "models": {tenant: ["base"] for tenant in TENANTS},
        "pools": [(["base"], list(TENANTS), 1)],
    }
    found = problems(tmp_path, planned(plan))
    assert [p.path for p in found] == [f"pools.p0.tenants[{TENANTS.index(tenant)}]" for tenant in isolated]
    assert all("is dedicated and shares this pool" in p.message for p in found)


@pytest.mark.parametrize(
    "value", ["Dedicated", "DEDICATED", " dedicated", "dedicted", "", None, True, 1, ["dedicated"], {}]
)
def test_what_is_not_quite_dedicated_is_refused_and_never_taken_for_shared(
    tmp_path: Path, value: object
) -> None:
    assert [p.path for p in problems(tmp_path, changed("tenants/beta/isolation", value))] == [
        "tenants.beta.isolation"
    ]


@pytest.mark.parametrize("key", ["isolated", "Isolation", "isolation_", "dedicated"])
def test_a_misspelt_isolation_is_refused(tmp_path: Path, key: str) -> None:
    data = declared()
    data["tenants"]["gamma"][key] = data["tenants"]["gamma"].pop("isolation")
    assert any(p.path == f"tenants.gamma.{key}" for p in problems(tmp_path, data))

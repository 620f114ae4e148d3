"""Base models that share hosts: what a fleet file may say of them, and which replicas they have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet import read_fleet
from fleet.diff import Needs, differences
from fleet.pool_settings import ResidencySettings
from fleet.sharing import who_shares
from fleet.types import Fleet, Host, Pool, Strategy
from fleet.writer import write_fleet
from tests.unit.fleet.files import changed, declared, problems, the_problem, warnings, write

MODELS = ("even", "odd", "third")


def mesh(**settings: Any) -> dict[str, Any]:
    """A fleet file with one more pool, whose hosts have three base models each."""
    data = declared()
    data["base_models"] |= {name: {"source": f"org/{name}"} for name in MODELS}
    data["base_models"]["odd"]["max_loras"] = 2
    data["adapters"]["fitted"] = {"source": "./fitted", "base_model": "odd"}
    data["tenants"]["alpha"]["models"] |= {"even": "even", "fitted": "fitted", "third": "third"}
    pool = {"strategy": "model-mesh", "base_models": list(MODELS), "tenants": ["alpha"]}
    data["pools"]["mesh"] = pool | settings
    return data


def pool_of(folder: Path, data: dict[str, Any]) -> Pool:
    return fleet_of(folder, data).pools["mesh"]


def fleet_of(folder: Path, data: dict[str, Any]) -> Fleet:
    return read_fleet(write(folder, data)).fleet


def test_each_host_has_a_replica_of_every_base_model(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, mesh(replicas=2, devices=["0", "1"]))
    assert pool.hosts == (
        Host("mesh-0", (("mesh-0.even", "even"), ("mesh-0.odd", "odd"), ("mesh-0.third", "third")), "0"),
        Host("mesh-1", (("mesh-1.even", "even"), ("mesh-1.odd", "odd"), ("mesh-1.third", "third")), "1"),
    )
    assert pool.replica_models == (*pool.hosts[0].replicas, *pool.hosts[1].replicas)
    assert pool.hosts[1].base_models == MODELS


def test_other_pools_have_a_host_for_each_replica_of_the_same_name(tmp_path: Path) -> None:
    data = changed("pools/whole/replicas", 2)
    data["base_models"]["plain2"] = {"source": "org/plain2"}
    data["tenants"]["alpha"]["models"]["raw2"] = "plain2"
    data["pools"]["whole"] |= {"base_models": ["plain", "plain2"]}
    assert fleet_of(tmp_path, data).pools["whole"].hosts == (
        Host("whole-0", (("whole-0", "plain"),), None),
        Host("whole-1", (("whole-1", "plain"),), None),
        Host("whole-2", (("whole-2", "plain2"),), None),
        Host("whole-3", (("whole-3", "plain2"),), None),
    )


def test_every_setting_arrives_and_is_written_again(tmp_path: Path) -> None:
    residency = {
        "ttl_s": 600,
        "min_s": 0.5,
        "max_turn_s": 20,
        "starvation_limit_s": 9,
        "preload": ["odd"],
        "pinned": ["even"],
    }
    fleet = fleet_of(tmp_path, mesh(awake=2, residency=residency, fork_server=False, sleep=True))
    pool = fleet.pools["mesh"]
    assert (pool.strategy, pool.awake, pool.fork_server, pool.sleep) == (Strategy.MODEL_MESH, 2, False, True)
    assert pool.residency == ResidencySettings(600.0, 0.5, 20.0, 9.0, ("odd",), ("even",))
    text = write_fleet(fleet, key_variables={})
    assert fleet_of(tmp_path, yaml.safe_load(text)).pools == fleet.pools


@pytest.mark.parametrize("word", ["auto", None])
def test_what_is_found_out_by_measuring_is_none(tmp_path: Path, word: str | None) -> None:
    pool = pool_of(tmp_path, mesh(awake=word, residency={"min_s": word}))
    assert (pool.awake, pool.residency) == (None, ResidencySettings())


def test_with_swap_one_is_awake_at_a_time(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path, mesh(strategy="swap"))
    assert fleet.pools["mesh"].awake == 1
    assert fleet_of(tmp_path, yaml.safe_load(write_fleet(fleet, key_variables={}))).pools == fleet.pools


@pytest.mark.parametrize(
    ("settings", "path", "message"),
    [
        ({"awake": 0}, "awake", "must be from 1 to 1024, or `auto`"),
        ({"awake": 1.5}, "awake", "must be a whole number or `auto`"),
        ({"awake": True}, "awake", "must be a whole number or `auto`"),
        ({"awake": "all"}, "awake", "must be a whole number or `auto`"),
        ({"residency": {"min_s": "short"}}, "residency.min_s", "must be a number or `auto`"),
        ({"residency": {"min_s": float("nan")}}, "residency.min_s", "must be from 0 to 86400, or `auto`"),
        ({"residency": {"ttl": 3}}, "residency.ttl", "unknown key `ttl`"),
        ({"residency": {"max_turn_s": 0}}, "residency.max_turn_s", "must be greater than 0"),
        ({"residency": {"preload": ["evn"]}}, "residency.preload[0]", "`evn` is no base model of this pool"),
        ({"residency": {"pinned": ["odd", "odd"]}}, "residency.pinned[1]", "`odd` is listed twice"),
        ({"residency": {"min_s": 61}}, "residency.min_s", "longer than max_turn_s (60)"),
        ({"strategy": "swap", "awake": 1}, "awake", "one is awake at a time with strategy swap"),
        (
            {"strategy": "swap", "residency": {"pinned": ["odd"]}},
            "residency.pinned",
            "what is pinned takes every place, so that no other base model ever comes",
        ),
        (
            {"awake": 1, "residency": {"pinned": ["odd", "even"]}},
            "residency.pinned",
            "2 always awake of 1 at once",
        ),
        (
            {"awake": 2, "residency": {"pinned": ["odd"], "preload": ["even", "third"]}},
            "residency.preload",
            "3 awake after a start, and 2 at once",
        ),
        ({"devices": ["0", "1"]}, "devices", "2 for 1 hosts, which have all base models"),
        ({"devices": ["0,1,0"]}, "devices[0]", "`0,1,0` names device 0 twice"),
    ],
)
def test_a_wrong_value_is_refused(tmp_path: Path, settings: dict[str, Any], path: str, message: str) -> None:
    problem = the_problem(tmp_path, mesh(**settings))
    assert problem.path == f"pools.mesh.{path}"
    assert problem.message == message


@pytest.mark.parametrize(
    ("key", "value"), [("awake", 2), ("residency", {"ttl_s": 5}), ("fork_server", False), ("sleep", True)]
)
def test_pools_whose_models_have_hosts_of_their_own_take_no_such_setting(
    tmp_path: Path, key: str, value: Any
) -> None:
    problem = the_problem(tmp_path, changed(f"pools/whole/{key}", value))
    assert problem.path == f"pools.whole.{key}"
    assert problem.message.startswith("strategy replica-per-model has every base model awake ")


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"awake": 4}, "pools.mesh.awake"),
        ({"residency": {"min_s": 5}, "slo": {"ttft_s": 2}}, "pools.mesh.residency.min_s"),
    ],
)
def test_what_is_no_use_is_a_warning(tmp_path: Path, settings: dict[str, Any], path: str) -> None:
    assert [warning.path for warning in warnings(tmp_path, mesh(**settings))] == [path]


def test_one_base_model_takes_no_turns(tmp_path: Path) -> None:
    data = changed("pools/whole/strategy", "swap")
    assert [w.path for w in warnings(tmp_path, data)] == ["pools.whole.base_models"]


def test_every_model_of_a_host_must_find_its_gpus_there(tmp_path: Path) -> None:
    data = mesh(replicas=2, devices=["0,1", "2"])
    data["base_models"]["third"]["tensor_parallel_size"] = 2
    problem = the_problem(tmp_path, data)
    assert problem.path == "pools.mesh.devices[1]"
    assert problem.message == "`2` is 1 for an engine of tensor_parallel_size 2"


@pytest.mark.parametrize(("awake", "warned"), [(1, False), ("auto", False), (2, True)])
def test_a_device_must_have_memory_for_those_that_are_awake_at_once(
    tmp_path: Path, awake: Any, warned: bool
) -> None:
    found = warnings(tmp_path, mesh(awake=awake, devices=["0"]))
    assert [w.message for w in found] == (
        ["the engines on device 0 take 1.80 of its memory together"] if warned else []
    )


def test_a_dedicated_tenant_shares_no_device_on_which_models_take_turns(tmp_path: Path) -> None:
    data = mesh(devices=["0"])
    data["pools"]["alone"]["devices"] = ["0"]
    for model in ("base", *MODELS):
        data["base_models"][model]["gpu_memory_utilization"] = 0.2
    problem = the_problem(tmp_path, data)
    assert problem.path == "tenants.gamma.isolation"
    assert problem.message == "its engines are its own, but device 0 also serves `mesh`"


def test_two_replicas_are_never_called_the_same(tmp_path: Path) -> None:
    data = mesh(base_models=[*MODELS, "x-0"])
    data["base_models"] |= {"x-0": {"source": "org/x"}, "other": {"source": "org/other"}}
    data["tenants"]["alpha"]["models"]["x"] = "x-0"
    data["tenants"]["beta"]["models"]["other"] = "other"
    data["pools"]["mesh-0.x"] = {
        "strategy": "replica-per-model",
        "base_models": ["other"],
        "tenants": ["beta"],
    }
    problem = the_problem(tmp_path, data)
    assert problem.path == "pools.mesh-0.x"
    assert problem.message == "replicas of it and of pool `mesh` would be called the same"


def test_who_shares_names_those_with_which_a_model_takes_turns(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path, mesh(devices=["0"]))
    found = {company.replica: company for company in who_shares(fleet) if company.pool == "mesh"}
    assert found["mesh-0.odd"].by_turns_with == ("mesh-0.even", "mesh-0.third")
    assert {company.device for company in found.values()} == {"0"}
    assert found["mesh-0.even"].tenants == ("alpha",)


def test_how_many_are_awake_needs_a_restart_and_how_long_does_not(tmp_path: Path) -> None:
    before = fleet_of(tmp_path, mesh(awake=1, residency={"max_turn_s": 30}))
    after = fleet_of(tmp_path, mesh(awake=2, residency={"max_turn_s": 40, "pinned": ["odd"]}))
    assert [(change.text, change.needs) for change in differences(before, after)] == [
        ("max_turn_s 30 -> 40", Needs.NOTHING),
        ("pinned none -> odd", Needs.NOTHING),
        ("awake 1 -> 2", Needs.RESTART),
    ]


def test_nothing_else_is_wrong_with_such_a_pool(tmp_path: Path) -> None:
    assert not problems(tmp_path, mesh())
    assert not warnings(tmp_path, mesh())

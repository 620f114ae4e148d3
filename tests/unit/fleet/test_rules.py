"""How the parts of a fleet fit together: strategies, isolation, devices, sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.fleet.files import changed, declared, problems, removed, the_problem, warnings


def test_a_multi_lora_pool_has_one_base_model(tmp_path: Path) -> None:
    problem = the_problem(tmp_path, changed("pools/shared/base_models", ["base", "plain2"], _second_base()))
    assert problem.path == "pools.shared.base_models"
    assert problem.message == "a multi-lora pool has exactly one base model, not 2"


def _second_base() -> dict[str, Any]:
    data = changed("base_models/plain2", {"source": "org/plain2", "max_loras": 1})
    data["tenants"]["beta"]["models"]["raw"] = "plain2"
    return data


def test_a_multi_lora_pool_needs_slots(tmp_path: Path) -> None:
    problem = the_problem(tmp_path, changed("pools/whole/strategy", "multi-lora"))
    assert problem.path == "pools.whole.base_models[0]"
    assert "has no adapter slots" in problem.message
    assert "replica-per-model" in problem.remedy


def test_a_dedicated_tenant_is_alone_on_its_pool(tmp_path: Path) -> None:
    data = changed("pools/shared/tenants", ["alpha", "beta", "gamma"])
    del data["pools"]["alone"]
    problem = the_problem(tmp_path, data)
    assert problem.path == "pools.shared.tenants[2]"
    assert problem.message == "tenant `gamma` is dedicated and shares this pool with `alpha`, `beta`"


def test_two_dedicated_tenants_do_not_share_either(tmp_path: Path) -> None:
    data = changed("tenants/beta/isolation", "dedicated")
    data["tenants"]["alpha"]["isolation"] = "dedicated"
    assert [p.path for p in problems(tmp_path, data)] == [
        "pools.shared.tenants[0]",
        "pools.shared.tenants[1]",
    ]


def test_a_dedicated_tenant_may_have_several_pools(tmp_path: Path) -> None:
    data = changed("tenants/alpha/isolation", "dedicated")
    data["pools"]["shared"]["tenants"] = ["alpha"]
    data["pools"]["others"] = {"base_models": ["base"], "tenants": ["beta"]}
    assert not problems(tmp_path, data)


def test_host_memory_holds_at_least_the_slots(tmp_path: Path) -> None:
    problem = the_problem(tmp_path, changed("base_models/base/max_cpu_loras", 3))
    assert problem.message == "3 is less than max_loras (4); slots are filled from there"


@pytest.mark.parametrize(
    ("pool", "devices", "count"),
    [
        ({"replicas": 2}, ["0"], "1 for 2 replicas"),
        ({"replicas": 1}, ["0", "1"], "2 for 1 replicas"),
    ],
)
def test_devices_are_one_for_each_replica(
    tmp_path: Path, pool: dict[str, Any], devices: list[str], count: str
) -> None:
    data = declared()
    data["pools"]["shared"] |= pool | {"devices": devices}
    assert the_problem(tmp_path, data).message.startswith(count)


def test_an_engine_over_two_gpus_names_two(tmp_path: Path) -> None:
    data = changed("base_models/base/tensor_parallel_size", 2)
    data["pools"]["shared"]["devices"] = [0]
    assert the_problem(tmp_path, data).message == "`0` is 1 for an engine of tensor_parallel_size 2"
    data["pools"]["shared"]["devices"] = ["0,1"]
    assert not problems(tmp_path, data)


def test_pools_whose_services_would_be_called_the_same(tmp_path: Path) -> None:
    data = changed("pools/a-b", {"base_models": ["base"], "tenants": ["beta"]})
    data["pools"]["shared"]["tenants"] = ["alpha"]
    data["pools"]["a.b"] = data["pools"].pop("alone")
    problem = the_problem(tmp_path, data)
    assert (problem.path, problem.remedy) == ("pools.a.b", "rename one")


@pytest.mark.parametrize(
    ("data", "at", "message"),
    [
        (
            changed("base_models/plain/max_loras", 2),
            "pools.whole.base_models[0]",
            "engines of `plain` set memory aside for adapters",
        ),
        (
            changed("tenants/beta/caps", {"max_concurrency": 2, "max_concurrency_per_model": 3}),
            "tenants.beta.caps.max_concurrency_per_model",
            "never reached: max_concurrency is 2",
        ),
        (
            changed("pools/shared/hedge_after_s", 0.5),
            "pools.shared.hedge_after_s",
            "there is no second replica to ask",
        ),
        (
            changed("gateway/scheduler/max_queued_mib", 3),
            "gateway.scheduler.max_queued_mib",
            "a body of max_body_mib (4) could never wait",
        ),
        (removed("gateway/operator_keys"), "gateway.operator_keys", "nobody can read the metrics"),
        (
            changed("pools/shared/devices", [0], changed("pools/alone/devices", [0])),
            "pools.alone.devices[0]",
            "the engines on device 0 take 1.80 of its memory together",
        ),
    ],
)
def test_what_can_hardly_be_meant_is_a_warning(
    tmp_path: Path, data: dict[str, Any], at: str, message: str
) -> None:
    assert not problems(tmp_path, data)
    found = [p for p in warnings(tmp_path, data) if p.path == at]
    assert len(found) == 1
    assert found[0].message.startswith(message)
    assert found[0].remedy


def test_a_second_replica_can_be_asked(tmp_path: Path) -> None:
    data = changed("pools/shared/hedge_after_s", 0.5, changed("pools/shared/replicas", 2))
    assert not warnings(tmp_path, data)


def test_the_highest_band_keeps_most_of_the_grants(tmp_path: Path) -> None:
    problem = the_problem(tmp_path, changed("gateway/scheduler/lower_band_share", 0.25))
    assert problem.path == "gateway.scheduler.lower_band_share"
    assert problem.message == "the 2 lower bands would take 50% of the grants from the highest"
    assert problem.remedy == "set it below 0.25"
    assert not problems(tmp_path, changed("gateway/scheduler/lower_band_share", 0.24))


def test_a_dedicated_tenant_whose_device_serves_others_too_is_a_warning(tmp_path: Path) -> None:
    data = changed("base_models/base/kv_cache_gib", 1, changed("pools/alone/devices", ["2"]))
    data["pools"]["shared"]["devices"] = ["1,2"]
    (warning,) = warnings(tmp_path, data)
    assert warning.path == "tenants.gamma.isolation"
    assert warning.message == "its engines are its own, but device 2 also serves `shared`"
    data["pools"]["shared"]["devices"] = ["0,1"]
    assert not warnings(tmp_path, data)


def test_engines_that_fit_on_one_device_together_are_no_warning(tmp_path: Path) -> None:
    data = changed("base_models/base/gpu_memory_utilization", 0.5)
    data["tenants"]["gamma"]["isolation"] = "shared"
    data["pools"]["shared"]["devices"] = data["pools"]["alone"]["devices"] = [0]
    assert not warnings(tmp_path, data)

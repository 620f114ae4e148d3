"""Pools of MIG slices in a fleet file: one engine for each slice, no slice twice, and models that fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet import FleetError, read_fleet
from fleet.diff import Needs, differences
from fleet.mig import Mig, SliceName, compute_slices, is_slice, most_memory_bytes
from fleet.sharing import who_shares
from fleet.types import Strategy
from fleet.writer import write_fleet
from tests.unit.fleet.files import changed, declared, problems, the_problem, warnings, write

A, B, C = (f"MIG-{digit * 8}-0000-0000-0000-000000000000" for digit in "abc")


def with_slices(**pool: Any) -> dict[str, Any]:
    """The usual fleet, its pool `shared` on slices."""
    return changed(
        "pools/shared",
        {"strategy": "mig", "base_models": ["base"], "tenants": ["alpha", "beta"], **pool},
        declared(),
    )


FOUND = {"gpu": "3", "profile": "1g.20gb", "count": 2}


def test_slices_are_named_by_uuid_and_have_a_replica_each(tmp_path: Path) -> None:
    fleet = read_fleet(write(tmp_path, with_slices(devices=[A, B]))).fleet
    pool = fleet.pools["shared"]
    assert pool.strategy is Strategy.MIG and pool.mig is None
    assert pool.replica_models == (("shared-0", "base"), ("shared-1", "base"))
    assert [host.on_slice for host in pool.hosts] == [SliceName(A), SliceName(B)]
    assert [host.place for host in pool.hosts] == [A, B]
    assert not warnings(tmp_path, with_slices(devices=[A, B]))


def test_or_by_gpu_and_profile(tmp_path: Path) -> None:
    fleet = read_fleet(write(tmp_path, with_slices(mig=FOUND | {"gpu": 3}))).fleet
    pool = fleet.pools["shared"]
    assert pool.mig == Mig("3", "1g.20gb", 2) and pool.devices == ()
    assert [name for name, _ in pool.replica_models] == ["shared-0", "shared-1"]
    assert [host.on_slice for host in pool.hosts] == [
        SliceName(gpu="3", profile="1g.20gb", number=number) for number in (0, 1)
    ]
    assert [(host.device, host.place) for host in pool.hosts] == [
        (None, "1g.20gb 0 of GPU 3"),
        (None, "1g.20gb 1 of GPU 3"),
    ]


def test_what_a_file_says_of_slices_is_written_back(tmp_path: Path) -> None:
    for data in (with_slices(devices=[A, B]), with_slices(mig=FOUND)):
        loaded = read_fleet(write(tmp_path, data))
        again = read_fleet(write(tmp_path, write_fleet(loaded.fleet, key_variables={})))
        assert again.fleet == loaded.fleet


@pytest.mark.parametrize(
    ("pool", "at", "message"),
    [
        ({}, "strategy", "no slice is named"),
        ({"devices": [A], "mig": FOUND}, "strategy", "both `devices` and `mig` name slices"),
        ({"devices": [0]}, "devices[0]", "`0` is no MIG slice; a replica of this pool has one slice"),
        ({"devices": [f"{A},{B}"]}, "devices[0]",
         f"`{A},{B}` is several devices; a replica of this pool has one slice"),
        ({"devices": [A, A]}, "devices[1]", f"slice {A} has an engine already, in this pool"),
        ({"devices": [A, B], "replicas": 3}, "replicas", "3, for 2 slices: there is a replica on each"),
        ({"devices": [A], "base_models": ["base", "plain"]}, "base_models",
         "a mig pool has exactly one base model, not 2"),
        ({"mig": FOUND | {"profile": "3g.71gb", "count": 3}}, "mig.count",
         "3 slices of 3g.71gb need more than the 7 compute slices of a GPU"),
    ],
)  # fmt: skip
def test_what_names_no_slice_or_one_twice_is_refused(
    tmp_path: Path, pool: dict[str, Any], at: str, message: str
) -> None:
    found = problems(tmp_path, with_slices(**pool))
    assert [(p.path, p.message) for p in found if not p.path.startswith("tenants")] == [
        (f"pools.shared.{at}", message)
    ]
    assert all(p.remedy for p in found)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gpu", "three"),
        ("gpu", "0,1"),
        ("gpu", -1),
        ("profile", "1g"),
        ("profile", "0g.10gb"),
        ("profile", "1g.10gb\n"),
        ("profile", "8g.10gb"),
        ("count", 0),
        ("count", 8),
        ("slices", 2),
    ],
)
def test_a_wrong_value_is_refused_at_its_place(tmp_path: Path, key: str, value: Any) -> None:
    found = problems(tmp_path, with_slices(mig=FOUND | {key: value}))
    assert [p.path for p in found if p.path.startswith("pools")] == [f"pools.shared.mig.{key}"]


def test_mig_belongs_to_its_strategy(tmp_path: Path) -> None:
    problem = the_problem(tmp_path, changed("pools/shared/mig", FOUND))
    assert (problem.path, problem.message) == ("pools.shared.mig", "the strategy of this pool is multi-lora")


def test_no_engine_spreads_over_slices(tmp_path: Path) -> None:
    data = changed("base_models/base/tensor_parallel_size", 2, with_slices(devices=[A]))
    assert [p.path for p in problems(tmp_path, data)] == ["base_models.base.tensor_parallel_size"]
    for flag in ("pipeline-parallel-size", "pipeline_parallel_size", "pipeline-par"):
        data = changed("base_models/base/vllm_args", {flag: 2}, with_slices(devices=[A]))
        problem = the_problem(tmp_path, data)
        assert problem.path == "base_models.base.vllm_args"
        assert problem.message.startswith(f"`--{flag}`: pool `shared` runs it on MIG slices")


@pytest.mark.parametrize("strategy", ["multi-lora", "model-mesh", "swap"])
@pytest.mark.parametrize("devices", [f"{A},{B}", f"0,{A}"])
def test_nor_does_one_of_another_strategy(tmp_path: Path, strategy: str, devices: str) -> None:
    pool = {"strategy": strategy, "base_models": ["base"], "tenants": ["gamma"], "devices": [devices]}
    problem = the_problem(tmp_path, changed("pools/alone", pool))
    assert problem.path == "pools.alone.devices[0]"
    assert problem.message == f"`{devices}`: an engine sees one MIG slice and nothing beside it"


def test_a_slice_of_one_pool_is_in_no_other(tmp_path: Path) -> None:
    slices = {"strategy": "mig", "base_models": ["base"], "tenants": ["gamma"]}
    data = changed("pools/alone", slices | {"devices": [B, A]}, with_slices(devices=[A]))
    problem = the_problem(tmp_path, data)
    assert problem.path == "pools.alone.devices[1]"
    assert problem.message == f"slice {A} has an engine already, in pool `shared`"
    data = changed("pools/alone/devices", [A], with_slices(devices=[A]))
    assert the_problem(tmp_path, data).path == "pools.alone.devices[0]"
    data = changed("pools/alone", slices | {"mig": FOUND}, with_slices(mig=FOUND))
    assert the_problem(tmp_path, data).message == (
        "pool `shared` takes slices 1g.20gb of GPU 3 too, and both would get the same"
    )


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (("4g.71gb", 1), ("3g.71gb", 1), None),
        (("4g.71gb", 1), ("1g.18gb", 4), "8 compute slices of GPU 3 are asked for together, and it has 7"),
        (("1g.18gb", 7), ("1g.35gb", 1), "8 compute slices of GPU 3 are asked for together, and it has 7"),
    ],
)
def test_pools_do_not_ask_a_gpu_for_more_than_it_has(
    tmp_path: Path, first: tuple[str, int], second: tuple[str, int], message: str | None
) -> None:
    def asked(profile: str, count: int) -> dict[str, Any]:
        return {"gpu": "3", "profile": profile, "count": count}

    alone = {"strategy": "mig", "base_models": ["base"], "tenants": ["gamma"], "mig": asked(*second)}
    data = changed("pools/alone", alone, with_slices(mig=asked(*first)))
    found = [(p.path, p.message) for p in problems(tmp_path, data)]
    assert found == ([] if message is None else [("pools.alone.mig", message)])
    data["pools"]["alone"]["mig"]["gpu"] = "4"
    assert not problems(tmp_path, data)


def test_a_gpu_is_whole_or_divided(tmp_path: Path) -> None:
    data = changed("pools/whole/devices", ["2,3"], with_slices(mig=FOUND))
    data["base_models"]["plain"]["tensor_parallel_size"] = 2
    problem = the_problem(tmp_path, data)
    assert problem.path == "pools.whole.devices[0]"
    assert problem.message == "GPU 3 is divided into slices for pool `shared`: its whole cannot be used"
    assert not problems(tmp_path, changed("pools/whole/devices", ["2,4"], data))


def test_slices_found_and_slices_named_may_be_the_same(tmp_path: Path) -> None:
    slices = {"strategy": "mig", "base_models": ["base"], "tenants": ["gamma"], "devices": [A]}
    found = warnings(tmp_path, changed("pools/alone", slices, with_slices(mig=FOUND)))
    told = "slices of `alone` are named by UUID: they may be the ones that this pool finds"
    assert ("pools.shared.mig", told) in [(w.path, w.message) for w in found]


def test_a_dedicated_tenants_slice_may_have_others_on_its_gpu(tmp_path: Path) -> None:
    def alone(**pool: Any) -> dict[str, Any]:
        return {"strategy": "mig", "base_models": ["base"], "tenants": ["gamma"], **pool}

    def told(data: dict[str, Any]) -> list[str]:
        return [w.message for w in warnings(tmp_path, data) if w.path == "tenants.gamma.isolation"]

    one = {"gpu": "3", "profile": "3g.71gb", "count": 1}
    data = changed("pools/alone", alone(mig=one), with_slices(mig=FOUND))
    assert told(data) == [
        "its MIG slices in pool `alone` are its own, and their GPU may also serve `shared`: "
        "memory and compute are isolated; power, clock and PCIe are shared"
    ]
    assert not told(changed("pools/alone", alone(mig=one | {"gpu": "4"}), with_slices(mig=FOUND)))
    assert len(told(changed("pools/alone", alone(devices=[C]), with_slices(devices=[A])))) == 1
    assert not told(changed("pools/alone", alone(devices=[C])))
    shared = {c.replica: c for c in who_shares(read_fleet(write(tmp_path, data)).fleet)}
    assert shared["alone-0"].on_its_gpu == ("shared-0", "shared-1")
    assert shared["shared-1"].on_its_gpu == ("shared-0", "alone-0")
    assert shared["whole-0"].on_its_gpu == () and not shared["whole-0"].is_slice


def test_hedging_needs_a_second_slice(tmp_path: Path) -> None:
    one, two = (with_slices(devices=devices, hedge_after_s=1) for devices in ([A], [A, B]))
    assert [w.message for w in warnings(tmp_path, one)] == [
        "there is no second replica to ask: there is one slice"
    ]
    assert not warnings(tmp_path, two)


def test_adapters_need_slots_as_on_whole_gpus(tmp_path: Path) -> None:
    data = changed("base_models/base/max_loras", 0, with_slices(devices=[A]))
    assert {p.message for p in problems(tmp_path, data) if p.path.startswith("adapters")} == {
        "base model `base` has no adapter slots"
    }


@pytest.mark.parametrize(
    ("cache_gib", "profile", "message"),
    [
        (None, "1g.1gb", "the weights (1.5 GiB) of `plain` do not fit a slice 1g.1gb"),
        (None, "1g.2gb", None),
        (0.6, "1g.2gb",
         "the weights (1.5 GiB) and the KV cache (0.6 GiB) of `plain` do not fit a slice 1g.2gb"),
        (2.5, "1g.2gb",
         "2.5 GiB leave no room for weights in a slice 1g.2gb of pool `whole`, which has less than 2 GiB"),
    ],
)  # fmt: skip
def test_a_model_larger_than_its_slice_is_refused(
    tmp_path: Path, cache_gib: float | None, profile: str, message: str | None
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    header = {"w": {"dtype": "F32", "shape": [3, 2**28], "data_offsets": [0, 3 * 2**30]}}
    raw = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + 3 * 2**30)  # a hole: nothing is written
    whole = {"strategy": "mig", "base_models": ["plain"], "tenants": ["alpha"]}
    data = changed("pools/whole", whole | {"mig": {"gpu": 0, "profile": profile}})
    data["base_models"]["plain"] = {"source": str(folder)} | (
        {"kv_cache_gib": cache_gib} if cache_gib else {}
    )
    path = write(tmp_path, data)
    try:
        read_fleet(path, files=True)
        found = []
    except FleetError as error:
        found = [p.message for p in error.problems if not p.path.startswith("adapters")]
    assert found == [] if message is None else message in found


def test_a_change_of_slices_needs_a_restart(tmp_path: Path) -> None:
    before = read_fleet(write(tmp_path, with_slices(mig=FOUND))).fleet
    pool = before.pools["shared"]
    after = replace(before, pools=before.pools | {"shared": replace(pool, mig=Mig("4", "1g.20gb", 2))})
    assert [(c.text, c.needs) for c in differences(before, after)] == [("gpu 3 -> 4", Needs.RESTART)]


def test_a_profile_says_compute_and_at_most_how_much_memory() -> None:
    assert (compute_slices("3g.71gb"), most_memory_bytes("1g.20gb+me")) == (3, 20 * 2**30)
    assert is_slice(A) and not is_slice("0") and not is_slice(f"{A},{B}")
    with pytest.raises(ValueError, match="is no profile"):
        compute_slices("whole")

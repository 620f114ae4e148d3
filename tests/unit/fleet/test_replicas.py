"""A range of replicas in a fleet file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet import read_fleet
from fleet.diff import Needs, differences
from fleet.pool_settings import HOLD_S, Scaling
from fleet.types import Fleet
from fleet.writer import write_fleet
from tests.unit.fleet.files import changed, declared, the_problem, write


def fleet_of(folder: Path, replicas: Any) -> Fleet:
    return read_fleet(write(folder, changed("pools/shared/replicas", replicas))).fleet


@pytest.mark.parametrize(
    ("said", "scaling"),
    [
        ({"min": 1, "max": 3}, Scaling(1)),
        ({"min": 0, "max": 3}, Scaling(0, HOLD_S)),
        ({"min": 0, "max": 3, "hold_s": 60}, Scaling(0, 60.0)),
        ({"min": 3, "max": 3}, Scaling(3)),
        (3, None),
    ],
)
def test_a_pool_declares_its_most_replicas_and_says_how_few_it_may_have(
    tmp_path: Path, said: Any, scaling: Scaling | None
) -> None:
    fleet = fleet_of(tmp_path, said)
    pool = fleet.pools["shared"]
    assert [name for name, _ in pool.replica_models] == ["shared-0", "shared-1", "shared-2"]
    assert (pool.replicas, pool.scaling) == (3, scaling)
    written = tmp_path / "written.yaml"
    written.write_text(write_fleet(fleet, key_variables={}))
    assert read_fleet(written).fleet.pools == fleet.pools


def test_a_whole_model_may_have_one_too(tmp_path: Path) -> None:
    fleet = read_fleet(write(tmp_path, changed("pools/whole/replicas", {"min": 0, "max": 2}))).fleet
    assert fleet.pools["whole"].scaling == Scaling(0)


def test_requests_may_take_as_long_as_they_are_held(tmp_path: Path) -> None:
    before = fleet_of(tmp_path, 3).longest_request_s
    after = fleet_of(tmp_path, {"min": 0, "max": 3, "hold_s": 900}).longest_request_s
    assert after - before == 900 - 30


@pytest.mark.parametrize(
    ("said", "path", "message"),
    [
        ({"min": 3, "max": 2}, "", "min is 3, above max, which is 2"),
        ({"min": 1}, "", "`max` is missing; add it"),
        ({"min": 1, "max": 2, "hold_s": 5}, "", "hold_s needs min: 0"),
        ({"min": -1, "max": 2}, ".min", "must be greater than or equal to 0"),
        ({"min": 0, "max": 0}, ".max", "must be greater than or equal to 1"),
        ({"min": 0, "max": 1025}, ".max", "must be less than or equal to 1024"),
        ({"min": 0, "max": 2, "hold_s": 0}, ".hold_s", "must be greater than 0"),
        ({"min": 1, "max": 2, "most": 3}, ".most", "unknown key `most`"),
        ({"min": "1", "max": 2}, ".min", "must be"),
        (0, "", "a pool that may have none is written {min: 0, max: NUMBER}"),
        (1025, "", "must be from 1 to 1024"),
        ("3", "", "is neither a whole number nor {min: NUMBER, max: NUMBER}"),
        (True, "", "is neither a whole number nor {min: NUMBER, max: NUMBER}"),
        ([1, 2], "", "is neither a whole number nor {min: NUMBER, max: NUMBER}"),
    ],
)
def test_a_wrong_one_is_named(tmp_path: Path, said: Any, path: str, message: str) -> None:
    problem = the_problem(tmp_path, changed("pools/shared/replicas", said))
    assert problem.path == f"pools.shared.replicas{path}"
    assert message in str(problem)


def test_slices_hosts_and_several_models_have_no_range(tmp_path: Path) -> None:
    data = declared()
    data["base_models"]["plain2"] = {"source": "org/plain2"}
    data["tenants"]["alpha"]["models"]["raw2"] = "plain2"
    whole = {"base_models": ["plain", "plain2"], "replicas": {"min": 1, "max": 2}, "tenants": ["alpha"]}
    for strategy, message in {
        "replica-per-model": "replicas are numbered model by model",
        "model-mesh": "hosts of strategy model-mesh do not come and go",
        "swap": "hosts of strategy swap do not come and go",
    }.items():
        data["pools"]["whole"] = whole | {"strategy": strategy}
        assert message in str(the_problem(tmp_path, data))
    sliced = changed("pools/alone", {"strategy": "mig", "base_models": ["base"], "tenants": ["gamma"]})
    sliced["pools"]["alone"] |= {"mig": {"gpu": "0", "profile": "1g.10gb"}, "replicas": {"min": 0, "max": 1}}
    assert "a range, for 1 slice: there is a replica on each" in str(the_problem(tmp_path, sliced))


def test_another_range_needs_nothing_and_is_said_in_words(tmp_path: Path) -> None:
    before = fleet_of(tmp_path, 2)
    ranged = fleet_of(tmp_path, {"min": 0, "max": 3, "hold_s": 60})
    found = differences(before, ranged)
    assert {change.needs for change in found} == {Needs.NOTHING}
    assert sorted(change.text for change in found) == [
        "hold_s none -> 60",
        "min none -> 0",
        "replica shared-2 joins",
    ]

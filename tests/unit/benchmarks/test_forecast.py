"""The forecast's demand, and how measured and simulated requests are compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.forecast import FLEETS, NAMES, _cells, demand, fleet_file
from fleet import read_fleet


def test_the_same_seed_gives_the_same_demand_of_every_model() -> None:
    planned = demand(120.0, 1)
    assert planned == demand(120.0, 1)
    assert {one.model for one in planned} == {*NAMES}
    assert [one.at_s for one in planned] == sorted(one.at_s for one in planned)


@pytest.mark.parametrize("name", FLEETS)
def test_every_fleet_is_read(name: str, tmp_path: Path) -> None:
    path = fleet_file(name, tmp_path)
    fleet = read_fleet(path, files=False).fleet
    assert fleet.pools["mesh"].awake == FLEETS[name]["awake"]
    assert fleet.pools["mesh"].replicas == FLEETS[name]["replicas"]


def test_a_row_says_how_far_the_simulation_is_off() -> None:
    requests = [
        {
            "at_s": float(i),
            "first_s": 1.0,
            "simulated_first_s": 1.1,
            "total_s": 2.0,
            "simulated_total_s": 2.0,
            "tokens": 10,
        }
        for i in range(11)
    ]
    assert _cells(requests) == ["1", "1.1", "+10%", "1", "1.1", "+10%", "9.17", "9.17"]

"""Files of costs: what is written is read, and what is wrong is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from planning.catalogue import BY_KIND
from planning.costs import Measured, roofline
from planning.reading.costs_file import read_costs, written
from planning.requests import DemandError
from planning.values import Device, Kind, Model

MODEL = Model("llama", Kind.WHOLE, "", "", "shape", 10**9, parameters=5 * 10**8)
CPU = Device("cpu", 0, 20e9, 1e12)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    two = [
        Measured(roofline(MODEL, BY_KIND["l4"]), "shape", BY_KIND["l4"]),
        Measured(replace(roofline(MODEL, CPU), switches={}), "", None),
    ]
    path.write_text(written(two))
    assert read_costs(path) == two


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told.pop("costs"),
        lambda told: told["costs"][0].pop("base_s"),
        lambda told: told["costs"][0]["base_s"].update(value=-1),
        lambda told: told["costs"][0]["base_s"].update(value="NaN"),
        lambda told: told["costs"][0]["base_s"].update(source="hearsay"),
        lambda told: told["costs"][0].update(switches={"magic": {}}),
        lambda told: told.update(costs=5),
    ],
)
def test_a_file_that_is_wrong_is_refused(tmp_path: Path, change: object) -> None:
    path = tmp_path / "costs.json"
    told = json.loads(written([Measured(roofline(MODEL, CPU), "", None)]))
    assert callable(change)
    change(told)
    path.write_text(json.dumps(told))
    with pytest.raises(DemandError, match=r"costs\.json is no file of costs"):
        read_costs(path)


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("{")
    with pytest.raises(DemandError, match="`tenantry plan calibrate` writes one"):
        read_costs(tmp_path / "c")

"""`tenantry devices` and `tenantry mig plan`: what they say of machines, fleets and wishes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from engines.devices.layout import Gpu, Machine, Slice
from engines.devices.nvml import NoNvml
from tenantry import devices, mig
from tenantry.app import app
from tests.unit.fleet.files import changed, write

RUN = CliRunner()
SLICES = (
    Slice("MIG-a1", "3g.71gb", 1, 3, 71168 << 20),
    Slice("MIG-a2", "1g.18gb", 9, 1, 16384 << 20),
    Slice("MIG-a3", "1g.18gb", 10, 1, 16384 << 20),
)
MACHINE = Machine(
    (
        Gpu(0, "GPU-w", "NVIDIA H200", 143000 << 20, False),
        Gpu(1, "GPU-a", "NVIDIA H200", 143000 << 20, True, SLICES),
        Gpu(2, "", "", fault="GPU is lost"),
    ),
    "580.1",
)


def run(*words: str) -> Any:
    return RUN.invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for module in (devices, mig):
        monkeypatch.setattr(module, "read_machine", lambda: MACHINE)


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def read() -> Machine:
        raise NoNvml("the NVIDIA driver is not loaded")

    for module in (devices, mig):
        monkeypatch.setattr(module, "read_machine", read)


def fleet() -> dict[str, Any]:
    """A pool on a whole GPU, one on slices of a profile, one on a slice that is not here."""
    data = changed("pools/whole/devices", [0])
    data = changed(
        "pools/shared",
        {
            "strategy": "mig",
            "base_models": ["base"],
            "tenants": ["alpha", "beta"],
            "mig": {"gpu": 1, "profile": "1g.18gb", "count": 2},
        },
        data,
    )
    gone = {"strategy": "mig", "base_models": ["base"], "tenants": ["gamma"], "devices": ["MIG-gone"]}
    return changed("pools/alone", gone, data)


def test_devices_shows_gpus_and_slices_and_who_is_on_them(tmp_path: Path) -> None:
    done = run("devices", str(write(tmp_path, fleet())))
    assert done.exit_code == 0
    text = done.stdout
    assert text.startswith("3 GPUs, 1 divided into 3 slices (driver 580.1)")
    rows = {cells[2].strip(): cells for line in text.splitlines() if (cells := line.split("│"))[2:]}
    assert [cell.strip() for cell in rows["MIG-a2"][3:6]] == ["slice 1g.18gb", "16.00 GiB", "shared-0"]
    assert rows["MIG-a3"][5].strip() == "shared-1" and rows["MIG-a1"][5].strip() == ""
    assert [cell.strip() for cell in rows["GPU-w"][3:6]] == [
        "NVIDIA H200, whole, MIG is off",
        "139.65 GiB",
        "whole-0",
    ]
    assert "does not answer: GPU is lost" in text
    assert (
        "alone-0: slice MIG-gone is not there: MIG is off on GPU 0 (NVIDIA H200); GPU 1 (NVIDIA H200) has"
        in text
    )


def test_devices_json_is_for_scripts(tmp_path: Path) -> None:
    told = json.loads(run("devices", str(write(tmp_path, fleet())), "--json").stdout)
    assert told["gpus"][1]["slices"][1] == {
        "uuid": "MIG-a2",
        "profile": "1g.18gb",
        "instance": 9,
        "compute": 1,
        "memory_bytes": 16384 << 20,
        "replicas": ["shared-0"],
    }
    assert [gpu["replicas"] for gpu in told["gpus"]] == [["whole-0"], [], []]
    assert [missing["replica"] for missing in told["not_here"]] == ["alone-0"]


def test_devices_needs_no_fleet_and_takes_the_one_that_is_there(tmp_path: Path) -> None:
    assert "shared-0" not in run("devices").stdout
    write(tmp_path, fleet())
    assert "shared-0" in run("devices").stdout


def test_a_gpu_that_is_not_here_is_named(tmp_path: Path) -> None:
    data = changed("pools/shared/devices", ["0,7"], changed("base_models/base/tensor_parallel_size", 2))
    done = run("devices", str(write(tmp_path, data)))
    assert "shared-0: this machine has no device 7" in done.stdout


@pytest.mark.usefixtures("no_driver")
def test_without_a_driver_that_is_the_answer(tmp_path: Path) -> None:
    done = run("devices")
    assert (done.exit_code, done.stdout) == (0, "the NVIDIA driver is not loaded\n")
    assert json.loads(run("devices", "--json").stdout)["gpus"] == []
    lines = run("devices", str(write(tmp_path, fleet()))).stdout.splitlines()
    assert lines[1:] == [
        "shared-0: 1g.18gb 0 of GPU 1 is not there",
        "shared-1: 1g.18gb 1 of GPU 1 is not there",
        "alone-0: MIG-gone is not there",
        "whole-0: 0 is not there",
    ]


def test_a_wrong_fleet_file_is_told(tmp_path: Path) -> None:
    done = run("devices", str(write(tmp_path, changed("pools/shared/mig", {"gpu": 1}))))
    assert done.exit_code == 1 and "profile" in done.stderr


# -- plans -------------------------------------------------------------------------------------------------


def test_a_plan_is_lines_for_both_tools_and_names_what_is_wasted() -> None:
    done = run("mig", "plan", "3g.71gb=2", "--model", "h200")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[:2] == ["GPU 0 (h200): 3g.71gb at 0, 3g.71gb at 4", "  wasted: 1 compute slice"]
    assert "nvidia-smi -i 0 -mig 1" in lines
    assert "nvidia-smi mig -i 0 -cgi 3g.71gb:0,3g.71gb:4 -C" in lines
    told = yaml.safe_load(done.stdout[done.stdout.index("version: v1") :])
    assert told["mig-configs"]["tenantry"] == [
        {"devices": [0], "mig-enabled": True, "mig-devices": {"3g.71gb": 2}}
    ]
    assert "wasted: memory slice 7" in run("mig", "plan", "1g.18gb=7", "--model", "h200").stdout
    assert "room left for 1 x 4g.71gb" in run("mig", "plan", "3g.71gb", "--model", "h200").stdout


def test_a_plan_for_a_pool_is_for_its_gpu(tmp_path: Path) -> None:
    path = write(tmp_path, fleet())
    told = json.loads(run("mig", "plan", "--fleet", str(path), "--json").stdout)
    (gpu,) = told["gpus"]
    assert (gpu["gpu"], gpu["name"], gpu["now"]) == (1, "NVIDIA H200", ["3g.71gb", "1g.18gb", "1g.18gb"])
    assert told["commands"] == ["nvidia-smi -i 1 -mig 1", "nvidia-smi mig -i 1 -cgi 1g.18gb:5,1g.18gb:6 -C"]
    shown = run("mig", "plan", "3g.71gb", "--fleet", str(path), "--pool", "shared", "--gpu", "1").stdout
    assert "nvidia-smi mig -i 1 -cgi 1g.18gb:2,1g.18gb:3,3g.71gb:4 -C" in shown
    assert "it has slices now (1 x 3g.71gb, 2 x 1g.18gb), which go first" in shown


def test_gpus_of_a_model_are_as_many_as_are_named() -> None:
    told = json.loads(
        run("mig", "plan", "4g.90gb=2", "--model", "b200", "--gpu", "2", "--gpu", "5", "--json").stdout
    )
    assert [gpu["gpu"] for gpu in told["gpus"]] == [2, 5]


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        ((), 2, "no slices are wanted"),
        (("1g.18gb=0",), 2, "'1g.18gb=0' is not PROFILE=COUNT"),
        (("1g.18gb=two",), 2, "is not PROFILE=COUNT"),
        (("large",), 2, "'large' is not PROFILE=COUNT"),
        (("1g.18gb=200",), 1, "more than 112 slices are wanted"),
        (("1g.18gb", "--model", "h300"), 2, "no model is called 'h300'; there are a100-40gb"),
        (("1g.18gb", "--pool", "p"), 2, "name that with --fleet"),
        (("1g.18gb=8", "--model", "h200"), 1, "the GPU given here has no room for 8 x 1g.18gb"),
        (("1g.10gb", "--model", "h200"), 1, "no GPU here has profile 1g.10gb; there are 1g.18gb"),
        (("1g.18gb", "--gpu", "2"), 1, "no GPU here has known MIG profiles; name their model with --model"),
        (("1g.18gb", "--gpu", "9"), 1, "no GPU here has known MIG profiles"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_in_a_sentence(words: tuple[str, ...], code: int, why: str) -> None:
    done = run("mig", "plan", *words)
    assert done.exit_code == code
    assert why in done.stderr
    assert not done.stdout


def test_pools_that_cannot_be_planned_are_told(tmp_path: Path) -> None:
    path = str(write(tmp_path, fleet()))
    for words, why in {
        ("--pool", "none"): "no pool is called 'none'; there are",
        ("--pool", "whole"): "no such pool asks for slices by GPU and profile",
    }.items():
        assert why in run("mig", "plan", "--fleet", path, *words).stderr
    by_uuid = changed("pools/shared/mig/gpu", "GPU-a", fleet())
    done = run("mig", "plan", "--fleet", str(write(tmp_path, by_uuid)))
    assert done.exit_code == 1 and "names its GPU by UUID" in done.stderr


@pytest.mark.usefixtures("no_driver")
def test_without_a_driver_a_plan_needs_the_gpus_model() -> None:
    done = run("mig", "plan", "1g.18gb")
    assert done.exit_code == 1
    assert done.stderr.strip() == "the NVIDIA driver is not loaded; name the GPUs' model with --model"
    assert run("mig", "plan", "1g.18gb", "--model", "h200").exit_code == 0

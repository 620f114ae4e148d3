"""Machines told by a driver of our own: what is said of each, and how an engine starts on its slice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.engines.devices.driver import answer_of, built, slices

SEVEN = [("1g.18gb", 1, 16384)] * 7
MIXED = [("3g.71gb", 3, 71168), ("1g.18gb", 1, 16384), ("1g.18gb", 1, 16384)]
TWO_IN_ONE = "1c.3g.71gb:MIG-x1:4:1:71168,1c.3g.71gb:MIG-x2:4:1:71168"


def h200(uuid: str, state: str, listed: str = "") -> str:
    return f"NVIDIA H200|GPU-{uuid}|143000|{state}|{listed}"


MACHINES = {
    "no driver": "",
    "driver not loaded": "unloaded",
    "no GPU": "",
    "MIG off": h200("a", "off"),
    "cannot be divided": "NVIDIA L4|GPU-a|22000|none",
    "slices": h200("a", "on", slices(*MIXED, of="a")),
    "seven slices": h200("a", "on", slices(*SEVEN, of="a")),
    "mixed": f"{h200('w', 'off')};{h200('a', 'on', slices(*MIXED, of='a'))};NVIDIA L4|GPU-l|22000|none",
    "several GPUs": f"{h200('b', 'on', slices(*SEVEN, of='b'))};{h200('a', 'on', slices(*MIXED, of='a'))}",
    "a slice gone": h200("a", "on", slices(*MIXED[1:], of="a", begin=2)),
    "divided, without slices": h200("a", "on"),
    "a GPU lost": f"{h200('b', 'lost')};{h200('a', 'on', slices(*MIXED, of='a'))}",
    "two compute instances in one": h200("a", "on", TWO_IN_ONE),
}
BY_UUID, BY_PLACE, FROM_ONE_GPU, OF_INSTANCE = WANTED = (
    {"uuid": "MIG-a1"},
    {"gpu": "1", "profile": "1g.18gb", "number": 1},
    {"gpu": "GPU-a", "profile": "1g.18gb", "number": 1},
    {"uuid": "MIG-x1"},
)
WEIGHTS = 2 * 2**30  # of the model, in halves
WORKSPACE = 2 * 2**30


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="module")
def answers(driver: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    model = tmp_path_factory.mktemp("model")
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2**30], "data_offsets": [0, WEIGHTS]}}).encode()
    with (model / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + WEIGHTS)  # a hole: nothing is written
    asked = {"machines": MACHINES, "wanted": WANTED, "model": {"name": "base", "source": str(model)}}
    return answer_of("tests.unit.engines.devices.asking", json.dumps(asked), driver=driver)


def started(mib: int, uuid: str) -> dict[str, Any]:
    """An engine that runs on a slice with all of its memory, as vLLM divides it."""
    left = int((mib << 20) * 0.92) - WEIGHTS - WORKSPACE
    return {"environment": {"CUDA_VISIBLE_DEVICES": uuid}, "kv_cache_bytes": left}


@pytest.mark.parametrize(
    ("machine", "state"),
    [
        ("no driver", "this machine has no NVIDIA driver: libnvidia-ml.so.1 is not found"),
        ("driver not loaded", "the NVIDIA driver is not loaded"),
        ("no GPU", "the driver finds no GPU"),
        ("MIG off", "1 GPU, MIG is off"),
        ("cannot be divided", "1 GPU, none can be divided"),
        ("slices", "1 GPU, 1 divided into 3 slices"),
        ("seven slices", "1 GPU, 1 divided into 7 slices"),
        ("mixed", "3 GPUs, 1 divided into 3 slices"),
        ("several GPUs", "2 GPUs, 2 divided into 10 slices"),
        ("a slice gone", "1 GPU, 1 divided into 2 slices"),
        ("divided, without slices", "1 GPU, 1 divided into 0 slices"),
        ("a GPU lost", "2 GPUs, 1 divided into 3 slices"),
    ],
)
def test_each_machine_has_a_state_in_a_sentence(answers: Any, machine: str, state: str) -> None:
    assert answers[machine]["told"]["state"] == state


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        ("no driver", "this machine has no NVIDIA driver: libnvidia-ml.so.1 is not found"),
        ("driver not loaded", "the NVIDIA driver is not loaded"),
        ("no GPU", "the driver finds no GPU on this machine"),
        ("MIG off", "MIG is off on GPU 0 (NVIDIA H200)"),
        ("cannot be divided", "GPU 0 (NVIDIA L4) cannot be divided"),
        ("a slice gone", "GPU 0 (NVIDIA H200) has MIG-a2 (1g.18gb), MIG-a3 (1g.18gb)"),
        ("divided, without slices", "GPU 0 (NVIDIA H200) has no slice"),
    ],
)
def test_without_its_slice_an_engine_does_not_start_and_says_what_there_is(
    answers: Any, machine: str, why: str
) -> None:
    assert answers[machine]["starts"][0] == {"error": f"slice MIG-a1 is not there: {why}"}


@pytest.mark.parametrize("machine", ["slices", "mixed", "several GPUs", "a GPU lost"])
def test_an_engine_gets_its_slice_wherever_that_is_and_the_slices_memory(answers: Any, machine: str) -> None:
    assert answers[machine]["starts"][0] == started(71168, "MIG-a1")
    assert answers[machine]["starts"][2] == started(16384, "MIG-a3")


def test_slices_of_a_profile_are_counted_on_the_gpu_that_is_named(answers: Any) -> None:
    assert answers["several GPUs"]["starts"][1] == started(16384, "MIG-a3")
    assert answers["a slice gone"]["starts"][2] == started(16384, "MIG-a3")
    why = "slice 1g.18gb 1 of GPU 1 is not there: this machine has no such GPU; it has 0"
    assert answers["seven slices"]["starts"][1] == {"error": why}
    assert answers["MIG off"]["starts"][2]["error"].endswith("MIG is off on GPU 0 (NVIDIA H200)")


def test_seven_slices_are_seven_devices(answers: Any) -> None:
    (gpu,) = answers["seven slices"]["told"]["gpus"]
    assert [(one["uuid"], one["profile"], one["memory_bytes"]) for one in gpu["slices"]] == [
        (f"MIG-a{number}", "1g.18gb", 16384 << 20) for number in range(1, 8)
    ]
    assert (gpu["memory_bytes"], gpu["mig"], gpu["name"]) == (143000 << 20, True, "NVIDIA H200")


def test_a_gpu_that_does_not_answer_hides_no_other(answers: Any) -> None:
    lost, found = answers["a GPU lost"]["told"]["gpus"]
    assert lost["fault"] and not lost["slices"]
    assert not found["fault"] and len(found["slices"]) == 3


def test_engines_do_not_share_a_slices_memory_unseen(answers: Any) -> None:
    error = answers["two compute instances in one"]["starts"][3]["error"]
    assert error.startswith(
        "slice MIG-x1 (1c.3g.71gb) shares its memory with MIG-x2: they are compute instances"
    )

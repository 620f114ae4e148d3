"""What vLLM asks the driver about slices: wrong by itself, right once it is corrected.

When `test_vllm_is_still_wrong_by_itself` fails, vLLM is another version or does it right: remove
`engines/devices/vllm_guard.py`, or check it against that version.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from engines.devices import vllm_guard
from tests.unit.engines.devices.driver import answer_of, built, slices

# Two GPUs, told apart by their memory: the second is divided.
MACHINE = (
    "NVIDIA H200|GPU-w|143000|off|;"
    f"NVIDIA B200|GPU-d|183000|on|{slices(('1g.23gb', 1, 23000), ('2g.45gb', 2, 46000), of='d')}"
)
RESERVED_MIB = 512  # which vLLM counts with the rest


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    devices = ("0", "1", "GPU-d", "MIG-d1", "MIG-d2", "MIG-gone")
    driver: Path = built(tmp_path_factory.mktemp("driver"))
    return answer_of("tests.unit.engines.devices.asking_vllm", *devices, driver=driver, machine=MACHINE)


def test_vllm_is_still_wrong_by_itself(answer: Any) -> None:
    assert tuple(answer["version"]) == vllm_guard.CORRECTED_VERSION
    by_itself = answer["by itself"]
    assert by_itself["MIG-d1"] == [0, 143000 + RESERVED_MIB]  # another GPU, and all of its memory
    assert by_itself["MIG-d2"] == [1, 183000 + RESERVED_MIB]  # its GPU by chance, with all of the memory


def test_corrected_it_says_the_slices_gpu_and_the_slices_memory(answer: Any) -> None:
    assert answer["corrected"]["MIG-d1"] == [1, 23000 + RESERVED_MIB]
    assert answer["corrected"]["MIG-d2"] == [1, 46000 + RESERVED_MIB]


def test_whole_gpus_and_devices_that_are_not_there_stay_as_they_were(answer: Any) -> None:
    for devices in ("0", "1", "GPU-d", "MIG-gone"):
        assert answer["corrected"][devices] == answer["by itself"][devices]
    assert answer["corrected"]["GPU-d"] == [1, 183000 + RESERVED_MIB]
    assert answer["corrected"]["MIG-gone"] == ["NVMLError_NotFound"]


def test_an_engine_on_cpus_is_left_alone(answer: Any) -> None:
    assert answer["on CPUs"] == answer["by itself"]


@pytest.mark.parametrize("devices", [None, "", "0", "0,1", "GPU-d"])
def test_without_a_slice_vllm_is_not_even_imported(
    monkeypatch: pytest.MonkeyPatch, devices: str | None
) -> None:
    if devices is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    monkeypatch.setitem(sys.modules, "vllm", None)  # an import would fail
    vllm_guard.correct_vllm()


@pytest.mark.parametrize(
    ("version", "is_cuda", "corrected"),
    [
        ((0, 32, 0), True, 1),
        ((0, 32, 1), True, 1),
        ((0, 33, 0), True, 0),
        ((1, 0, 0), True, 0),
        ((0, 32, 0), False, 0),
    ],
)
def test_only_the_version_that_is_wrong_is_corrected(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], is_cuda: bool, corrected: int
) -> None:
    vllm, platforms, cuda = (ModuleType(name) for name in ("vllm", "vllm.platforms", "vllm.platforms.cuda"))
    vllm.__version_tuple__ = version  # type: ignore[attr-defined]
    vllm.platforms, platforms.cuda = platforms, cuda  # type: ignore[attr-defined]
    platforms.current_platform = SimpleNamespace(is_cuda=lambda: is_cuda)  # type: ignore[attr-defined]
    for module in (vllm, platforms, cuda):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-d1")
    done: list[ModuleType] = []
    monkeypatch.setattr(vllm_guard, "correct", done.append)
    vllm_guard.correct_vllm()
    assert done == [cuda] * corrected


def test_a_vllm_without_these_functions_is_told() -> None:
    cuda = ModuleType("vllm.platforms.cuda")
    cuda.NvmlCudaPlatform, cuda.pynvml = SimpleNamespace(), None  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="has no device_control_id_to_physical_device_id"):
        vllm_guard.correct(cuda)

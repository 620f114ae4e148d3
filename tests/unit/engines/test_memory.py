"""What do engines take of a machine's memory, or of its GPUs'? On files and a driver that are made up."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engines import orphans
from engines.memory import DeviceMemory, MachineMemory, memory_of_host

KIB, MIB, GIB = 2**10, 2**20, 2**30


def machine(root: Path, *, group: tuple[str, int, int] | None = None) -> MachineMemory:
    """A machine with 8 GiB, 6 of them free; `group` is bound, use and cached files of the control group."""
    (root / "proc").mkdir()
    lines = {"MemTotal": 8 * GIB, "MemFree": GIB, "MemAvailable": 6 * GIB}
    text = "".join(f"{name}:       {value // KIB} kB\n" for name, value in lines.items())
    (root / "proc/meminfo").write_text(text)
    if group is not None:
        folder = root / "sys/fs/cgroup"
        folder.mkdir(parents=True)
        (folder / "memory.max").write_text(f"{group[0]}\n")
        (folder / "memory.current").write_text(f"{group[1]}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {group[2]}\n")
    return MachineMemory(root)


def process(root: Path, pid: int, environment: dict[str, str], pss_kib: int | None) -> None:
    folder = root / "proc" / str(pid)
    folder.mkdir()
    (folder / "environ").write_text("".join(f"{name}={value}\0" for name, value in environment.items()))
    if pss_kib is not None:
        (folder / "smaps_rollup").write_text(f"Rss: {2 * pss_kib} kB\nPss:      {pss_kib} kB\n")


@pytest.mark.parametrize(
    ("group", "free"),
    [
        (None, 6 * GIB),
        (("max", 3 * GIB, GIB), 6 * GIB),
        ((str(4 * GIB), 3 * GIB, GIB), 2 * GIB),
        ((str(4 * GIB), 5 * GIB, 0), 0),
    ],
    ids=["no group", "no bound", "a bound", "beyond it"],
)
def test_free_is_what_the_machine_and_the_control_group_have(
    tmp_path: Path, group: tuple[str, int, int] | None, free: int
) -> None:
    memory = machine(tmp_path, group=group)
    assert (memory.free_bytes(), memory.used_bytes()) == (free, 8 * GIB - free)


def test_a_replica_takes_its_processes_parts(tmp_path: Path) -> None:
    memory = machine(tmp_path)
    (tmp_path / "proc" / str(os.getpid())).symlink_to(f"/proc/{os.getpid()}")
    mine, other = orphans.mark("mesh-0.even"), orphans.mark("mesh-0.odd")
    process(tmp_path, 71, mine, 100)
    process(tmp_path, 72, mine, 20)
    process(tmp_path, 73, mine, None)  # it is about to end
    process(tmp_path, 74, other, 5000)
    process(tmp_path, 75, {"PATH": "/bin"}, 5000)
    assert memory.of("mesh-0.even", 0) == 120 * KIB
    assert memory.of("mesh-0.third", 0) == 0


def test_what_the_kernel_does_not_tell_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 5 kB\n")
    for ask in (MachineMemory(tmp_path).free_bytes, MachineMemory(tmp_path / "none").used_bytes):
        with pytest.raises(OSError):
            ask()


def test_the_memory_of_this_machine_can_be_read() -> None:
    memory = memory_of_host(on_cpu=True)
    assert memory.free_bytes() > 0 and memory.used_bytes() >= 0
    assert isinstance(memory_of_host(on_cpu=False), DeviceMemory)


class NVMLError(Exception):
    """As the driver's library raises."""


class FakeNvml:
    """The driver's library with GPUs of 80 GiB each, and one slice."""

    NVMLError = NVMLError

    def __init__(self, used: dict[str, int], running: dict[str, dict[int, int | None]] | None = None):
        self.used, self.running = used, running or {}
        self.opened = 0

    def nvmlInit(self) -> None:
        self.opened += 1

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return f"gpu {index}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid not in self.used:
            raise NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetMemoryInfo(self, device: str) -> Any:
        used = self.used[device]
        return SimpleNamespace(used=used, free=80 * GIB - used)

    def nvmlDeviceGetComputeRunningProcesses(self, device: str) -> list[Any]:
        running = self.running.get(device, {})
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in running.items()]


USED = {"gpu 0": 30 * GIB, "gpu 1": 10 * GIB, "MIG-1": 5 * GIB}


@pytest.mark.parametrize(
    ("visible", "used", "count"),
    [("", 40, 2), ("1", 10, 1), ("0,1", 40, 2), ("MIG-1", 5, 1)],
)
def test_a_host_has_the_memory_of_the_devices_that_it_sees(
    monkeypatch: pytest.MonkeyPatch, visible: str, used: int, count: int
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    nvml = FakeNvml(USED)
    memory = DeviceMemory(nvml)
    assert memory.used_bytes() == used * GIB
    assert memory.free_bytes() == (80 * count - used) * GIB
    assert nvml.opened == 1, "opening it takes long"


@pytest.mark.parametrize(
    ("running", "taken"),
    [({7: 3 * GIB, 8: GIB, 9: 50 * GIB}, 4), ({9: 50 * GIB}, 6), ({7: None}, 6), ({}, 6)],
    ids=["known to the driver", "in a container", "not told", "nobody"],
)
def test_a_replica_takes_what_its_processes_have_or_what_is_used_more_than_before(
    monkeypatch: pytest.MonkeyPatch, running: dict[int, int | None], taken: int
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(orphans, "own", lambda replica: [7, 8] if replica == "mesh-0.even" else [])
    memory = DeviceMemory(FakeNvml(USED, {"gpu 0": running}))
    assert memory.of("mesh-0.even", 24 * GIB) == taken * GIB
    assert memory.of("mesh-0.even", 99 * GIB) == (taken if taken == 4 else 0) * GIB


@pytest.mark.parametrize("visible", ["MIG-gone", "0"])
def test_a_driver_that_does_not_answer_is_an_error_and_is_opened_anew(
    monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    nvml: Any = FakeNvml(USED)
    memory, init = DeviceMemory(nvml), nvml.nvmlInit
    if visible == "0":
        nvml.nvmlInit = lambda: (_ for _ in ()).throw(NVMLError("Driver Not Loaded"))
    with pytest.raises(OSError, match="the GPU's driver does not answer: "):
        memory.free_bytes()
    nvml.nvmlInit, nvml.opened = init, 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert memory.free_bytes() == 50 * GIB and nvml.opened == 1

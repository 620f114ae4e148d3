"""How much memory the engines of a host take, measured, and how much is free for others.

On a CPU that is the machine's memory, or the control group's; on a GPU the memory of the host's devices, as
the driver (NVML) tells it. Linux only. Everything here raises `OSError` where nothing can be measured.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from engines import orphans


class Memory(Protocol):
    """The memory in which a host's engines are awake."""

    def free_bytes(self) -> int:
        """Return what nobody uses now."""
        ...

    def used_bytes(self) -> int:
        """Return what is used now, by anybody."""
        ...

    def of(self, replica: str, before_bytes: int) -> int:
        """Return what a replica's engine takes, where `before_bytes` were used before it was there."""
        ...


def memory_of_host(*, on_cpu: bool) -> Memory:
    """Return the memory that counts for this process's engines."""
    return MachineMemory() if on_cpu else DeviceMemory()


class MachineMemory:
    """The memory of this machine, or of the control group (version 2) in which the process runs."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._proc = root / "proc"
        self._group = root / "sys/fs/cgroup"

    def free_bytes(self) -> int:
        """Return what could be used without swapping."""
        available = _field(self._proc / "meminfo", "MemAvailable")
        with contextlib.suppress(OSError, ValueError):  # `max`: the group has no bound
            bound = int((self._group / "memory.max").read_text())
            used = int((self._group / "memory.current").read_text())
            cached = _field(self._group / "memory.stat", "inactive_file", unit=1)
            available = min(available, bound - used + cached)
        return max(0, available)

    def used_bytes(self) -> int:
        """Return what is used, not counting caches."""
        return _field(self._proc / "meminfo", "MemTotal") - self.free_bytes()

    def of(self, replica: str, before_bytes: int) -> int:
        """Return the parts of memory that its processes have: pages of several count in parts."""
        total = 0
        for pid in orphans.own(replica, self._proc):
            with contextlib.suppress(OSError):  # it has ended
                total += _field(self._proc / str(pid) / "smaps_rollup", "Pss")
        return total


class DeviceMemory:
    """The memory of the GPUs, or slices of one, that this process sees."""

    def __init__(self, nvml: Any = None) -> None:
        """`nvml` is the module `pynvml`, imported where it is first needed."""
        self._nvml = nvml
        self._is_open = False

    def free_bytes(self) -> int:
        """Return what is free on all of them."""
        with self._devices() as (nvml, devices):
            return sum(int(nvml.nvmlDeviceGetMemoryInfo(device).free) for device in devices)

    def used_bytes(self) -> int:
        """Return what is used on all of them."""
        with self._devices() as (nvml, devices):
            return sum(int(nvml.nvmlDeviceGetMemoryInfo(device).used) for device in devices)

    def of(self, replica: str, before_bytes: int) -> int:
        """Return what the driver says of its processes.

        In a container the driver may not know them: then what is used more than before.
        """
        pids = set(orphans.own(replica))
        with self._devices() as (nvml, devices):
            told = [
                int(process.usedGpuMemory or 0)
                for device in devices
                for process in nvml.nvmlDeviceGetComputeRunningProcesses(device)
                if process.pid in pids
            ]
        return sum(told) or max(0, self.used_bytes() - before_bytes)

    @contextlib.contextmanager
    def _devices(self) -> Iterator[tuple[Any, list[Any]]]:
        """Find the devices; the driver stays open, since opening it takes long. Raises `OSError`."""
        try:
            nvml = self._nvml = self._nvml or importlib.import_module("pynvml")
            if not self._is_open:
                nvml.nvmlInit()
                self._is_open = True
            yield nvml, [_device(nvml, name) for name in _visible(nvml)]
        except Exception as error:  # the driver's library has its own, for each version
            self._is_open = False
            raise OSError(f"the GPU's driver does not answer: {error}") from error


def _visible(nvml: Any) -> list[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return named.split(",") if named else [str(i) for i in range(nvml.nvmlDeviceGetCount())]


def _device(nvml: Any, name: str) -> Any:
    """Return the handle of a GPU by its number, of a GPU or slice by its UUID."""
    return (
        nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else nvml.nvmlDeviceGetHandleByUUID(name)
    )


def _field(path: Path, name: str, unit: int = 1024) -> int:
    """Return a field of a file of the kernel, in bytes. Raises `OSError`."""
    for line in path.read_text().splitlines():
        words = line.replace(":", " ").split()
        if words and words[0] == name:
            return int(words[1]) * unit
    raise OSError(f"{path} has no {name}")

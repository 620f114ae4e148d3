"""Reads GPUs, MIG slices and profiles from NVIDIA's driver, through nvidia-ml-py. No CUDA context is made."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

from engines.devices.layout import Gpu, Machine, Profile, Slice

_MIG_NAME = "MIG "  # before the profile in a slice's or profile's name: NVIDIA H200 MIG 1g.18gb


class NoNvml(Exception):
    """This machine's GPUs cannot be read; says why in one sentence, for operators."""


def read_machine() -> Machine:
    """Return what the driver tells now. Raises `NoNvml`.

    A GPU that does not answer is there with its fault, so that it hides no other.
    """
    try:
        import pynvml as nvml
    except ImportError:
        raise NoNvml("NVIDIA's GPUs cannot be read: the package nvidia-ml-py is not installed") from None
    with _session(nvml):
        count = nvml.nvmlDeviceGetCount()
        driver = _text(nvml.nvmlSystemGetDriverVersion())
        return Machine(tuple(_gpu(nvml, index) for index in range(count)), driver)


@contextlib.contextmanager
def _session(nvml: Any) -> Iterator[None]:
    """Begin and end a use of NVML. Raises `NoNvml`."""
    try:
        nvml.nvmlInit()
        try:
            yield
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError_LibraryNotFound:
        raise NoNvml("this machine has no NVIDIA driver: libnvidia-ml.so.1 is not found") from None
    except nvml.NVMLError_DriverNotLoaded:
        raise NoNvml("the NVIDIA driver is not loaded") from None
    except nvml.NVMLError as error:
        raise NoNvml(f"the NVIDIA driver does not answer: {error}") from None


def _gpu(nvml: Any, index: int) -> Gpu:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid, name = _text(nvml.nvmlDeviceGetUUID(handle)), _text(nvml.nvmlDeviceGetName(handle))
        mig = _is_divided(nvml, handle)
        return Gpu(
            index,
            uuid,
            name,
            _usable_bytes(nvml, handle),
            mig,
            tuple(_slices(nvml, handle)) if mig else (),
            tuple(_profiles(nvml, handle)) if mig else (),
        )
    except nvml.NVMLError as error:
        return Gpu(index, "", "", fault=str(error))


def _is_divided(nvml: Any, handle: Any) -> bool | None:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError_NotSupported:
        return None
    return bool(current == nvml.NVML_DEVICE_MIG_ENABLE)


def _slices(nvml: Any, gpu: Any) -> Iterator[Slice]:
    for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
        try:
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, number)
        except nvml.NVMLError_NotFound:
            continue  # numbers of slices need not follow each other
        yield Slice(
            _text(nvml.nvmlDeviceGetUUID(handle)),
            _profile_of(_text(nvml.nvmlDeviceGetName(handle))),
            nvml.nvmlDeviceGetGpuInstanceId(handle),
            nvml.nvmlDeviceGetAttributes(handle).gpuInstanceSliceCount,
            _usable_bytes(nvml, handle),
        )


def _profiles(nvml: Any, gpu: Any) -> Iterator[Profile]:
    """Read the profiles that the driver offers; one without placements cannot be planned, and is left out."""
    for number in range(nvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
        try:
            info = nvml.nvmlDeviceGetGpuInstanceProfileInfo(gpu, number)
            count = ctypes.c_uint(0)
            nvml.nvmlDeviceGetGpuInstancePossiblePlacements(gpu, info.id, None, ctypes.byref(count))
            places = (nvml.c_nvmlGpuInstancePlacement_t * count.value)()
            nvml.nvmlDeviceGetGpuInstancePossiblePlacements(gpu, info.id, places, ctypes.byref(count))
        except nvml.NVMLError:  # not of this GPU, or not for this user
            continue
        if count.value:
            yield Profile(
                _profile_of(_text(info.name)),
                info.sliceCount,
                places[0].size,
                tuple(sorted(place.start for place in places[: count.value])),
                info.memorySizeMB * 2**20,
                info.instanceCount,
            )


def _usable_bytes(nvml: Any, handle: Any) -> int:
    """Return the memory without what the driver keeps for itself."""
    memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    return int(memory.total - memory.reserved)


def _profile_of(name: str) -> str:
    return name.rpartition(_MIG_NAME)[2]


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value

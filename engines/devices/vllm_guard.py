"""Corrects what vLLM asks the driver about a MIG slice, in each process of an engine that runs on one.

vLLM 0.32 (`platforms/cuda.py`) takes the index of a slice under its GPU for the index of a GPU, and reads
that GPU's memory. On a machine with several GPUs that is another GPU; its memory is a whole GPU's in any
case (vllm-project/vllm#50463, open for 0.32). Two functions are replaced, for this version only: a test with
a driver of its own fails once vLLM is another or does it right, and says that this module is to be removed.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

from engines.devices.layout import DEVICES_VARIABLE
from fleet.mig import UUID_PREFIX

CORRECTED_VERSION = (0, 32)
_REPLACED = ("device_control_id_to_physical_device_id", "get_device_total_memory")


def correct_vllm() -> None:
    """Correct vLLM in this process where its device is a slice; imports it then."""
    if not os.environ.get(DEVICES_VARIABLE, "").startswith(UUID_PREFIX):
        return
    import vllm
    from vllm.platforms import current_platform

    if current_platform.is_cuda() and vllm.__version_tuple__[:2] == CORRECTED_VERSION:
        import vllm.platforms.cuda

        correct(vllm.platforms.cuda)


def correct(cuda: ModuleType) -> None:
    """Replace both functions in vLLM's module. Raises `RuntimeError` if it has them no longer."""
    platform, nvml = cuda.NvmlCudaPlatform, cuda.pynvml
    for name in _REPLACED:
        if not hasattr(platform, name):
            raise RuntimeError(f"vLLM's {cuda.__name__} has no {name}: check this correction against it")
    total_of_gpu = platform.get_device_total_memory.__func__

    @cuda.with_nvml_context  # type: ignore[untyped-decorator]
    def physical(_: Any, device_id: str) -> int:
        """Return the index of a GPU, or of the GPU of a slice."""
        if device_id.isdecimal():
            return int(device_id)
        handle = nvml.nvmlDeviceGetHandleByUUID(device_id)
        if nvml.nvmlDeviceIsMigDeviceHandle(handle):
            handle = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
        return int(nvml.nvmlDeviceGetIndex(handle))

    @cuda.with_nvml_context  # type: ignore[untyped-decorator]
    def total(cls: Any, device_id: int = 0) -> int:
        """Return the memory of a device in bytes: of a slice its own."""
        devices = os.environ.get(DEVICES_VARIABLE, "").split(",")
        if device_id < len(devices) and devices[device_id].startswith(UUID_PREFIX):
            handle = nvml.nvmlDeviceGetHandleByUUID(devices[device_id])
            return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
        return int(total_of_gpu(cls, device_id))

    platform.device_control_id_to_physical_device_id = classmethod(physical)
    platform.get_device_total_memory = classmethod(total)

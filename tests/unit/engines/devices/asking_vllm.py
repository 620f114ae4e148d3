"""A process beside the tests: what vLLM's CUDA platform says of devices, by itself and corrected.

Its arguments are values of CUDA_VISIBLE_DEVICES. The CPU build has the platform's module, and lacks the
compiled operators that it imports: empty modules stand for those.
"""

from __future__ import annotations

import json
import os
import sys
import types
from typing import Any

for operators in ("vllm._C_stable_libtorch", "vllm._moe_C_stable_libtorch"):
    sys.modules.setdefault(operators, types.ModuleType(operators))

import vllm  # noqa: E402
import vllm.platforms.cuda as cuda  # noqa: E402

from engines.devices.vllm_guard import correct, correct_vllm  # noqa: E402


def said(devices: str) -> list[Any]:
    """Index of the first device's GPU, and its memory in MiB."""
    os.environ["CUDA_VISIBLE_DEVICES"] = devices
    platform = cuda.NvmlCudaPlatform
    try:
        index: Any = platform.device_id_to_physical_device_id(0)
        return [index, platform.get_device_total_memory(0) >> 20]
    except cuda.pynvml.NVMLError as error:
        return [type(error).__name__]


def main() -> None:
    """Answer."""
    by_itself = {devices: said(devices) for devices in sys.argv[1:]}
    correct_vllm()  # changes nothing where vLLM runs on CPUs
    untouched = {devices: said(devices) for devices in sys.argv[1:]}
    correct(cuda)
    corrected = {devices: said(devices) for devices in sys.argv[1:]}
    version = list(vllm.__version_tuple__[:2])
    answer = {"version": version, "by itself": by_itself, "on CPUs": untouched, "corrected": corrected}
    print(json.dumps(answer))  # noqa: T201


if __name__ == "__main__":
    main()

"""GPUs that are commonly rented or bought, as planning needs them. Pure; prices are yours to give.

Bandwidth and dense 16-bit tensor operations are NVIDIA's, from the data sheet of each GPU (its SXM form
where it has one; halves of the figures with sparsity). Memory is what nvidia-smi shows of it, which is less
than its name says. The link to the host is what copies reach, not what PCIe's name says.
"""

from __future__ import annotations

import re
from dataclasses import replace

from engines.devices.layout import Gpu
from engines.devices.profiles import BY_NAME, MODELS, known_profiles, profiles_of
from planning.values import Device

_GEN4, _GEN5 = 25e9, 50e9  # bytes a second that cudaMemcpy reaches from pinned memory over 16 lanes
_MIB = 2**20


def _device(
    kind: str,
    memory_mib: int,
    bandwidth: float,
    teraflops: float,
    link: float,
    sheet: str,
    *,
    mig: bool = True,
) -> Device:
    return Device(
        kind=kind,
        memory_bytes=memory_mib * _MIB,
        bandwidth=bandwidth,
        flops=teraflops * 1e12,
        host_link=link,
        profiles=profiles_of(BY_NAME[kind]) if mig else (),
        source=f"NVIDIA's data sheet of the {sheet}",
    )


DEVICES: tuple[Device, ...] = (
    _device("a100-40gb", 40_960, 1.555e12, 312, _GEN4, "A100 40GB SXM"),
    _device("a100-80gb", 81_920, 2.039e12, 312, _GEN4, "A100 80GB SXM"),
    _device("h100-80gb", 81_559, 3.35e12, 989, _GEN5, "H100 SXM"),
    _device("h200", 143_771, 4.8e12, 989, _GEN5, "H200 SXM"),
    _device("b200", 183_359, 8.0e12, 2250, _GEN5, "DGX B200, an eighth of it"),
    _device("l4", 23_034, 3.0e11, 121, _GEN4, "L4", mig=False),
    _device("l40s", 46_068, 8.64e11, 362, _GEN4, "L40S", mig=False),
    _device("a10g", 23_028, 6.0e11, 70, _GEN4, "A10G", mig=False),
)
BY_KIND = {device.kind: device for device in DEVICES}
# In the driver's names of GPUs that cannot be divided; `engines.devices.profiles` knows the others.
_WHOLE = ((r"\bL40S\b", "l40s"), (r"\bL4\b", "l4"), (r"\bA10G\b", "a10g"))


def known(kind: str) -> Device | None:
    """Return a device of the catalogue, or of a MIG slice as `h200/1g.18gb`; None: it has none such."""
    whole, _, profile = kind.strip().lower().partition("/")
    device = BY_KIND.get(whole)
    if device is None or not profile:
        return device
    return next((device.slice_of(one) for one in device.profiles if one.name == profile), None)


def device_of(gpu: Gpu) -> Device | None:
    """Return what a GPU of a machine is, with the memory that its driver tells; None: it is not known."""
    gib = gpu.memory_bytes / 2**30
    divisible = ((one.pattern, one.name) for one in MODELS if gib <= one.up_to_gib)
    for pattern, kind in (*_WHOLE, *divisible):
        if kind in BY_KIND and re.search(pattern, gpu.name):
            device = BY_KIND[kind]
            profiles = known_profiles(gpu) if device.profiles else ()
            return replace(device, memory_bytes=gpu.memory_bytes or device.memory_bytes, profiles=profiles)
    return None

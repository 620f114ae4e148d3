"""The MIG profiles of known GPUs, for machines whose driver does not tell them: MIG is off, or no GPU. Pure.

From NVIDIA's MIG User Guide, "Supported MIG Profiles". All of these GPUs have eight memory slices and seven
compute slices, and profiles of the same sizes and places; only memory differs. Profiles with other media
engines (`+me`, `+gfx`) are left out: a driver that has MIG on tells them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from engines.devices.layout import Gpu, Profile

MEMORY_SLICES = 8
COMPUTE_SLICES = 7
# compute slices, memory slices, how many on one GPU, where one may start
_SHAPES = (
    (1, 1, 7, (0, 1, 2, 3, 4, 5, 6)),
    (1, 2, 4, (0, 2, 4, 6)),
    (2, 2, 3, (0, 2, 4)),
    (3, 4, 2, (0, 4)),
    (4, 4, 1, (0,)),
    (7, 8, 1, (0,)),
)


@dataclass(frozen=True, slots=True)
class Model:
    """GPUs of one model and memory size."""

    name: str  # as the command takes it
    gibs: tuple[int, int, int, int]  # in the names of profiles of 1, 2, 4 and 8 memory slices
    pattern: str  # in the driver's name of the GPU
    up_to_gib: float = float("inf")  # of memory, where a name means several sizes


# In the order in which a GPU is looked for.
MODELS = (
    Model("a100-40gb", (5, 10, 20, 40), r"\bA100\b", 50),
    Model("a100-80gb", (10, 20, 40, 80), r"\b(A100|A800)\b"),
    Model("h100-80gb", (10, 20, 40, 80), r"\b(H100|H800)\b", 85),
    Model("h100-96gb", (12, 24, 48, 96), r"\b(H100|H800|GH200)\b", 100),
    Model("h200", (18, 35, 71, 141), r"\b(H200|GH200)\b"),
    Model("b200", (23, 45, 90, 180), r"\bB200\b"),
)
BY_NAME = {model.name: model for model in MODELS}


def profiles_of(model: Model) -> tuple[Profile, ...]:
    """Return the profiles of a model; memory as their names say, which is more than can be used."""
    names = dict(zip((1, 2, 4, 8), model.gibs, strict=True))
    return tuple(
        Profile(f"{compute}g.{names[size]}gb", compute, size, starts, names[size] * 2**30, most)
        for compute, size, most, starts in _SHAPES
    )


def known_profiles(gpu: Gpu) -> tuple[Profile, ...]:
    """Return what the driver tells of a GPU's profiles, else the known ones of its model; empty: neither."""
    if gpu.profiles:
        return gpu.profiles
    for model in MODELS:
        if re.search(model.pattern, gpu.name) and gpu.memory_bytes / 2**30 <= model.up_to_gib:
            return profiles_of(model)
    return ()

"""MIG slices as a fleet file names them: by UUID, or by profile on one GPU. Pure; knows no driver.

A profile such as `1g.20gb` says how many of a GPU's seven compute slices a slice has, and about how much
memory. The memory that can be used is less: of an H200's `1g.35gb` 32.5 GiB. It is never more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_COMPUTE_SLICES = 7  # of every GPU with MIG
PROFILE_PATTERN = r"^[1-7]g\.[0-9]{1,3}gb(\+[a-z0-9.]{1,16})?$"
UUID_PREFIX = "MIG-"
_SIZES = re.compile(r"(\d)g\.(\d+)gb")


@dataclass(frozen=True, slots=True)
class Mig:
    """The slices of one profile on one GPU."""

    gpu: str  # its index as `nvidia-smi` counts, or its UUID
    profile: str  # such as 1g.20gb
    count: int  # how many of them


@dataclass(frozen=True, slots=True)
class SliceName:
    """What names the one slice of a replica: its UUID, or its place among those of a profile on a GPU."""

    uuid: str = ""
    gpu: str = ""
    profile: str = ""
    number: int = 0  # of those of this profile on this GPU, from 0, in the order of their places there

    def __str__(self) -> str:
        return self.uuid or f"{self.profile} {self.number} of GPU {self.gpu}"


def compute_slices(profile: str) -> int:
    """Return how many compute slices a profile has. Raises `ValueError` for what is no profile."""
    return _sizes(profile)[0]


def most_memory_bytes(profile: str) -> int:
    """Return what no slice of this profile exceeds, in bytes. Raises `ValueError` for what is no profile."""
    return _sizes(profile)[1] * 2**30


def is_slice(device: str) -> bool:
    """Whether a device of a fleet file is one MIG slice, named by its UUID."""
    return device.startswith(UUID_PREFIX) and "," not in device


def _sizes(profile: str) -> tuple[int, int]:
    found = _SIZES.match(profile)
    if found is None:
        raise ValueError(f"{profile!r} is no profile of a MIG slice")
    return int(found[1]), int(found[2])

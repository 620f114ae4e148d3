"""Says whether an engine's processes have room for what they exchange, before they are started.

vLLM's processes talk through a ring of 10 chunks in `/dev/shm` (0.32: `MessageQueue`, a chunk as large as
VLLM_MQ_MAX_CHUNK_BYTES_MB says). Without the room the engine ends after half a minute; containers have
64 MiB by default.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

PLACE = Path("/dev/shm")  # noqa: S108
CHUNKS = 10
CHUNK_MIB = 16  # vLLM's default


class NoSharedMemory(Exception):
    """`/dev/shm` is too small for an engine; says the remedy."""


def exchanges(workers: int, on_cpu: bool) -> bool:
    """Whether an engine's processes exchange anything: on a GPU a single worker runs within its core."""
    return workers > 1 or on_cpu


def require(*, workers: int, on_cpu: bool, place: Path = PLACE, env: Mapping[str, str] = os.environ) -> None:
    """Raise `NoSharedMemory` where an engine of so many worker processes would not start."""
    if not exchanges(workers, on_cpu) or not place.is_dir():
        return
    chunk = env.get("VLLM_MQ_MAX_CHUNK_BYTES_MB", "")
    needed_mib = CHUNKS * (int(chunk) if chunk.isdecimal() else CHUNK_MIB)
    free_mib = shutil.disk_usage(place).free >> 20
    if free_mib < needed_mib:
        raise NoSharedMemory(
            f"an engine needs {needed_mib} MiB of {place}, which has {free_mib} MiB free: run the container "
            "with --shm-size 1g, or with an emptyDir of medium Memory there"
        )

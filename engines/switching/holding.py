"""Keeps the weights of models that leave in host memory, as long as the machine has enough of it.

How much is free is asked before each copy, not believed: other hosts, adapters and page caches share it. What
would not leave the reserve free is not copied; models that were put longest ago make room first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engines.switching.live import LiveEngine
from engines.switching.shape import Contents

COPY_WITHIN_S = 120.0
RESERVE = 0.1  # of the machine's memory, and at least
MIN_RESERVE_BYTES = 2 * 2**30  # a kernel that runs out of memory ends processes of its own choice
log = logging.getLogger("tenantry.engine")


@dataclass(frozen=True, slots=True)
class HostMemory:
    """Memory of this machine, or of the container that this process is in."""

    total_bytes: int
    available_bytes: int

    @property
    def spare_bytes(self) -> int:
        """What may be taken: what is available beyond the reserve."""
        return max(0, self.available_bytes - max(int(RESERVE * self.total_bytes), MIN_RESERVE_BYTES))


def host_memory(meminfo: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> HostMemory:
    """Ask the kernel; the container's bound counts where it is lower (cgroup v2). Raises `OSError`."""
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    total, available = (int(lines[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return HostMemory(total, available)
    if limit.isdecimal() and used.isdecimal():
        total, available = min(total, int(limit)), min(available, max(0, int(limit) - int(used)))
    return HostMemory(total, available)


def who_makes_room(held: Mapping[str, int], needed_bytes: int, spare_bytes: int) -> tuple[str, ...] | None:
    """Return the copies to drop, in their order, so that another one fits; None if it does not even then."""
    dropped: list[str] = []
    for digest, size in held.items():
        if needed_bytes <= spare_bytes:
            break
        dropped.append(digest)
        spare_bytes += size
    return tuple(dropped) if needed_bytes <= spare_bytes else None


class Holding:
    """Copies weights before a model leaves an engine in place."""

    def __init__(self, memory: Callable[[], HostMemory] = host_memory) -> None:
        self._memory = memory

    async def keep(self, live: LiveEngine, contents: Contents | None) -> None:
        """Copy the weights of the model that is live, unless they are held, or there is no room.

        Raises `WaySpoiled` if the engine dies.
        """
        identity = live.identity
        # Kernels keep parts of quantised weights where they cannot be copied.
        if identity is None or contents is None or contents.is_quantised or identity.digest in live.held:
            return
        leaving = who_makes_room(live.held, contents.weight_bytes, self._memory().spare_bytes)
        if leaving is None:
            log.info("%s: its weights (%d MiB) are not kept in host memory: too little is free",
                     live.model.name, contents.weight_bytes // 2**20)  # fmt: skip
            return
        for digest in leaving:
            del live.held[digest]
            await live.call(live.engine.collective_rpc("tenantry_drop", args=(digest,)), COPY_WITHIN_S)
        try:
            await live.call(
                live.engine.collective_rpc("tenantry_hold", args=(identity.digest,)), COPY_WITHIN_S
            )
        except Exception as error:  # of the worker, which goes on; whatever it is, reload remains
            if live.engine.errored:
                raise
            log.warning("%s: its weights are not kept in host memory: %s", live.model.name, error)
            return
        live.held[identity.digest] = contents.weight_bytes

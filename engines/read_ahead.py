"""Reads a model's weights ahead of its turn, so that they come from memory: the kernel's cache of files.

It takes no memory that anybody needs, since the kernel gives that cache up first; and it is not begun where
the files would not fit beside the reserve, for then they would only push one another out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from engines.switching.holding import HostMemory, host_memory

CHUNK_BYTES = 8 * 2**20
log = logging.getLogger("tenantry.engine")


class ReadAhead:
    """The reading of one host: one model at a time, in a thread."""

    def __init__(self, memory: Callable[[], HostMemory] = host_memory) -> None:
        self._memory = memory
        self._reading: asyncio.Task[None] | None = None
        self._stopped = False

    def begin(self, name: str, folder: Path) -> None:
        """Begin to read a model's weights, unless others are being read; returns at once."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(asyncio.to_thread(self._read, name, folder))

    async def stop(self) -> None:
        """Read no more."""
        self._stopped = True
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)

    def _read(self, name: str, folder: Path) -> None:
        try:
            files = [(path, path.stat().st_size) for path in sorted(folder.glob("*.safetensors"))]
            if sum(size for _, size in files) > self._memory().spare_bytes:
                log.debug("%s is not read ahead: its weights do not fit into what is free", name)
                return
            buffer = bytearray(CHUNK_BYTES)
            for path, _ in files:
                with path.open("rb", buffering=0) as file:
                    while not self._stopped and file.readinto(buffer):
                        pass
        except OSError as error:  # whoever needs them says so
            log.debug("%s is not read ahead: %s", name, error)

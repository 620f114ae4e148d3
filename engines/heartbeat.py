"""Does the engine's core still run? Sends it a call that it answers between its steps, all the time.

A dead engine is reported as such; one that hangs (a stuck kernel, a stopped process, a lost NCCL peer) says
nothing, and vLLM's own health check only detects death. A call into EngineCore is answered by its loop
between two steps, however many requests wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

INTERVAL_S = 1.0
# A GPU's step takes well below a second. On a CPU one step may prefill thousands of tokens.
SILENT_AFTER_S = 5.0
SILENT_AFTER_ON_CPU_S = 30.0


class Heartbeat:
    """The sign of life of one engine, from its start to its death."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[object]],
        *,
        silent_after_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ask` returns once the core has answered."""
        self._ask = ask
        self._silent_after_s = silent_after_s
        self._clock = clock
        self._asked_s: float | None = None  # while an answer is awaited

    def is_silent(self) -> bool:
        """Whether the core has been asked and has not answered for too long."""
        return self._asked_s is not None and self._clock() - self._asked_s > self._silent_after_s

    async def run(self) -> None:
        """Ask until cancelled, or until asking fails, which is how a dead engine answers."""
        while True:
            self._asked_s = self._clock()
            try:
                await self._ask()
            finally:
                self._asked_s = None
            await asyncio.sleep(INTERVAL_S)

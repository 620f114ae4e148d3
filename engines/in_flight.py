"""The requests that an engine is answering, so that its weights are exchanged under none of them."""

from __future__ import annotations

import asyncio
from types import TracebackType


class InFlight:
    """Counts requests from their first step in this process to their last; closed, it lets no more begin."""

    def __init__(self) -> None:
        self.is_closed = False
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    def __enter__(self) -> None:
        self._count += 1
        self._none.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._count -= 1
        if not self._count:
            self._none.set()

    async def close(self, within_s: float) -> None:
        """Let no more begin, and wait for those that run. Raises `TimeoutError`: then it is open again."""
        self.is_closed = True
        try:
            async with asyncio.timeout(within_s):
                await self._none.wait()
        except BaseException:
            self.is_closed = False
            raise

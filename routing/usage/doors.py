"""How many may look at usage at once? One of each tenant, so that none keeps the database from others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from routing.errors import CapReached

RETRY_AFTER_S = 1.0


class Doors:
    """Lets one query of each tenant in, and refuses the next until it has been answered."""

    def __init__(self) -> None:
        self._inside: set[str] = set()

    @asynccontextmanager
    async def enter(self, tenant: str) -> AsyncIterator[None]:
        """Be inside. Raises `CapReached` where the tenant is already."""
        if tenant in self._inside:
            raise CapReached(
                "A query of your usage is still being answered; wait for it.",
                code="usage_query_running",
                retry_after_s=RETRY_AFTER_S,
            )
        self._inside.add(tenant)
        try:
            yield
        finally:
            self._inside.discard(tenant)

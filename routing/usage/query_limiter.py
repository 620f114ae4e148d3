"""How many queries of usage run at once? One of each tenant, so that none keeps the database from others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from routing.errors import CapReached

RETRY_AFTER_S = 1.0


class QueryLimiter:
    """Lets one query of each tenant run, and refuses the next until that one is answered."""

    def __init__(self) -> None:
        self._running: set[str] = set()  # tenants

    @asynccontextmanager
    async def running(self, tenant: str) -> AsyncIterator[None]:
        """Run a query of a tenant. Raises `CapReached` while another one of that tenant runs."""
        if tenant in self._running:
            raise CapReached(
                "A query of your usage is still being answered; wait for it.",
                code="usage_query_running",
                retry_after_s=RETRY_AFTER_S,
            )
        self._running.add(tenant)
        try:
            yield
        finally:
            self._running.discard(tenant)

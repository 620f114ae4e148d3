"""How much did the caller use? A tenant's own sums from the ledger, and its month's budget."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import orjson

from fleet.types import NO_LIMITS
from routing.asgi import JSON, Exchange
from routing.catalog.declared import Identity
from routing.errors import Forbidden
from routing.http.callers import Callers
from routing.observing.ended import EndedRequests
from routing.usage import Ledger
from routing.usage.query import FOR_TENANTS, answer, only_known, read_query
from routing.usage.query_limiter import QueryLimiter

USAGE_PATH = "/v1/usage"


class OwnUsage:
    """Answers `GET /v1/usage`."""

    def __init__(self, callers: Callers, ledger: Ledger, ended: EndedRequests) -> None:
        self._callers = callers
        self._ledger = ledger
        self._ended = ended
        self._queries = QueryLimiter()

    async def answer(self, exchange: Exchange) -> None:
        """Send what the caller's tenant used. Raises the `RequestError` of what is wrong."""
        exchange.require_method("GET")
        identity, account = self._callers.identity(exchange), self._callers.account(exchange)
        if account is None:
            raise Forbidden("An operator's key is nobody's here; /admin/v1/usage shows every tenant's usage.")
        fields = only_known(exchange.query(), ("from", "to", "group_by"))
        query = read_query(fields, now_s=time.time(), tenant=account, allowed=FOR_TENANTS)
        async with self._queries.running(account):
            self._ended.flush()
            told = answer(query, await self._ledger.sums(query), self._ledger.budgets.currency)
        status = self._ledger.budgets.status(account, time.time())
        told |= {"budget": None if status is None else status.answer(), "key": self._own_key(identity)}
        await exchange.respond(200, [JSON], orjson.dumps(told))

    def _own_key(self, identity: Identity) -> dict[str, Any]:
        """Describe the key that asks: its id, its own limits, and how it stands in its budget."""
        status = self._ledger.key_budgets.status(identity.key, time.time())
        return {
            "id": identity.key,
            "limits": asdict(identity.limits or NO_LIMITS),
            "budget": None if status is None else status.answer(),
        }

"""Is the service well, which release is it, and how much has the caller running? What load tools ask first.

Names and shapes are those of vLLM's server. Health is told to everybody, since load balancers have no key;
the release to whoever has a key; the load to a tenant as far as it is the tenant's own.
"""

from __future__ import annotations

from collections.abc import Callable

import orjson

from fleet.release import VERSION
from routing.asgi import JSON, Exchange
from routing.errors import Unavailable
from routing.http.callers import Callers
from routing.scheduling.dispatcher import Dispatcher

HEALTH_PATH = "/health"
PING_PATH = "/ping"  # SageMaker's name for it
VERSION_PATH = "/version"
LOAD_PATH = "/load"
HEALTH_PATHS = frozenset({HEALTH_PATH, PING_PATH})  # which need no key and no state
PATHS = frozenset({VERSION_PATH, LOAD_PATH})

_NOT_READY = Unavailable(
    "Not every model has a replica that is ready.", code="service_not_ready", retry_after_s=1.0
)


class Probes:
    """Answers `HEALTH_PATHS` and `PATHS`."""

    def __init__(self, callers: Callers, dispatcher: Dispatcher, is_ready: Callable[[], bool]) -> None:
        """`is_ready` is what `/readyz` asks."""
        self._callers = callers
        self._dispatcher = dispatcher
        self._is_ready = is_ready

    async def answer_health(self, exchange: Exchange, path: str) -> None:
        """Send an empty 200 while every model can be answered, else a 503, which counts as no refusal."""
        exchange.require_method("GET", *(["POST"] if path == PING_PATH else []))
        if self._is_ready():
            await exchange.respond(200, [], b"")
        else:
            await exchange.refuse(_NOT_READY)

    async def answer(self, exchange: Exchange, path: str) -> None:
        """Send the release, or the load. Raises `InvalidKey`, `AccountSuspended`."""
        exchange.require_method("GET")
        identity = self._callers.identity(exchange)
        self._callers.account(exchange)  # refuses one that is suspended
        if path == VERSION_PATH:
            told: dict[str, object] = {"version": VERSION}
        else:
            running = self._dispatcher.admitted().items()
            own = (count for (tenant, _), count in running if identity.tenant in (None, tenant))
            told = {"server_load": sum(own)}
        await exchange.respond(200, [JSON], orjson.dumps(told))

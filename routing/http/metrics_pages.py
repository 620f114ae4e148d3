"""What do scrapers get? The gateway's own metrics page, and vLLM's page of each replica."""

from __future__ import annotations

from collections.abc import Mapping

from fleet.current import CurrentFleet
from fleet.types import MetricsAccess
from routing.asgi import Exchange
from routing.errors import InvalidKey, RouteNotFound, Unavailable
from routing.http.callers import Callers
from routing.observing.ended import EndedRequests
from routing.observing.metrics import GatewayMetrics, TextFormat
from routing.replicas.client import ReplicaClient
from routing.replicas.http1 import UpstreamError
from routing.scheduling.state import Replica

METRICS_PATH = "/metrics"


class MetricsPages:
    """Answers `GET /metrics` and `GET /metrics/REPLICA`."""

    def __init__(
        self,
        fleet: CurrentFleet,
        callers: Callers,
        metrics: GatewayMetrics,
        ended: EndedRequests,
        replicas: Mapping[str, Replica],
        clients: Mapping[Replica, ReplicaClient],
    ) -> None:
        """`replicas` have a page each, by name; `clients` reach those that are known to be somewhere."""
        self._fleet = fleet
        self._callers = callers
        self._metrics = metrics
        self._ended = ended
        self._replicas = replicas
        self._clients = clients

    async def answer(self, exchange: Exchange, replica: str) -> None:
        """Send a page; without a name the gateway's. Raises `InvalidKey`, `RouteNotFound`, `Unavailable`."""
        exchange.require_method("GET")
        self._authorize(exchange)
        if replica:
            kind, page = TextFormat.PROMETHEUS.value, await self._page_of(replica)
        else:
            self._ended.flush()
            kind, page = await self._metrics.read(exchange.headers.accept)
        await exchange.respond(200, [(b"content-type", kind)], page)

    def _authorize(self, exchange: Exchange) -> None:
        """Let the operator in; the pages name every tenant. Raises `InvalidKey`."""
        access = self._fleet.now.gateway.metrics_access
        if access is MetricsAccess.OPEN:
            return
        if access is MetricsAccess.LOOPBACK and exchange.is_local:
            return
        if not self._callers.is_operator(exchange):
            raise InvalidKey("Metrics need an operator key (gateway.operator_keys in fleet.yaml).")

    async def _page_of(self, replica: str) -> bytes:
        found = self._replicas.get(replica)
        if found is None:
            raise RouteNotFound("There is no such replica.")
        # Where one was that is gone may be somebody else, who must not be shown the token.
        client = None if found.engine.told is None else self._clients.get(found)
        try:
            if client is not None:
                return await client.metrics()
        except (UpstreamError, TimeoutError):
            pass
        raise Unavailable("The replica does not answer.", retry_after_s=5.0)

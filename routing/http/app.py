"""The ASGI application that clients talk to: which part answers a route, and what is an error told as?

A raw application, since a framework's layers would cost more than all of its work.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from engines.protocol import FILES_PATH, MODEL_FILES_PATH, Kind
from fleet.current import CurrentFleet
from routing.asgi import App, ClientGone, Exchange, Headers, Receive, Scope, Send, random_id
from routing.errors import RequestError, still_starting
from routing.flights.endings import CLIENT_CLOSED_REQUEST, Abort
from routing.http.batches import BATCHES_PATH, Batches
from routing.http.callers import Callers
from routing.http.files import FILES_ROUTE, Files
from routing.http.inference import Inference
from routing.http.metrics_pages import METRICS_PATH, MetricsPages
from routing.http.models import MODELS_PATH, Models
from routing.http.own_document import OwnDocument
from routing.http.own_usage import USAGE_PATH, OwnUsage
from routing.http.probes import HEALTH_PATHS, Probes
from routing.http.probes import PATHS as PROBES
from routing.http.stored_responses import RESPONSES_PATH, StoredResponses
from routing.http.version_files import VersionFiles
from routing.observing.ended import EndedRequests
from routing.observing.metrics import GatewayMetrics
from routing.openai import bodies

HELD_AT_START_S = (
    10.0  # reading the state takes a moment, or two seconds with 10 000 tenants made at run time
)
LOOKS_EVERY_S = 0.02
log = logging.getLogger("tenantry.gateway")


_Part = Models | Files | Batches | StoredResponses | MetricsPages


@dataclass(frozen=True, slots=True)
class GatewayApp:
    """Hands each request to the part that answers its route; an error that it raises is the answer."""

    fleet: CurrentFleet
    callers: Callers
    inference: Inference
    models: Models
    usage: OwnUsage
    metrics_pages: MetricsPages
    probes: Probes
    files: Files
    batches: Batches
    responses: StoredResponses
    adapter_files: VersionFiles
    model_files: VersionFiles
    admin: App
    is_admin: Callable[[str], bool]  # whether a path is the admin API's
    site: OwnDocument
    metrics: GatewayMetrics
    ended: EndedRequests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Headers.of(scope)
        request_id = bodies.sane_request_id(headers.request_id) or random_id()
        exchange = Exchange(scope, receive, send, headers, [(b"x-request-id", request_id.encode())])
        if scope["path"].startswith(_ANTHROPIC):
            exchange.as_anthropic = True
            exchange.answer_headers.append((b"request-id", request_id.encode()))  # where its clients look
        try:
            if self.callers.local_only and not exchange.is_local:
                self.callers.refuse_local_only(exchange)
            connection = exchange.connection
            if connection is not None and connection.is_stranger:
                self.callers.show_key(exchange, connection)
            await self._route(exchange, request_id)
        except RequestError as error:
            if exchange.method != "OPTIONS":  # which is answered, as far as there is the route
                self.metrics.refused(error.status, error.code)
            await exchange.refuse(error)
        except ClientGone:
            self.metrics.refused(CLIENT_CLOSED_REQUEST, Abort.CLIENT_GONE)
        except Exception:  # BentoML would leave the client without an answer until its timeout
            log.exception("request %s met an error in the gateway", request_id)
            with contextlib.suppress(Exception):
                await exchange.refuse(RequestError("The gateway met an error of its own."))

    async def _route(self, exchange: Exchange, request_id: str) -> None:
        path = exchange.path
        if path not in _ENDPOINTS:
            path = path.removesuffix("/")  # some clients add it; it means nothing
        if path in HEALTH_PATHS:
            return await self.probes.answer_health(exchange, path)
        if not self.fleet.is_known:
            await self._until_known()
        if path in _ENDPOINTS:
            exchange.require_method("POST")
            await self.inference.answer(exchange, _ENDPOINTS[path], request_id)
        elif self.is_admin(exchange.path):
            self.ended.flush()  # an operator's figures are of now
            await exchange.hand_over(self.admin)
        elif (found := self._part(path)) is not None:
            part, below = found
            await part.answer(exchange, below)
        elif path == USAGE_PATH:
            await self.usage.answer(exchange)
        elif path in PROBES:
            await self.probes.answer(exchange, path)
        else:
            await self._answer_file(exchange, path)

    async def _answer_file(self, exchange: Exchange, path: str) -> None:
        if path.startswith(FILES_PATH):
            await self.adapter_files.answer(exchange, path[len(FILES_PATH) :])
        elif path.startswith(MODEL_FILES_PATH):
            await self.model_files.answer(exchange, path[len(MODEL_FILES_PATH) :])
        else:
            await self.site.respond(exchange)

    def _part(
        self, path: str
    ) -> tuple[Models | Files | Batches | StoredResponses | MetricsPages, str] | None:
        """Return the part with routes below its own, and the path there; None: no such part answers."""
        for prefix, part in (
            (MODELS_PATH, self.models),
            (FILES_ROUTE, self.files),
            (BATCHES_PATH, self.batches),
            (RESPONSES_PATH, self.responses),
            (METRICS_PATH, self.metrics_pages),
        ):
            if path == prefix or path.startswith(f"{prefix}/"):
                return part, path[len(prefix) + 1 :]
        return None

    async def _until_known(self) -> None:
        """Hold a request that comes at the start: a key that was taken out before would open something.

        Raises `Unavailable` where the state stays unknown, as while its database does not answer.
        """
        until_s = time.monotonic() + HELD_AT_START_S
        while not self.fleet.is_known:
            if time.monotonic() >= until_s:
                raise still_starting(1.0)
            await asyncio.sleep(LOOKS_EVERY_S)


_ANTHROPIC = Kind.MESSAGES.value  # and what is below it
_ENDPOINTS: dict[str, Kind] = {kind.value: kind for kind in Kind} | {
    "/v1/score": Kind.SCORE,
    "/v1/rerank": Kind.RERANK,
}

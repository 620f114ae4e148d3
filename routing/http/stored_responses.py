"""What of a response can be asked for later? Nothing: engines keep none, as tenants would share the store."""

from __future__ import annotations

from routing.asgi import Exchange
from routing.errors import NotFound, RouteNotFound
from routing.http.callers import Callers

RESPONSES_PATH = "/v1/responses"
_METHODS = {"": ("GET", "DELETE"), "cancel": ("POST",), "input_items": ("GET",)}


class StoredResponses:
    """Answers what is below `/v1/responses`, as OpenAI does for a response that is not there."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    async def answer(self, exchange: Exchange, below: str) -> None:
        """Refuse. Raises the `RequestError` of it."""
        response_id, _, part = below.partition("/")
        methods = _METHODS.get(part)
        if not response_id or methods is None:
            raise RouteNotFound("There is no such route.")
        exchange.require_method(*methods)
        self._callers.tenant(exchange)
        raise NotFound(
            "This service stores no responses: keep what `POST /v1/responses` answers.",
            code="response_not_found",
            param="response_id",
        )

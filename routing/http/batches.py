"""The routes of batches: create, list, describe, cancel; each tenant has its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from fleet.current import CurrentFleet
from routing.asgi import Exchange
from routing.batches.answers import batch_answer
from routing.batches.desk import Desk, check_window
from routing.errors import InvalidRequest, RouteNotFound
from routing.http.callers import Callers
from routing.http.files import kept_for, list_answer, page_of, respond
from routing.usage.query import only_known

BATCHES_PATH = "/v1/batches"
MAX_BODY_BYTES = 64 * 2**10
MAX_PAIRS, MAX_KEY, MAX_VALUE = 16, 64, 512  # of metadata; OpenAI's own bounds


class Batches:
    """Answers `/v1/batches` and what is below it."""

    def __init__(self, fleet: CurrentFleet, callers: Callers, desk: Desk) -> None:
        self._fleet = fleet
        self._callers = callers
        self._desk = desk

    async def answer(self, exchange: Exchange, below: str) -> None:
        """Answer one request; `below` is the path below the route's. Raises `RequestError`."""
        batch_id, _, part = below.partition("/")
        if part not in ("", "cancel") or (part and not batch_id):
            raise RouteNotFound("There is no such route.")
        exchange.require_method(*(("POST",) if part else ("GET",) if batch_id else ("GET", "POST")))
        tenant, identity = self._callers.tenant(exchange)
        account = tenant.account
        if part:
            await respond(exchange, batch_answer(await self._desk.cancel(account, batch_id)))
        elif batch_id:
            await respond(exchange, batch_answer(await self._desk.batch(account, batch_id)))
        elif exchange.method == "POST":
            await self._create(exchange, account, identity.key)
        else:
            await self._list(exchange, account)

    async def _create(self, exchange: Exchange, account: str, key: str) -> None:
        body = await exchange.read_json(
            limit_bytes=MAX_BODY_BYTES, timeout_s=self._fleet.now.gateway.body_timeout_s
        )
        told = _object(body)
        check_window(told.get("completion_window"))
        batch = await self._desk.create(
            account,
            key,
            file_id=_text(told, "input_file_id"),
            endpoint=_text(told, "endpoint"),
            metadata=_metadata(told.get("metadata")),
            keep_s=_keep_s(told.get("output_expires_after")),
        )
        await respond(exchange, batch_answer(batch))

    async def _list(self, exchange: Exchange, account: str) -> None:
        page = page_of(only_known(exchange.query(), ("limit", "after")), default=20, most=100)
        found = await self._desk.batches(account, page)
        await respond(exchange, list_answer([batch_answer(batch) for batch in found], page))


def _object(body: bytes) -> dict[str, Any]:
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(told, dict):
        raise InvalidRequest("The body must be a JSON object.", code="invalid_json")
    return told


def _text(told: Mapping[str, Any], name: str) -> str:
    value = told.get(name)
    if value is None:
        raise InvalidRequest(f"`{name}` is required.", param=name, code="missing_required_parameter")
    if not isinstance(value, str):
        raise InvalidRequest(f"`{name}` must be a string.", param=name, code="invalid_type")
    return value


def _keep_s(value: Any) -> float | None:
    if value is None:
        return None
    told = value if isinstance(value, dict) else {}
    return kept_for("output_expires_after", told.get("anchor"), told.get("seconds"))


def _metadata(value: Any) -> dict[str, str] | None:
    if value is None:
        return None
    pairs = value.items() if isinstance(value, dict) else [("", None)]
    fits = len(pairs) <= MAX_PAIRS and all(
        isinstance(text, str) and len(key) <= MAX_KEY and len(text) <= MAX_VALUE for key, text in pairs
    )
    if not fits:
        raise InvalidRequest(
            f"`metadata` is an object of at most {MAX_PAIRS} texts, of {MAX_VALUE} characters each.",
            param="metadata",
            code="invalid_value",
        )
    return dict(value)

"""The routes of files: upload, list, describe, read, delete; each tenant has its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import orjson

from fleet.current import CurrentFleet
from routing.asgi import JSON, ClientGone, Exchange
from routing.batches.desk import Desk
from routing.batches.store import Page
from routing.batches.values import INPUT_PURPOSE, StoredFile
from routing.errors import BodyTimeout, InvalidRequest, RouteNotFound
from routing.http.callers import Callers
from routing.http.forms import FORM_OVERHEAD_BYTES, Form
from routing.usage.query import only_known

FILES_ROUTE = "/v1/files"
MAX_PAGE = 1000
LEAST_KEPT_S, MOST_KEPT_S = 3600, 2_592_000  # that a client may ask for; OpenAI's own bounds
UPLOAD_S = 3600.0  # of one upload
PARTS_BYTES = 256 * 2**10  # are read from the form at once, in a thread


class Files:
    """Answers `/v1/files` and what is below it."""

    def __init__(self, fleet: CurrentFleet, callers: Callers, desk: Desk) -> None:
        self._fleet = fleet
        self._callers = callers
        self._desk = desk

    async def answer(self, exchange: Exchange, below: str) -> None:
        """Answer one request; `below` is the path below the route's. Raises `RequestError`."""
        file_id, _, part = below.partition("/")
        if part not in ("", "content") or (part and not file_id):
            raise RouteNotFound("There is no such route.")
        exchange.require_method("GET", *(() if part else ("DELETE",) if file_id else ("POST",)))
        account = self._callers.tenant(exchange)[0].account
        if part:
            await self._send(exchange, await self._desk.file(account, file_id))
        elif file_id and exchange.method == "DELETE":
            await self._desk.delete(account, file_id)
            await respond(exchange, {"id": file_id, "object": "file", "deleted": True})
        elif file_id:
            await respond(exchange, file_answer(await self._desk.file(account, file_id)))
        elif exchange.method == "POST":
            await self._create(exchange, account)
        else:
            await self._list(exchange, account)

    async def _create(self, exchange: Exchange, account: str) -> None:
        async with self._desk.upload(account) as writer:
            form = Form(exchange.headers.content_type, writer.write)
            try:
                async with asyncio.timeout(UPLOAD_S):
                    await self._receive(exchange, form)
            except TimeoutError:
                raise BodyTimeout(f"The upload took longer than {UPLOAD_S:g} s.") from None
            keep_s = _check(form)
            file = await self._desk.keep(account, writer, form.filename or "", keep_s)
        await respond(exchange, file_answer(file))

    async def _receive(self, exchange: Exchange, form: Form) -> None:
        """Read a form as it comes, in a thread: neither its size nor a slow disk holds up others."""
        waiting = bytearray()
        parts = exchange.body_parts(
            limit_bytes=self._desk.max_file_bytes + FORM_OVERHEAD_BYTES,
            timeout_s=self._fleet.now.gateway.body_timeout_s,
        )
        async for part in parts:
            waiting += part
            if len(waiting) >= PARTS_BYTES:
                await self._desk.write(partial(form.feed, bytes(waiting)))
                waiting.clear()
        await self._desk.write(partial(form.feed, bytes(waiting)))
        form.finish()

    async def _list(self, exchange: Exchange, account: str) -> None:
        fields = only_known(exchange.query(), ("purpose", "limit", "order", "after"))
        page = page_of(fields, default=MAX_PAGE, most=MAX_PAGE)
        found = await self._desk.files(account, page, fields.get("purpose"))
        await respond(exchange, list_answer([file_answer(file) for file in found], page))

    async def _send(self, exchange: Exchange, file: StoredFile) -> None:
        content = self._desk.content(file)
        piece = await anext(content, b"")
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", b"%d" % file.size_bytes),
            (b"content-disposition", b"attachment"),
            (b"x-content-type-options", b"nosniff"),
        ]
        await exchange.begin(200, headers)
        stall_s, is_head = self._fleet.now.gateway.stall_timeout_s, exchange.method == "HEAD"
        try:
            while piece and not is_head:
                async with asyncio.timeout(stall_s):
                    await exchange.send_body(piece, more=True)
                piece = await anext(content, b"")
            await exchange.send_body(b"", more=False)
        except (TimeoutError, OSError):
            raise ClientGone from None


def _check(form: Form) -> float | None:
    """Return how long a client wants a file kept; None: as long as can be. Raises `InvalidRequest`."""
    purpose = form.fields.get("purpose")
    if purpose != INPUT_PURPOSE:
        raise InvalidRequest(f"`purpose` is `{INPUT_PURPOSE}`.", param="purpose", code="invalid_value")
    if form.filename is None:
        raise InvalidRequest("`file` is required.", param="file", code="missing_required_parameter")
    seconds, anchor = form.fields.get("expires_after[seconds]"), form.fields.get("expires_after[anchor]")
    if seconds is None and anchor is None:
        return None
    is_number = seconds is not None and seconds.isascii() and seconds.isdigit() and len(seconds) <= 9
    return kept_for("expires_after", anchor, int(seconds or 0) if is_number else None)


def kept_for(name: str, anchor: object, seconds: object) -> float:
    """Read how long a client wants a file kept. Raises `InvalidRequest` that names the field."""
    if anchor != "created_at" or type(seconds) is not int or not LEAST_KEPT_S <= seconds <= MOST_KEPT_S:
        raise InvalidRequest(
            f"`{name}` is the anchor `created_at` and {LEAST_KEPT_S} to {MOST_KEPT_S} seconds.",
            param=name,
            code="invalid_value",
        )
    return float(seconds)


def page_of(fields: dict[str, str], *, default: int, most: int) -> Page:
    """Read which part of a list is asked for. Raises `InvalidRequest`."""
    limit, order = fields.get("limit", str(default)), fields.get("order", "desc")
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 5 and int(limit) > 0):
        raise InvalidRequest(f"`limit` is from 1 to {most}.", param="limit", code="invalid_value")
    if order not in ("asc", "desc"):
        raise InvalidRequest("`order` is `asc` or `desc`.", param="order", code="invalid_value")
    return Page(min(most, int(limit)), fields.get("after"), oldest_first=order == "asc")


def list_answer(found: Sequence[dict[str, Any]], page: Page) -> dict[str, Any]:
    """Build the answer of a list, of which one more was found than the page has where there are more."""
    shown = found[: page.limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(found) > page.limit,
    }


def file_answer(file: StoredFile) -> dict[str, Any]:
    """Describe a file as OpenAI does."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size_bytes,
        "created_at": int(file.created_s),
        "expires_at": int(file.expires_s),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


async def respond(exchange: Exchange, told: dict[str, Any]) -> None:
    """Send JSON."""
    await exchange.respond(200, [JSON], orjson.dumps(told))

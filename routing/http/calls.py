"""Reads the body of a request to a model: JSON, or a form with a recording."""

from __future__ import annotations

import asyncio

from engines.protocol import Kind
from fleet.types import GatewaySettings
from routing.asgi import Exchange
from routing.http.forms import Form
from routing.openai import bodies, speech
from routing.openai.endpoints import ENDPOINTS

AT_ONCE_BYTES = 256 * 2**10  # of a form; a longer one is read in a thread, so that it holds up nobody


async def read_call(exchange: Exchange, kind: Kind, settings: GatewaySettings) -> tuple[bodies.Call, int]:
    """Return what is asked, and the size of the body in bytes. Raises `RequestError` or `ClientGone`."""
    endpoint = ENDPOINTS[kind]
    limit_bytes = min(endpoint.max_body_bytes or settings.max_body_bytes, settings.max_body_bytes)
    if not endpoint.form:
        body = await exchange.read_json(limit_bytes=limit_bytes, timeout_s=settings.body_timeout_s)
        return bodies.parse(kind, body), len(body)
    recording = bytearray()
    form = Form(exchange.headers.content_type, recording.extend)
    body = await exchange.read_body(limit_bytes=limit_bytes, timeout_s=settings.body_timeout_s)
    if len(body) <= AT_ONCE_BYTES:
        form.feed(body)
    else:
        await asyncio.to_thread(form.feed, body)
    form.finish()
    size_bytes = len(body)
    del body
    found = None if form.filename is None else bytes(recording)
    return speech.parse(kind, form.fields, form.lists, found), size_bytes

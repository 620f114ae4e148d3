"""Answers with an error where vLLM's handler breaks on a request, instead of a dropped connection."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
log = logging.getLogger("tenantry.engine")


async def answer_with(app: Any, scope: Scope, receive: Receive, send: Send) -> None:
    """Let vLLM answer. If its handler breaks, answer with an error instead of dropping the connection.

    The error is the one that vLLM makes of such an exception elsewhere; in a stream it is its last event.
    """
    started, ended, is_stream = False, False, False

    async def send_noted(message: MutableMapping[str, Any]) -> None:
        nonlocal started, ended, is_stream
        if message["type"] == "http.response.start":
            headers = dict(message.get("headers", []))
            started, is_stream = True, headers.get(b"content-type", b"").startswith(b"text/event-stream")
        elif message["type"] == "http.response.body":
            ended = not message.get("more_body", False)
        await send(message)

    try:
        await app(scope, receive, send_noted)
    except Exception as raised:
        error = _cause_of(raised)
        if not ended:
            log.warning("vLLM's handler of %s broke: %s", scope["path"], type(error).__name__)
        if not started:
            status, body = _error_of(error)
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        elif is_stream and not ended:
            event = b"data: " + _error_of(error)[1] + b"\n\n"
            await send({"type": "http.response.body", "body": event, "more_body": False})
        elif not ended:
            raise


def _cause_of(error: Exception) -> Exception:
    """Unwrap an exception that Starlette could have handled before the headers were sent."""
    while isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def _error_of(error: Exception) -> tuple[int, bytes]:
    """Status and body of vLLM's answer to an exception."""
    from vllm.entrypoints.serve import create_error_response

    answer = create_error_response(error)
    return answer.error.code, json.dumps(answer.model_dump()).encode()

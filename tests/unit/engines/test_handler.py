"""Is the gateway told of every way in which vLLM's handler breaks?"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from engines import handler
from engines.handler import answer_with

EVENT = b'data: {"choices":[]}\n\n'
Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]


def start(kind: bytes = b"text/event-stream; charset=utf-8", status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]}


def body(data: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def sent_by(*messages: Message, breaks: bool = True) -> list[Message]:
    """What goes out where a handler sends so much, and then breaks."""
    out: list[Message] = []

    async def app(scope: Any, receive: Any, send: Send) -> None:
        for message in messages:
            await send(message)
        if breaks:
            raise AttributeError("'int' object has no attribute 'get'")

    async def receive() -> Message:
        raise NotImplementedError

    async def send(message: Any) -> None:
        out.append(message)

    await answer_with(app, {"type": "http", "path": "/v1/responses"}, receive, send)
    return out


@pytest.fixture(autouse=True)
def without_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    def error_of(error: Exception) -> tuple[int, bytes]:
        code = 400 if isinstance(error, ValueError) else 500
        return code, json.dumps({"error": {"message": str(error), "code": code}}).encode()

    monkeypatch.setattr(handler, "_error_of", error_of)


async def test_a_handler_that_breaks_before_it_answers_is_an_error_of_vllms() -> None:
    head, rest = await sent_by()
    assert head["status"] == 500
    assert json.loads(rest["body"])["error"]["code"] == 500


@pytest.mark.parametrize("before", [[], [body(EVENT, more=True)], [body(EVENT, more=True)] * 3])
async def test_a_stream_that_breaks_ends_with_an_error_event(before: list[Message]) -> None:
    out = await sent_by(start(), *before)
    assert out[:-1] == [start(), *before]
    assert out[-1]["body"].startswith(b'data: {"error": {') and out[-1]["body"].endswith(b"\n\n")
    assert not out[-1]["more_body"]


async def test_what_starlette_has_answered_before_it_raises_is_left_as_it_is() -> None:
    messages = [start(b"application/json", 500), body(b"{}", more=False)]
    assert await sent_by(*messages) == messages


async def test_another_answer_that_breaks_off_is_cut() -> None:
    with pytest.raises(AttributeError):
        await sent_by(start(b"application/json"), body(b"{", more=True))


async def test_an_answer_that_does_not_break_passes_through() -> None:
    messages = [start(), body(EVENT, more=True), body(b"", more=False)]
    assert await sent_by(*messages, breaks=False) == messages


@pytest.mark.parametrize("events", [0, 1])
@pytest.mark.parametrize("handled", [False, True])
async def test_a_stream_that_finds_the_request_wrong_in_its_midst_says_so(events: int, handled: bool) -> None:
    async def body_of(request: Request) -> AsyncIterator[bytes]:
        for _ in range(events):
            yield EVENT
        raise ValueError("the grammar is none")

    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(body_of(request), media_type="text/event-stream")

    async def handle(request: Request, error: Exception) -> Response:
        return Response("handled", 400)

    handlers: Any = {ValueError: handle} if handled else {}
    app = Starlette(routes=[Route("/v1/responses", stream, methods=["POST"])], exception_handlers=handlers)

    async def answering(scope: Any, receive: Any, send: Any) -> None:
        await answer_with(app, scope, receive, send)

    transport = httpx.ASGITransport(answering)
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        answer = await client.post("/v1/responses")
    *before, error, rest = answer.content.split(b"\n\n")
    assert (len(before), rest) == (events, b"")
    told = json.loads(error.removeprefix(b"data: "))["error"]
    assert (told["code"], told["message"]) == (400, "the grammar is none")

"""An engine that answers some well and breaks on others: vLLM's ways to fail, chosen by what a body holds."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from engines.protocol import Kind
from routing.openai.bodies import CONTROL, DROPPED_FIELDS
from routing.openai.endpoints import ENDPOINTS
from tests import messages
from tests.fakes import ASKED, FakeEngine, Send, begin_stream, completion, respond, sse, stream_events
from tests.hostile.audit import Counted
from tests.hostile.bodies import RESPONSE

PROMPT_TOKENS, PIECES = 7, ("I ", "am ")
INNER = "/secret/path of EngineCore"  # what its own errors say, and no client may read
Way = Callable[[dict[str, Any], Send], Awaitable[None]]


class Fickle:
    """Behaves for a fake engine. Whoever's model has a name among `well_served` is always answered well."""

    def __init__(self, engine: FakeEngine, well_served: tuple[str, ...]) -> None:
        self.counted = Counted()
        self.complaints: list[str] = []  # of what a gateway must not send
        self.ways: Counter[str] = Counter()
        self._well_served = well_served
        engine.behave = self

    async def __call__(self, body: dict[str, Any], send: Send) -> None:
        """Answer one request."""
        is_control = any(control.items() <= body.items() for control in CONTROL.values())
        if is_control:
            await respond(send, 200, completion(body["model"], "hi"))
            return
        self._look_at(body)
        way: Way = self.answer
        if not body["model"].startswith(self._well_served):
            digest = hashlib.sha256(json.dumps({**body, "cache_salt": 0}, sort_keys=True).encode()).digest()
            ways = (self.refuse, self.refuse_later, self.fail, self.drop, self.fail_later)
            way = ways[digest[1] % len(ways)] if digest[0] < 100 else self.answer
        self.ways[way.__name__] += 1
        await way(body, send)

    def _look_at(self, body: dict[str, Any]) -> None:
        dropped = body.keys() & set(DROPPED_FIELDS)
        salted = body.get("cache_salt") and type(body.get("priority")) is int
        if dropped or not (salted or not ENDPOINTS[Kind(ASKED.get())].runs):
            self.complaints.append(f"the engine saw {dropped}, {body.get('cache_salt')!r}")

    # -- ways to answer ------------------------------------------------------------------------------------

    async def answer(self, body: dict[str, Any], send: Send) -> None:
        """As asked."""
        path = ASKED.get()
        endpoint = ENDPOINTS[Kind(path)]
        pieces = [*PIECES, body["model"].partition("@")[0]]
        if not endpoint.runs:
            await respond(send, 200, {"count": 3, "tokens": [1, 2, 3], "prompt": "x"})
            return
        self.counted.prompt += PROMPT_TOKENS
        if not endpoint.writes:
            used = {"prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS}
            await respond(send, 200, {"object": "list", "model": body["model"], "data": [], "usage": used})
        elif endpoint.anthropic:
            self.counted.completion += len(pieces)
            await messages.answer(body, send)
        elif not _streams(body):
            self.counted.completion += len(pieces)
            whole = completion(body["model"], "".join(pieces))
            if path == RESPONSE:
                whole = _response(body["model"], "completed", len(pieces))
            await respond(send, 200, whole)
        else:
            await begin_stream(send)
            for event in self._events(path, body["model"], pieces):
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    def _events(self, path: str, model: str, pieces: list[str]) -> list[bytes]:
        self.counted.completion += len(pieces)
        if path != RESPONSE:
            return stream_events(model, pieces, running=True)
        return [
            _event("response.created", {"response": _response(model, "in_progress")}),
            *(_event("response.output_text.delta", {"delta": piece}) for piece in pieces),
            _event("response.completed", {"response": _response(model, "completed", len(pieces))}),
        ]

    async def refuse(self, body: dict[str, Any], send: Send) -> None:
        """Whole or in the first event, as vLLM does what it finds wrong."""
        error = {"message": f"bad {body['model']}", "type": "BadRequestError", "param": "x", "code": 400}
        if not _streams(body):
            await respond(send, 400, {"error": error})
            return
        await begin_stream(send)
        await send({"type": "http.response.body", "body": sse({"error": error}) + b"data: [DONE]\n\n"})

    async def refuse_later(self, body: dict[str, Any], send: Send) -> None:
        """In the middle of a stream."""
        if not _streams(body) or ASKED.get() == RESPONSE:
            await self.refuse(body, send)
            return
        self.counted.prompt += PROMPT_TOKENS
        self.counted.completion += 1
        await begin_stream(send)
        begun = b"".join(stream_events(body["model"], ["I "], running=True)[:2])
        error = {
            "message": f"no more of {body['model']}",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        }
        await send({"type": "http.response.body", "body": begun, "more_body": True})
        await send({"type": "http.response.body", "body": sse({"error": error}) + b"data: [DONE]\n\n"})

    async def fail(self, body: dict[str, Any], send: Send) -> None:
        """Break in the handler."""
        await respond(send, 500, {"error": {"message": INNER, "type": "InternalServerError", "code": 500}})

    async def drop(self, body: dict[str, Any], send: Send) -> None:
        """Break where the answer has begun."""
        await begin_stream(send)
        raise ConnectionAbortedError

    async def fail_later(self, body: dict[str, Any], send: Send) -> None:
        """Say so in a stream's first event."""
        if not _streams(body):
            await self.fail(body, send)
            return
        await begin_stream(send)
        error = {"message": INNER, "type": "InternalServerError", "param": None, "code": 500}
        await send({"type": "http.response.body", "body": sse({"error": error}) + b"data: [DONE]\n\n"})


def _streams(body: dict[str, Any]) -> bool:
    """Whether it is answered in events of OpenAI's; Anthropic's refuse before they begin."""
    endpoint = ENDPOINTS[Kind(ASKED.get())]
    return bool(body.get("stream")) and endpoint.streams and not endpoint.anthropic


def _response(model: str, status: str, tokens: int | None = None) -> dict[str, Any]:
    used = None
    if tokens is not None:
        used = {
            "input_tokens": PROMPT_TOKENS,
            "output_tokens": tokens,
            "total_tokens": PROMPT_TOKENS + tokens,
        }
    return {"id": "x", "object": "response", "status": status, "model": model, "output": [], "usage": used}


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    return f"event: {kind}\n".encode() + sse({"type": kind, **fields})

"""Anthropic's messages as vLLM answers them: whole, and as a stream of events."""

from __future__ import annotations

from typing import Any

from tests.fakes import Send, begin_stream, respond, sse

PIECES = ("I ", "am ", "here")
READ, CACHED = 5, 2  # tokens of the prompt, beside those from the cache
USAGE = {"input_tokens": READ, "output_tokens": len(PIECES), "cache_read_input_tokens": CACHED}


def event(name: str, **fields: Any) -> bytes:
    """One event."""
    return f"event: {name}\n".encode() + sse({"type": name, **fields})


def message(model: str, **fields: Any) -> dict[str, Any]:
    """A whole answer."""
    content = [{"type": "text", "text": "".join(PIECES)}]
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": content,
        "model": model,
        "stop_reason": "end_turn",
        "usage": USAGE,
        **fields,
    }


def events(model: str) -> list[bytes]:
    """A whole stream."""
    begun = message(model, content=[], stop_reason=None, usage={**USAGE, "output_tokens": 0})
    block = {"type": "text", "text": ""}
    deltas = [{"type": "text_delta", "text": piece} for piece in PIECES]
    return [
        event("message_start", message=begun),
        event("content_block_start", index=0, content_block=block),
        *(event("content_block_delta", index=0, delta=delta) for delta in deltas),
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=USAGE),
        event("message_stop"),
    ]


async def answer(body: dict[str, Any], send: Send) -> None:
    """Answer as asked."""
    if not body.get("stream"):
        await respond(send, 200, message(body["model"]))
        return
    await begin_stream(send)
    for each in events(body["model"]):
        await send({"type": "http.response.body", "body": each, "more_body": True})
    await send({"type": "http.response.body", "body": b""})

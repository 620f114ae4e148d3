"""How is a hostile request sent, and what came back? Bytes onto a connection of its own, bytes from it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any

import h11

from tests.hostile.request import PATIENCE_S, Attack

ERROR_FIELDS = {"message", "type", "param", "code"}


@dataclass
class Answer:
    """What a client got for one request."""

    raw: bytes = b""
    status: int = 0  # 0: none came
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False  # it came to its end
    closed: bool = False  # the server closed the connection, which ends an answer without a length
    late: bool = False  # the client waited for it in vain
    garbage: str = ""  # why it is no HTTP

    @property
    def media_type(self) -> str:
        """What it says it is."""
        return self.headers.get("content-type", "").partition(";")[0]

    @property
    def error(self) -> dict[str, Any] | None:
        """OpenAI's error object, where it has one of the right shape."""
        with contextlib.suppress(ValueError):
            return error_of(json.loads(self.body))
        return None

    @property
    def code(self) -> str | None:
        """Its code."""
        return self.error["code"] if self.error is not None else None


async def send(port: int, attack: Attack, *, timeout_s: float) -> Answer:
    """Send it, and take what comes until the connection ends or the client wants no more. Never raises."""
    answer = Answer()
    raw = attack.raw if attack.sent_bytes is None else attack.raw[: attack.sent_bytes]
    try:
        async with asyncio.timeout(timeout_s if attack.waits else min(PATIENCE_S, timeout_s)):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(raw)
                most = attack.leaves_after_bytes
                while most is None or len(answer.raw) < most:
                    part = await reader.read(65_536)
                    if not part:
                        answer.closed = True
                        break
                    answer.raw += part
            finally:
                writer.transport.abort()
    except TimeoutError:
        answer.late = attack.waits
    except OSError:
        pass  # the server may close whenever it wants; what came by then counts
    _read(answer, ["GET", attack.method] if attack.ahead else [attack.method])
    return answer


def _read(answer: Answer, methods: list[str]) -> None:
    """Take the bytes apart; the last answer counts, the others need only come."""
    connection = h11.Connection(h11.CLIENT)
    if answer.raw:
        connection.receive_data(answer.raw)
        if answer.closed:
            connection.receive_data(b"")
    try:
        for method in methods:
            if answer.whole:
                connection.start_next_cycle()
                answer.status, answer.headers, answer.body, answer.whole = 0, {}, b"", False
            known = method if method.isalpha() else "GET"
            connection.send(h11.Request(method=known, target="/", headers=[("host", "x")]))
            connection.send(h11.EndOfMessage())
            _read_one(answer, connection)
            if not answer.whole:
                return
    except h11.ProtocolError as error:
        answer.garbage = str(error)


def _read_one(answer: Answer, connection: h11.Connection) -> None:
    while not answer.whole:
        event = connection.next_event()
        if event is h11.NEED_DATA or isinstance(event, (h11.ConnectionClosed, h11.PAUSED)):
            return
        if isinstance(event, h11.Response):
            answer.status = event.status_code
            answer.headers = {k.decode(): v.decode("latin-1") for k, v in event.headers}
        elif isinstance(event, h11.Data):
            answer.body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            answer.whole = True


def error_of(payload: Any) -> dict[str, Any] | None:
    """OpenAI's or Anthropic's error object of an answer or event; None where it is not of its shape."""
    error = payload.get("error") if isinstance(payload, dict) else None
    if isinstance(error, dict) and payload.get("type") == "error" and error.keys() == {"type", "message"}:
        return {**error, "code": error["type"], "param": None}  # Anthropic's
    if not isinstance(error, dict) or error.keys() != ERROR_FIELDS:
        return None
    named = all(isinstance(error[name], str) and error[name] for name in ("message", "type", "code"))
    return error if named and isinstance(error["param"], (str, type(None))) else None

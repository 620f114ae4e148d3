"""What did one client send, and what did it see? A client that costs little, so that engines keep the cores.

Every answer is greedy and of a demo model, so its text shows whose adapter gave it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import aiohttp
from multidict import CIMultiDict

from tests.e2e.serving import answers, key_of

CLIENT_TIMEOUT_S = 120.0  # nobody waits longer; an answer that takes so long counts as lost
# Below uvicorn's keep-alive of 5 s, so that no request is sent on a connection that is just being closed.
KEEP_ALIVE_S = 2.0

# (tenant, model) -> the demo model that must answer
MODELS = {
    ("acme", "support"): "acme-support",
    ("acme", "sales"): "acme-sales",
    ("globex", "support"): "globex-support",
    ("initech", "support"): "initech-support",
}


class Ending(StrEnum):
    """How an exchange ended for the client."""

    ANSWERED = "answered"
    REFUSED = "refused"  # another status than 200
    BROKEN = "broken"  # a stream that ended in an error event
    LEFT = "left"  # the client closed the connection
    LOST = "lost"  # the connection broke, or the answer stopped without an ending


@dataclass(frozen=True)
class Ask:
    """One request."""

    id: str
    tenant: str
    model: str
    question: str
    stream: bool = False
    tokens: int = 64
    past_the_end: bool = False  # ignore the model's end of text, for a stream that lasts
    leave_after: float | None = None  # events of a stream, or seconds of an answer in one piece
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def expected(self) -> str:
        """What the right adapter says."""
        return answers()[MODELS[self.tenant, self.model]][self.question]

    @property
    def body(self) -> dict[str, Any]:
        """What is sent."""
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": self.question}],
            "temperature": 0,
            "max_tokens": self.tokens,
            "stream": self.stream,
            "ignore_eos": self.past_the_end,
            **self.extra,
        }


@dataclass
class Seen:
    """What came of it."""

    ask: Ask
    sent_s: float  # monotonic, like all times here
    ended_s: float = 0.0
    first_s: float | None = None  # when the first byte of text came
    ending: Ending = Ending.LOST
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=CIMultiDict, repr=False)
    text: str = ""
    error: Any = None  # body of a refusal, event of a broken stream, or what broke the connection

    @property
    def replica(self) -> str | None:
        """Who answered, where anybody did."""
        return self.headers.get("x-tenantry-replica")

    @property
    def code(self) -> str | None:
        """Code of the OpenAI error; None where there is none, or it is not of that shape."""
        inner = self.error.get("error") if isinstance(self.error, dict) else None
        return inner.get("code") if isinstance(inner, dict) else None

    def has_error_of_openais_shape(self) -> bool:
        """Whether the error is one that OpenAI's clients can read."""
        inner = self.error.get("error") if isinstance(self.error, dict) else None
        if not isinstance(inner, dict) or inner.keys() != {"message", "type", "param", "code"}:
            return False
        return all(isinstance(inner[name], str) and inner[name] for name in ("message", "type", "code"))

    def is_of_the_right_adapter(self) -> bool:
        """Whether the text is the expected one, or as much of it as came."""
        expected, text = self.ask.expected, self.text
        if self.ending is not Ending.ANSWERED:
            return expected.startswith(text) or (self.ask.past_the_end and text.startswith(expected))
        return text.startswith(expected) if self.ask.past_the_end else text == expected


def session() -> aiohttp.ClientSession:
    """A session for `send`; as many connections as there are requests."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=CLIENT_TIMEOUT_S))


async def send(session: aiohttp.ClientSession, url: str, ask: Ask) -> Seen:
    """Send it and take what comes, or leave when the ask says so. Never raises but when cancelled."""
    seen = Seen(ask, sent_s=time.monotonic())
    headers = {"authorization": f"Bearer {key_of(ask.tenant)}", "x-request-id": ask.id}
    patience = asyncio.timeout(None if ask.stream else ask.leave_after)
    try:
        async with (
            patience,
            session.post(f"{url}/v1/chat/completions", json=ask.body, headers=headers) as response,
        ):
            seen.status, seen.headers = response.status, response.headers
            await _read(response, seen)
    except (aiohttp.ClientError, ConnectionError, TimeoutError, ValueError) as error:
        seen.error = repr(error)
        seen.ending = Ending.LEFT if patience.expired() else Ending.LOST
    seen.ended_s = time.monotonic()
    return seen


async def _read(response: aiohttp.ClientResponse, seen: Seen) -> None:
    """Take the answer, whatever it is. Raises aiohttp's errors, and `ValueError` for what is not JSON."""
    if response.status != 200:
        seen.error = json.loads(await response.read())
        seen.ending = Ending.REFUSED
    elif seen.ask.stream:
        await _read_stream(response, seen)
    else:
        answer = json.loads(await response.read())
        seen.first_s = time.monotonic()
        seen.text = answer["choices"][0]["message"]["content"]
        seen.ending = Ending.ANSWERED


async def _read_stream(response: aiohttp.ClientResponse, seen: Seen) -> None:
    events = 0
    async for line in response.content:
        if not line.startswith(b"data: "):
            continue
        if line.strip() == b"data: [DONE]":
            seen.ending = Ending.ANSWERED
            continue
        event = json.loads(line[6:])
        if "error" in event:
            seen.error, seen.ending = event, Ending.BROKEN
            continue
        text = event["choices"][0]["delta"].get("content") or ""
        seen.text += text
        if text and seen.first_s is None:
            seen.first_s = time.monotonic()
        events += 1
        if seen.ask.leave_after is not None and events >= seen.ask.leave_after:
            seen.ending = Ending.LEFT
            response.close()
            return

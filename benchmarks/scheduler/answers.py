"""What came of one request? Streams an answer and notes its times; nothing else happens on that path.

Times are seconds of `time.monotonic`. The load shares its cores with what it measures, so pieces of a stream
are counted and not parsed.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

from benchmarks.scheduler.arrivals import Arrival

DONE = b"data: [DONE]"
PIECE = b'"delta":{"content":'  # in every event with tokens; the first one has the role instead
MAX_ERROR = 300  # characters


@dataclass(slots=True)
class Answer:
    """One request from its due time to its end."""

    arrival: Arrival
    due_s: float
    sent_s: float = 0.0
    first_s: float | None = None  # first byte of the body: vLLM sends it with the first token
    last_s: float | None = None  # last byte, or when it was cut off
    pieces: int = 0  # events with tokens, so far; busy engines put several into one
    whole: bool = False
    error: str = ""
    replica: str = ""

    @property
    def cut(self) -> bool:
        """Whether the benchmark ended it."""
        return not self.whole and not self.error

    def ttft_s(self) -> float | None:
        """Due time to first token; None where there was none."""
        return None if self.first_s is None else self.first_s - self.due_s

    def tpot_s(self, tokens: int) -> float | None:
        """Mean time of each token after the first, of an answer of `tokens`; None where it did not end."""
        if not self.whole or self.first_s is None or self.last_s is None or tokens < 2:
            return None
        return (self.last_s - self.first_s) / (tokens - 1)


async def stream(
    session: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str], answer: Answer
) -> None:
    """Send a request and follow its answer. Never raises; a cancellation cuts it off and goes on."""
    answer.sent_s = time.monotonic()
    try:
        async with session.post(url, data=body, headers=headers) as response:
            answer.replica = response.headers.get("x-tenantry-replica", answer.replica)
            if response.status != 200:
                text = (await response.read()).decode(errors="replace")
                answer.error = f"{response.status}: {text[:MAX_ERROR]}"
                return
            await _follow(response, answer)
    except (aiohttp.ClientError, OSError) as error:
        answer.error = repr(error)[:MAX_ERROR]
    except asyncio.CancelledError:
        answer.last_s = time.monotonic()
        raise


async def _follow(response: aiohttp.ClientResponse, answer: Answer) -> None:
    end = b""
    async for chunk in response.content.iter_any():
        if answer.first_s is None:
            answer.first_s = time.monotonic()
        answer.pieces += chunk.count(PIECE)
        end = (end + chunk)[-64:]
        if b'"error"' in chunk:
            answer.error = chunk[-MAX_ERROR:].decode(errors="replace")
    answer.last_s = time.monotonic()
    answer.whole = DONE in end and not answer.error
    if not answer.whole and not answer.error:
        answer.error = f"the stream ended without its end mark: {end!r}"


def chat(model: str, prompt: str, tokens: int, **more: Any) -> dict[str, Any]:
    """A chat that is answered with exactly so many tokens."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **more,
    }

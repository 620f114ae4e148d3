"""The record of one settled request; its log line and its metrics are made from it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import orjson

from routing.types import Outcome, Target


@dataclass(slots=True)
class Record:
    """The outcome and figures of one request; written once, when it is settled."""

    request_id: str
    target: Target
    outcome: Outcome
    status: int  # HTTP status sent, or 499 if the client left first
    reason: str = ""  # error code or cap; empty for a completed request
    replica: str | None = None
    stream: bool = False
    queue_s: float | None = None  # arrival to the last grant
    first_byte_s: float | None = None  # arrival to the first byte of the answer
    total_s: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0  # of the prompt, found in the engine's prefix cache
    estimated: bool = False  # not all tokens were counted by the engine
    engine_s: float = 0.0  # its share of engines' time: half of it while two sequences run
    slot_s: float = 0.0  # its share of its adapter's slots' time
    attempts: int = 0  # replicas asked, one after the other or at once
    hedged: bool = False  # two were asked at once
    held: str | None = None  # why it had to wait: a `WaitReason`; None if it did not
    picked: str | None = None  # why its replica was chosen: an `Affinity`, or `only`
    failed_on: frozenset[str] = frozenset()  # replicas that broke before they answered
    explanation: str = ""  # the message to the client, if its request was not at fault
    retry_after_s: float | None = None  # delay in the same answer
    trace_id: str | None = None  # W3C; None: neither the client nor the gateway traces it
    traced: bool = False  # its spans are sent to a collector
    ended_at_s: float = 0.0  # Unix time

    @property
    def token_s(self) -> float | None:
        """Time per output token after the first; only a stream shows it."""
        if not self.stream or self.first_byte_s is None or self.completion_tokens < 2:
            return None
        return (self.total_s - self.first_byte_s) / (self.completion_tokens - 1)

    def __str__(self) -> str:
        """One line of JSON. Holds no prompt, no key and no text of the client except a checked request id."""
        line = {
            "request_id": self.request_id,
            "time": _utc(self.ended_at_s),
            "tenant": self.target.tenant,
            "model": self.target.model,
            "adapter": self.target.adapter,
            "version": self.target.version,
            "pool": self.target.pool,
            "replica": self.replica,
            "outcome": self.outcome,
            "status": self.status,
            "reason": self.reason or None,
            "stream": self.stream,
            "queue_s": _rounded(self.queue_s),
            "first_byte_s": _rounded(self.first_byte_s),
            "total_s": _rounded(self.total_s),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cached_tokens": self.cached_tokens,
            "estimated": self.estimated,
            "engine_s": _rounded(self.engine_s),
            "slot_s": _rounded(self.slot_s),
            "attempts": self.attempts,
            "hedged": self.hedged,
            "failed_on": sorted(self.failed_on) if self.failed_on else (),
            "held": self.held,
            "picked": self.picked,
            "explanation": self.explanation or None,
            "retry_after_s": _rounded(self.retry_after_s),
            "trace_id": self.trace_id,
        }
        return orjson.dumps(line).decode()

    def short(self) -> str:
        """The tenant, model, outcome, times, tokens and replica of the request; for people."""
        parts = [self.target.tenant, self.target.model, str(self.status), f"{self.total_s:.2f}s"]
        if self.prompt_tokens or self.completion_tokens:
            parts.append(f"{self.prompt_tokens}+{self.completion_tokens} tok")
        parts += filter(None, (self.replica, self.reason))
        return " ".join(parts)


def _utc(time_s: float) -> str:
    """Write a Unix time in ISO 8601 with milliseconds."""
    second, part = divmod(time_s, 1.0)
    return f"{_second(int(second))}.{int(part * 1000):03}+00:00"


@lru_cache(maxsize=8)  # thousands of requests end within a second
def _second(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _rounded(seconds: float | None) -> float | None:
    """Round to microseconds; `round` takes three times as long, for the last bit."""
    return None if seconds is None else int(seconds * 1e6 + 0.5) / 1e6

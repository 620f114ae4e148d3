"""What did the load generator count? Reads its JSON line; measures nothing itself."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Times(BaseModel):
    """A distribution of durations in milliseconds; all zero when `count` is, see `at`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int
    p50: float
    p99: float

    def at(self, percentile: Literal["p50", "p99"]) -> float | None:
        """One percentile, or `None` where nothing was timed."""
        if not self.count:
            return None
        return self.p50 if percentile == "p50" else self.p99


class LoadResult(BaseModel):
    """One run of the load generator, without its warm-up."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: float  # that were counted
    cpu_s: float  # of the load generator itself
    sent: int  # requests in all, warm-up and what ended too late included
    requests: int  # that ended, well or badly
    ok: int
    connect_errors: int
    broken: int  # cut off, or not HTTP
    bad_content: int  # a 200 without an end mark or choices
    timeouts: int
    opened: int  # connections, reconnections included
    events: int  # `data:` events without [DONE]
    chunks: int  # events with content
    completion_tokens: int  # as the usage of the answers says
    done_requests: float  # work done while it counted: a good answer that lies half inside counts half
    done_tokens: float
    by_status: dict[int, int]
    latency_ms: Times
    first_chunk_ms: Times
    gap_ms: Times  # between chunks of one stream
    first_error: str

    @property
    def errors(self) -> int:
        """Requests that did not end well."""
        return self.requests - self.ok

    @property
    def requests_per_s(self) -> float:
        """Good answers per second."""
        return self.ok / self.seconds if self.seconds else 0.0

    @property
    def chunks_per_s(self) -> float:
        """Content chunks per second, of streams that ended and of those still running."""
        return self.chunks / self.seconds if self.seconds else 0.0

    @property
    def done_requests_per_s(self) -> float:
        """As `requests_per_s`, but exact where few long answers end: by shares of them."""
        return self.done_requests / self.seconds if self.seconds else 0.0

    @property
    def done_tokens_per_s(self) -> float:
        """Completion tokens per second by the usage of the answers, by shares of them."""
        return self.done_tokens / self.seconds if self.seconds else 0.0

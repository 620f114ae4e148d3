"""Writes the log lines of requests, several as one message.

A call of the logging machinery and a write to standard error for every request would cost more than all
metrics together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache

import orjson

from engines.logs import printable
from routing.types import Record

log = logging.getLogger("tenantry.request")


class _Lines:
    """The lines of some requests, in the format of the handler."""

    __slots__ = ("_records",)

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records

    def __str__(self) -> str:
        return "\n".join(map(line_of, self._records))

    def for_people(self, at: str) -> str:
        return "\n".join([at + printable(short_line_of(record)) for record in self._records])


class RequestLog:
    """Writes lines while the fleet wants them."""

    def __init__(self, is_on: Callable[[], bool]) -> None:
        self._is_on = is_on

    def write(self, records: Sequence[Record]) -> None:
        """Write a line for each request that has ended."""
        if self._is_on():
            write_lines(records)


def write_lines(records: Sequence[Record]) -> None:
    """Write a line for each to the logger `tenantry.request`: JSON, or a short one for people."""
    lines = _Lines(records)
    log.info("%s", lines, extra={"for_people": lines.for_people})


def line_of(record: Record) -> str:
    """Write one line of JSON, without prompts, keys or text of the client but a checked request id."""
    line = {
        "request_id": record.request_id,
        "time": _utc(record.ended_at_s),
        "tenant": record.target.tenant,
        "model": record.target.model,
        "adapter": record.target.adapter,
        "version": record.target.version,
        "fallback_of": record.target.fallback_of or None,
        "fallback_reason": record.target.fallback_reason,
        "pool": record.target.pool,
        "replica": record.replica,
        "outcome": record.outcome,
        "status": record.status,
        "reason": record.reason or None,
        "stream": record.stream,
        "queue_s": _rounded(record.queue_s),
        "first_byte_s": _rounded(record.first_byte_s),
        "total_s": _rounded(record.total_s),
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "cached_tokens": record.cached_tokens,
        "estimated": record.estimated,
        "engine_s": _rounded(record.engine_s),
        "slot_s": _rounded(record.slot_s),
        "attempts": record.attempts,
        "hedged": record.hedged,
        "failed_on": sorted(record.failed_on) if record.failed_on else (),
        "waits_for": record.waits_for,
        "picked": record.picked,
        "explanation": record.explanation or None,
        "retry_after_s": _rounded(record.retry_after_s),
        "trace_id": record.trace_id,
    }
    return orjson.dumps(line).decode()


def short_line_of(record: Record) -> str:
    """Write the tenant, model, outcome, times, tokens and replica of the request; for people."""
    parts = [record.target.tenant, record.target.model, str(record.status), f"{record.total_s:.2f}s"]
    if record.prompt_tokens or record.completion_tokens:
        parts.append(f"{record.prompt_tokens}+{record.completion_tokens} tok")
    parts += filter(None, (record.replica, record.reason))
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

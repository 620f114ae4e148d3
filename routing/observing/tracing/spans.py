"""Turns a settled request into spans. Built once, at its end, from the times in its record; pure.

    chat support          SERVER, the whole request, child of the client's span
    |-- authenticate      from the first byte of the request to its tenant
    |-- route             admission, caps, and the decision where it may run
    |-- queue             until a replica was granted; absent if none was
    `-- upstream          CLIENT, from there to the end; the engine's own spans are its children
        `-- first_token   until the first byte of the answer

Names and attributes are those of OpenTelemetry's semantic conventions for GenAI; `tenantry.*` names the rest.
No span holds a prompt, an answer or a key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from engines.protocol import Kind
from routing.observing.tracing.context import TraceContext
from routing.types import Outcome, Record

Attributes = dict[str, str | int | float | bool]
_OPERATIONS: Mapping[str, str] = {
    Kind.CHAT: "chat",
    Kind.COMPLETION: "text_completion",
    Kind.EMBEDDING: "embeddings",
    Kind.RESPONSE: "chat",
    Kind.CHAT_BATCH: "chat",
    Kind.POOLING: "embeddings",
    Kind.SCORE: "score",
    Kind.RERANK: "rerank",
    Kind.TOKENIZE: "tokenize",
    Kind.DETOKENIZE: "detokenize",
    Kind.MESSAGES: "chat",
    Kind.COUNT_TOKENS: "tokenize",
    Kind.TRANSCRIPTION: "transcribe",
    Kind.TRANSLATION: "translate",
}


@dataclass(slots=True)
class Trace:
    """A request's place in its trace, and the times that its record does not have. Times are monotonic."""

    context: TraceContext  # of the span of the whole request
    parent_id: str | None  # the client's span
    upstream_id: str
    path: str  # of the request: one of OpenAI's
    started_s: float
    authenticated_s: float = 0.0
    submitting_s: float = 0.0
    submitted_s: float = 0.0

    @property
    def for_engine(self) -> str:
        """The `traceparent` that engines get."""
        upstream = TraceContext(self.context.trace_id, self.upstream_id, self.context.sampled)
        return upstream.header


@dataclass(frozen=True, slots=True)
class Span:
    """One span that has ended. Times are Unix seconds."""

    name: str
    span_id: str
    parent_id: str | None
    start_s: float
    end_s: float
    kind: str = "INTERNAL"
    attributes: Mapping[str, str | int | float | bool] | None = None
    error: str = ""  # why it failed; empty for success


def spans_of(trace: Trace, record: Record, arrived_s: float, new_id: Iterator[str]) -> Iterator[Span]:
    """Yield a settled request's spans. `arrived_s` is monotonic; `new_id` makes the other spans' ids."""
    ended_s = arrived_s + record.total_s
    unix_s = record.ended_at_s - ended_s  # from monotonic time to Unix time
    root_id = trace.context.span_id

    def child(name: str, start_s: float, end_s: float, parent_id: str = root_id) -> Span:
        return Span(name, next(new_id), parent_id, start_s + unix_s, max(start_s, end_s) + unix_s)

    yield Span(
        f"{_OPERATIONS[trace.path]} {record.target.model}",
        root_id,
        trace.parent_id,
        trace.started_s + unix_s,
        ended_s + unix_s,
        "SERVER",
        _of_request(trace, record),
        record.reason if _is_error(record) else "",
    )
    yield child("authenticate", trace.started_s, trace.authenticated_s)
    yield child("route", trace.submitting_s, trace.submitted_s or ended_s)
    if record.queue_s is None:
        if record.outcome is Outcome.EXPIRED:
            yield child("queue", trace.submitted_s, ended_s)
        return
    granted_s = arrived_s + record.queue_s
    yield child("queue", min(trace.submitted_s, granted_s), granted_s)
    yield Span(
        "upstream",
        trace.upstream_id,
        root_id,
        granted_s + unix_s,
        ended_s + unix_s,
        "CLIENT",
        _of_upstream(record),
        record.reason if record.outcome is Outcome.FAILED else "",
    )
    if record.first_byte_s is not None:
        yield child("first_token", granted_s, arrived_s + record.first_byte_s, trace.upstream_id)


def _is_error(record: Record) -> bool:
    """OpenTelemetry: a server's span is an error from status 500 on; a client that left is not."""
    return record.outcome in (Outcome.FAILED, Outcome.EXPIRED) or record.status >= 500


def _of_request(trace: Trace, record: Record) -> Attributes:
    target = record.target
    found: dict[str, str | int | float | bool | None] = {
        "gen_ai.operation.name": _OPERATIONS[trace.path],
        "gen_ai.provider.name": "tenantry",
        "gen_ai.request.model": target.model,
        "gen_ai.response.model": target.engine_model,
        "gen_ai.usage.input_tokens": record.prompt_tokens or None,
        "gen_ai.usage.output_tokens": record.completion_tokens or None,
        "gen_ai.usage.cache_read.input_tokens": record.cached_tokens or None,
        "http.request.method": "POST",
        "http.route": trace.path,
        "http.response.status_code": record.status,
        "error.type": record.reason or None,
        "tenantry.request_id": record.request_id,
        "tenantry.tenant": target.tenant,
        "tenantry.adapter": target.adapter,
        "tenantry.version": target.version,
        "tenantry.pool": target.pool,
        "tenantry.outcome": record.outcome.value,
        "tenantry.stream": record.stream,
        "tenantry.waits_for": record.waits_for,
    }
    return {name: value for name, value in found.items() if value is not None}


def _of_upstream(record: Record) -> Attributes:
    found: Attributes = {"tenantry.attempts": record.attempts, "tenantry.hedged": record.hedged}
    if record.replica is not None:
        found["tenantry.replica"] = record.replica
    if record.picked is not None:
        found["tenantry.picked"] = record.picked
    return found

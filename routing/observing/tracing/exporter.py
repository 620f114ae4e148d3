"""Sends spans to a collector: OTLP over HTTP, in batches, by OpenTelemetry's SDK on a thread of its own.

The SDK drops spans that the collector does not take in time; no request waits for it. Its queue, batches
and headers follow the standard variables (OTEL_BSP_*, OTEL_EXPORTER_OTLP_HEADERS, OTEL_RESOURCE_ATTRIBUTES,
OTEL_SERVICE_NAME). Importing this module imports the SDK.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from routing.observing.tracing.spans import Span

EXPORT_TIMEOUT_S = 5.0  # of one batch; also bounds a shutdown with an unreachable collector
SERVICE = "tenantry-gateway"
_SCOPE = InstrumentationScope("tenantry")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class Exporter:
    """Sends spans to one collector. Its methods are called from one thread."""

    def __init__(self, endpoint: str) -> None:
        """`endpoint` is the whole URL, as http://collector:4318/v1/traces."""
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: SERVICE}
        self._resource = Resource.create(named)
        self._batches = BatchSpanProcessor(OTLPSpanExporter(endpoint, timeout=EXPORT_TIMEOUT_S))

    def send(self, trace_id: str, spans: Iterable[Span]) -> None:
        """Put the spans of one trace into the next batch; returns at once."""
        for span in spans:
            self._batches.on_end(self._readable(int(trace_id, 16), span))

    def close(self) -> None:
        """Send the remaining spans; blocks for some seconds if the collector does not answer."""
        self._batches.shutdown()  # type: ignore[no-untyped-call]

    def _readable(self, trace_id: int, span: Span) -> ReadableSpan:
        parent = None if span.parent_id is None else _context(trace_id, span.parent_id, is_remote=True)
        return ReadableSpan(
            span.name,
            context=_context(trace_id, span.span_id),
            parent=parent,
            resource=self._resource,
            attributes=dict(span.attributes or {}),
            kind=SpanKind[span.kind],
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(),
            start_time=round(span.start_s * 1e9),
            end_time=round(span.end_s * 1e9),
            instrumentation_scope=_SCOPE,
        )


def _context(trace_id: int, span_id: str, *, is_remote: bool = False) -> SpanContext:
    return SpanContext(trace_id, int(span_id, 16), is_remote, _SAMPLED)

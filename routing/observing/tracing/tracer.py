"""Begins a trace when a request comes, and hands its spans over at its end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Iterator
from typing import Protocol

from fleet.types import TracingSettings
from routing.observing.tracing.context import TraceContext, read
from routing.observing.tracing.spans import Span, Trace, spans_of
from routing.types import Record


class SpanSink(Protocol):
    """A receiver of spans."""

    def send(self, trace_id: str, spans: Iterable[Span]) -> None: ...
    def close(self) -> None: ...


class Tracer:
    """Traces one gateway's requests.

    A request is sampled with the probability `sample_ratio`, independent of its trace id, and never if its
    client marks its trace as not sampled. So a tenant can reduce its traces, never add to them.
    """

    def __init__(self, sink: SpanSink, *, sample_ratio: float, chance: random.Random) -> None:
        self._sink = sink
        self._sample_ratio = sample_ratio
        self._chance = chance

    @classmethod
    def of(cls, settings: TracingSettings) -> Tracer | None:
        """Make a tracer by the settings; None if tracing is off. Imports the SDK if it is on."""
        if settings.endpoint is None:
            return None
        from routing.observing.tracing.exporter import Exporter

        return cls(
            Exporter(settings.endpoint), sample_ratio=settings.sample_ratio, chance=random.SystemRandom()
        )

    def begin(self, traceparent: str | None, path: str, now_s: float) -> Trace:
        """Begin a request's trace, or continue its client's."""
        parent = read(traceparent)
        sampled = (parent is None or parent.sampled) and self._chance.random() < self._sample_ratio
        trace_id = f"{self._chance.getrandbits(128) or 1:032x}" if parent is None else parent.trace_id
        context = TraceContext(trace_id, self._new_id(), sampled)
        return Trace(context, parent.span_id if parent else None, self._new_id(), path, now_s)

    def end(self, trace: Trace, record: Record, arrived_s: float) -> None:
        """Hand over a settled request's spans, if it is sampled."""
        if trace.context.sampled:
            self._sink.send(trace.context.trace_id, spans_of(trace, record, arrived_s, self._ids()))

    async def close(self) -> None:
        """Send the remaining spans, without blocking the event loop."""
        await asyncio.to_thread(self._sink.close)

    def _ids(self) -> Iterator[str]:
        while True:
            yield self._new_id()

    def _new_id(self) -> str:
        return f"{self._chance.getrandbits(64) or 1:016x}"

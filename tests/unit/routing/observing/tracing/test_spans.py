"""A settled request as spans."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from fleet.types import TracingSettings
from routing.observing.tracing.spans import Span
from routing.observing.tracing.tracer import Tracer
from routing.types import Outcome, Record
from tests.unit.routing.observing.tracing.test_context import GOOD, SPAN, TRACE
from tests.unit.routing.requests import target


@dataclass
class Sink:
    """Keeps what it is given."""

    spans: dict[str, list[Span]] = field(default_factory=dict)  # by trace
    closed: bool = False

    def send(self, trace_id: str, spans: Iterable[Span]) -> None:
        self.spans.setdefault(trace_id, []).extend(spans)

    def close(self) -> None:
        self.closed = True


def tracer(sink: Sink, ratio: float = 1.0) -> Tracer:
    return Tracer(sink, sample_ratio=ratio, chance=random.Random(1))


def traced(record: Record, header: str | None = GOOD) -> dict[str, Span]:
    """The spans of a request that came at 100 s and was settled at Unix time 5000."""
    sink = Sink()
    one = tracer(sink)
    trace = one.begin(header, "/v1/chat/completions", 99.9)
    trace.authenticated_s, trace.submitting_s, trace.submitted_s = 100.0, 100.1, 100.2
    record.ended_at_s = 5000.0
    one.end(trace, record, 100.0)
    (spans,) = sink.spans.values()
    return {span.name: span for span in spans}


def completed(**changes: Any) -> Record:
    given: dict[str, Any] = {
        "replica": "shared-0",
        "stream": True,
        "queue_s": 1.0,
        "first_byte_s": 1.5,
        "total_s": 4.0,
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "attempts": 1,
        "picked": "running",
    }
    return Record("id", target(), Outcome.COMPLETED, 200, **{**given, **changes})


def test_a_request_becomes_six_spans_in_its_clients_trace() -> None:
    spans = traced(completed())
    assert list(spans) == ["chat support", "authenticate", "route", "queue", "upstream", "first_token"]
    root, upstream = spans["chat support"], spans["upstream"]
    assert (root.parent_id, root.kind, upstream.kind) == (SPAN, "SERVER", "CLIENT")
    assert {spans[name].parent_id for name in ("authenticate", "route", "queue", "upstream")} == {
        root.span_id
    }
    assert spans["first_token"].parent_id == upstream.span_id
    assert len({span.span_id for span in spans.values()}) == 6
    assert not any(span.error for span in spans.values())


def test_times_are_those_of_the_record() -> None:
    times = {
        name: (round(span.start_s - 4996.0, 6), round(span.end_s - 4996.0, 6))
        for name, span in traced(completed()).items()
    }
    assert times == {
        "chat support": (-0.1, 4.0),
        "authenticate": (-0.1, 0.0),
        "route": (0.1, 0.2),
        "queue": (0.2, 1.0),
        "upstream": (1.0, 4.0),
        "first_token": (1.0, 1.5),
    }


def test_attributes_have_opentelemetrys_names() -> None:
    spans = traced(completed())
    attributes = spans["chat support"].attributes or {}
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.request.model"] == "support"
    assert attributes["gen_ai.response.model"] == "a-support@1"
    assert (attributes["gen_ai.usage.input_tokens"], attributes["gen_ai.usage.output_tokens"]) == (7, 3)
    assert (attributes["tenantry.tenant"], attributes["tenantry.version"]) == ("a", 1)
    assert "error.type" not in attributes and "tenantry.waits_for" not in attributes
    assert spans["upstream"].attributes == {
        "tenantry.attempts": 1,
        "tenantry.hedged": False,
        "tenantry.replica": "shared-0",
        "tenantry.picked": "running",
    }


def test_one_that_was_rejected_never_waited() -> None:
    spans = traced(Record("id", target(), Outcome.REJECTED, 429, "max_concurrency", total_s=0.3))
    assert list(spans) == ["chat support", "authenticate", "route"]
    assert spans["chat support"].error == "", "the client's fault, not the server's"
    assert (spans["chat support"].attributes or {})["error.type"] == "max_concurrency"


def test_one_that_expired_only_waited() -> None:
    spans = traced(Record("id", target(), Outcome.EXPIRED, 503, "queue_timeout", total_s=30.0))
    assert list(spans)[-1] == "queue"
    assert spans["queue"].end_s == 5000.0
    assert spans["chat support"].error == "queue_timeout"


def test_one_that_failed_says_so_upstream_too() -> None:
    failed = completed()
    failed.outcome, failed.reason = Outcome.FAILED, "engine_failed"
    spans = traced(failed)
    assert (spans["chat support"].error, spans["upstream"].error) == ("engine_failed", "engine_failed")


def test_a_client_that_left_is_no_error() -> None:
    left = completed(first_byte_s=None)
    left.outcome, left.reason, left.status = Outcome.CANCELLED, "client_gone", 499
    spans = traced(left)
    assert spans["chat support"].error == "" and "first_token" not in spans


def test_without_a_client_trace_a_new_one_begins() -> None:
    root = traced(completed(), header=None)["chat support"]
    assert root.parent_id is None


def test_the_engine_gets_the_upstream_span_and_nothing_of_the_clients_but_its_trace() -> None:
    one = tracer(Sink())
    trace = one.begin(GOOD, "/v1/completions", 0.0)
    assert trace.for_engine == f"00-{TRACE}-{trace.upstream_id}-01"
    assert SPAN not in trace.for_engine


@pytest.mark.parametrize(
    ("header", "ratio", "sent"),
    [(GOOD, 0.0, 0), (GOOD[:-1] + "0", 1.0, 0), (None, 1.0, 500), (GOOD, 1.0, 500)],
)
def test_sampling_is_ours_and_a_client_can_only_have_less_of_it(
    header: str | None, ratio: float, sent: int
) -> None:
    sink = Sink()
    one = tracer(sink, ratio)
    for _ in range(500):
        trace = one.begin(header, "/v1/completions", 0.0)
        one.end(trace, completed(), 0.0)
        assert trace.for_engine.endswith("-01" if sent else "-00"), "the engine samples as the gateway does"
    assert sum(len(spans) for spans in sink.spans.values()) == 6 * sent


def test_a_part_of_the_requests_is_traced() -> None:
    one = tracer(Sink(), 0.1)
    sampled = [one.begin(GOOD, "/v1/completions", 0.0).context.sampled for _ in range(2000)]
    assert 140 < sum(sampled) < 260


async def test_closing_closes_the_connection() -> None:
    sink = Sink()
    await tracer(sink).close()
    assert sink.closed


def test_without_an_endpoint_there_is_no_tracer() -> None:
    assert Tracer.of(TracingSettings()) is None

"""Spans travel to a collector as OTLP, by the SDK."""

from __future__ import annotations

import subprocess
import sys

import pytest

from routing.observing.tracing.exporter import Exporter
from routing.observing.tracing.spans import Attributes, Span
from tests.unit.routing.observing.tracing.collector import collecting
from tests.unit.routing.observing.tracing.test_context import SPAN, TRACE


def test_a_collector_gets_what_was_sent() -> None:
    with collecting() as collector:
        exporter = Exporter(collector.url)
        attributes: Attributes = {
            "gen_ai.request.model": "support",
            "tenantry.version": 2,
            "tenantry.stream": True,
        }
        exporter.send(
            TRACE, [Span("chat support", SPAN, None, 10.0, 10.5, "SERVER", attributes, "engine_failed")]
        )
        exporter.send(TRACE, [Span("queue", "1" * 16, SPAN, 10.1, 10.2)])
        exporter.close()
    assert set(collector.paths) == {"/v1/traces"}
    found = collector.in_trace(TRACE)
    root, queue = found["chat support"], found["queue"]
    assert (root.service, root.parent_id, queue.parent_id) == ("tenantry-gateway", "", SPAN)
    assert root.attributes == attributes
    assert (root.start_ns, root.end_ns) == (10_000_000_000, 10_500_000_000)


def test_a_collector_that_does_not_answer_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routing.observing.tracing.exporter.EXPORT_TIMEOUT_S", 0.3)
    exporter = Exporter("http://127.0.0.1:9/v1/traces")
    exporter.send(TRACE, [Span("queue", SPAN, None, 1.0, 2.0)] * 10_000)
    exporter.close()


def test_where_tracing_is_off_the_sdk_is_not_even_imported() -> None:
    program = (
        "import sys, routing.assembly; sys.exit(any(m.startswith('opentelemetry.') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

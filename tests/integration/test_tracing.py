"""A traced request through gateway and engine, and what the log says of its trace."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet.types import GatewaySettings, MetricsAccess, TracingSettings
from tests.fakes import Client, key_of, small_fleet
from tests.integration.conftest import Bench, bench_of
from tests.unit.routing.observing.metrics.scrapes import openmetrics_families
from tests.unit.routing.observing.tracing.collector import collecting
from tests.unit.routing.observing.tracing.test_context import GOOD, SPAN, TRACE

SECRET_WORDS = "the-patient-has-a-secret"


def settings(endpoint: str | None = None, ratio: float = 1.0, **changes: Any) -> GatewaySettings:
    tracing = TracingSettings(endpoint, ratio)
    return replace(GatewaySettings(metrics_access=MetricsAccess.OPEN, tracing=tracing), **changes)


def chat(bench: Bench, *headers: tuple[str, str], stream: bool = False) -> Client:
    payload = {"model": "support", "stream": stream, "messages": [{"role": "user", "content": "who?"}]}
    return bench.post("/v1/chat/completions", payload, headers=list(headers))


async def test_a_request_is_one_trace_from_its_client_to_the_engine(tmp_path: Path) -> None:
    with collecting() as collector:
        async with bench_of(small_fleet(settings=settings(collector.url)), tmp_path) as bench:
            more = ("tracestate", "vendor=secret"), ("baggage", "user=me")
            answer = await chat(bench, ("traceparent", GOOD), *more, stream=True)()
            assert answer.status == 200
            (seen,) = bench.engines["shared-0"].headers
            page = await Client(
                bench.gateway.app,
                "/metrics",
                method="GET",
                headers=[("accept", "application/openmetrics-text")],
            )()
    spans = collector.in_trace(TRACE)
    assert set(spans) == {"chat support", "authenticate", "route", "queue", "upstream", "first_token"}
    assert spans["chat support"].parent_id == SPAN
    assert seen["traceparent"] == f"00-{TRACE}-{spans['upstream'].span_id}-01"
    assert "tracestate" not in seen and "baggage" not in seen
    root = spans["chat support"]
    assert all(root.start_ns <= span.start_ns <= span.end_ns <= root.end_ns for span in spans.values())
    first_token = openmetrics_families(page.body)["tenantry_time_to_first_token_seconds"]
    exemplars = [sample.exemplar for sample in first_token.samples if sample.exemplar]
    assert [exemplar.labels for exemplar in exemplars] == [{"trace_id": TRACE}]


async def test_a_request_that_is_not_sampled_sends_nothing_and_tells_the_engine(tmp_path: Path) -> None:
    with collecting() as collector:
        async with bench_of(small_fleet(settings=settings(collector.url, 0.0)), tmp_path) as bench:
            await chat(bench, ("traceparent", GOOD))()
            assert bench.engines["shared-0"].headers[0]["traceparent"].endswith("-00")
    assert collector.spans == []


async def test_where_tracing_is_off_engines_get_no_header_and_the_log_names_the_trace(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tenantry.request")
    async with bench_of(small_fleet(settings=settings()), tmp_path) as bench:
        await chat(bench, ("traceparent", GOOD))()
        await chat(bench, ("traceparent", GOOD + '"},{"'))()
        await chat(bench, ("traceparent", GOOD), ("traceparent", GOOD))()
        assert not any("traceparent" in headers for headers in bench.engines["shared-0"].headers)
    assert [line["trace_id"] for line in bench.logged(caplog)] == [TRACE, None, None]


@pytest.mark.parametrize("behaviour", ["answer", "die_mid_stream", "refuse_request", "break_down"])
async def test_no_log_line_holds_a_prompt_an_answer_or_a_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, behaviour: str
) -> None:
    caplog.set_level(logging.DEBUG)
    async with bench_of(small_fleet(settings=settings()), tmp_path) as bench:
        engine = bench.engines["shared-0"]
        engine.behave = getattr(engine, behaviour)
        messages = [{"role": "user", "content": SECRET_WORDS}]
        for stream in (True, False):
            await bench.chat(model="support", messages=messages, stream=stream, user=SECRET_WORDS)()
        await bench.chat(model="support", messages=SECRET_WORDS)()
        await bench.chat(model=SECRET_WORDS, messages=messages)()
        wrong = [("authorization", f"Bearer {SECRET_WORDS}"), ("content-type", "application/json")]
        await Client(bench.gateway.app, "/v1/chat/completions", body=b"{}", headers=wrong)()
    assert len(bench.logged(caplog)) == 2
    for text in (record.getMessage() for record in caplog.records):
        assert SECRET_WORDS not in text and key_of("a") not in text and "I am" not in text
    assert all(line["time"].endswith("+00:00") for line in bench.logged(caplog))

"""Pages of metrics and Prometheus: counters of vLLM, LiteLLM and this gateway."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from planning.reading.metrics_page import of_buckets, read_page
from planning.reading.prometheus import read_prometheus
from planning.reading.sources import read_demand
from planning.requests import DemandError
from planning.values import DAY_S, HOUR_S

NOW_S = 1_790_000_000.0
VLLM = f"""# HELP vllm:request_success_total Count of successfully processed requests.
# TYPE vllm:request_success_total counter
vllm:request_success_total{{model_name="llama",finished_reason="stop"}} 90.0
vllm:request_success_total{{model_name="llama",finished_reason="length"}} 10.0
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{{model_name="llama"}} 20000.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{{model_name="llama"}} 5000.0
# TYPE vllm:request_prompt_tokens histogram
vllm:request_prompt_tokens_bucket{{model_name="llama",le="100.0"}} 50.0
vllm:request_prompt_tokens_bucket{{model_name="llama",le="500.0"}} 100.0
vllm:request_prompt_tokens_bucket{{model_name="llama",le="+Inf"}} 100.0
vllm:request_prompt_tokens_sum{{model_name="llama"}} 20000.0
vllm:request_prompt_tokens_count{{model_name="llama"}} 100.0
# TYPE process_start_time_seconds gauge
process_start_time_seconds {NOW_S - 2 * DAY_S}
"""
LITELLM = """# TYPE litellm_proxy_total_requests_metric_total counter
litellm_proxy_total_requests_metric_total{requested_model="gpt",team="a"} 6.0
litellm_proxy_total_requests_metric_total{requested_model="gpt",team="b"} 4.0
litellm_proxy_total_requests_metric_total{requested_model="idle",team="b"} 0.0
# TYPE litellm_input_tokens_metric_total counter
litellm_input_tokens_metric_total{requested_model="gpt",team="a"} 1000.0
"""
OURS = """# TYPE tenantry_requests_total counter
tenantry_requests_total{tenant="shop",model="chat",adapter="shop-chat",outcome="completed",reason=""} 8.0
tenantry_requests_total{tenant="desk",model="talk",adapter="shop-chat",outcome="completed",reason=""} 2.0
# TYPE tenantry_prompt_tokens_total counter
tenantry_prompt_tokens_total{tenant="shop",model="chat",adapter="shop-chat"} 100.0
# TYPE tenantry_cached_prompt_tokens_total counter
tenantry_cached_prompt_tokens_total{tenant="shop",model="chat",adapter="shop-chat"} 25.0
"""


def by_adapter(tenant: str, model: str, adapter: str) -> str:
    return adapter or model


def test_vllms_page_tells_rates_lengths_and_since_when() -> None:
    found = read_page(VLLM, "engine", now_s=NOW_S)
    one = found.models[0]
    assert (one.model, one.requests, found.duration_s) == ("llama", 100, 2 * DAY_S)
    assert sum(one.hourly) == pytest.approx(100)
    assert len(one.hourly) == 48
    assert (one.prompt.p50, one.prompt.most) == (100, 500)
    assert one.completion.mean == 50
    assert "tells no time of day" in found.notes[0]


def test_litellms_page_needs_to_be_told_since_when() -> None:
    with pytest.raises(DemandError, match="say so with --over"):
        read_page(LITELLM, "proxy", now_s=NOW_S)
    found = read_page(LITELLM, "proxy", now_s=NOW_S, over_s=DAY_S)
    assert [(one.model, one.requests) for one in found.models] == [("a/gpt", 6), ("b/gpt", 4)]


def test_one_adapter_under_two_names_is_one_model() -> None:
    found = read_page(OURS, "gateway", now_s=NOW_S, over_s=DAY_S, naming=by_adapter)
    (one,) = found.models
    assert (one.model, one.requests, one.tenants, one.cached) == ("shop-chat", 10, ("desk", "shop"), 0.25)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("# TYPE up gauge\nup 1.0\n", "no counter of requests by model"),
        ("# TYPE a counter\na{ 1\n", "no page of metrics"),
        (VLLM.replace(str(NOW_S - 2 * DAY_S), str(NOW_S + 50)), "which is too short or too long"),
        (VLLM.replace(" 90.0", " 0.0").replace("} 10.0", "} NaN"), "all 0"),
    ],
)
def test_a_page_that_tells_nothing_is_refused(text: str, what: str) -> None:
    with pytest.raises(DemandError, match=what):
        read_page(text, "page", now_s=NOW_S)


def test_a_saved_page_counts_until_it_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "metrics.txt"
    path.write_text(VLLM)
    os.utime(path, (NOW_S - DAY_S, NOW_S - DAY_S))
    assert read_demand(str(path), None, now_s=NOW_S).demand.duration_s == DAY_S


def test_buckets_of_nothing_are_no_distribution_and_the_last_one_ends_somewhere() -> None:
    assert of_buckets([(1.0, 0.0), (float("inf"), 0.0)]) is None
    assert of_buckets([]) is None
    beyond = of_buckets([(10.0, 0.0), (float("inf"), 4.0)])
    assert beyond is not None
    assert beyond.most == 20.0


def server(answer: Callable[[str], Any], status: int = 200) -> httpx.Client:
    def handle(request: httpx.Request) -> httpx.Response:
        query = parse_qs(request.content.decode())["query"][0]
        found = answer(query)
        text = (
            found if isinstance(found, str) else json.dumps({"status": "success", "data": {"result": found}})
        )
        return httpx.Response(status, text=text)

    return httpx.Client(transport=httpx.MockTransport(handle))


def series(labels: dict[str, str], *values: tuple[float, str]) -> dict[str, Any]:
    return {"metric": labels, "values": [list(value) for value in values]}


def test_prometheus_tells_hours() -> None:
    ends_s = NOW_S // HOUR_S * HOUR_S

    def answer(query: str) -> Any:
        if "vllm:request_success_total" in query:
            return [
                series({"model_name": "llama"}, (ends_s - HOUR_S, "30"), (ends_s, "60"), (ends_s - 9e9, "5")),
                series({"model_name": "late"}, (ends_s, "7"), (ends_s - HOUR_S, "NaN")),
                series({}, (ends_s, "7")),
            ]
        return [series({"model_name": "llama"}, (ends_s, "9000"))] if "vllm:prompt_tokens" in query else []

    found = read_prometheus("http://prometheus:9090", server(answer), now_s=NOW_S, over_s=DAY_S)
    late, llama = found.models
    assert (llama.hourly, late.hourly) == ((30.0, 60.0), (0.0, 7.0))
    assert llama.prompt.mean == 100
    assert found.duration_s == 2 * HOUR_S
    assert found.begins_s == ends_s - 2 * HOUR_S
    assert found.source == "vLLM's counters in prometheus"
    assert any("2.0 hours" in note for note in found.notes)


@pytest.mark.parametrize(
    ("answer", "status", "what"),
    [
        ("<html>", 200, "no JSON: is it Prometheus's address"),
        ('{"status": "error", "error": "too many samples"}', 422, "refuses the query .status 422.: too many"),
        ('{"status": "success"}', 200, "has no result"),
        ("[]", 200, "refuses the query"),
        ([], 200, "no request of this gateway, vLLM, LiteLLM in the last 24 hours"),
    ],
)
def test_prometheus_that_answers_otherwise_is_told_of(answer: Any, status: int, what: str) -> None:
    with pytest.raises(DemandError, match=what):
        read_prometheus("http://p", server(lambda _: answer, status), now_s=NOW_S, over_s=DAY_S)


def test_prometheus_that_does_not_answer_is_told_of() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    client = httpx.Client(transport=httpx.MockTransport(refuse))
    with pytest.raises(DemandError, match="does not answer: refused"):
        read_prometheus("http://p", client, now_s=NOW_S)
    with pytest.raises(DemandError, match="between an hour and 180 days"):
        read_prometheus("http://p", client, now_s=NOW_S, over_s=5.0)

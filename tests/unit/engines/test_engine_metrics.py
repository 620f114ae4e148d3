"""Does an engine's page of metrics stay as large as it is, whatever adapters run together?"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from engines.engine_metrics import ENDLESS, OF_ENGINE, EngineMetrics, keep_bounded, take
from engines.loader.metrics import IN_FLIGHT

# What the labels of vLLM's metrics may say: how it is configured, or one of a few words.
BOUNDED = frozenset({"engine", "model_name", "max_lora", "finished_reason", "reason", "source", "stage"}) | {
    "sleep_state",
    "status",
}


COUNTED: list[int] = []


def info(registry: CollectorRegistry) -> Gauge:
    """vLLM's metric, and what it does with it after every step."""
    labels = ["max_lora", "waiting_lora_adapters", "running_lora_adapters"]
    return Gauge("vllm:lora_requests_info", "Running stats on lora requests.", labels, registry=registry)


def run_together(gauge: Gauge, numbers: range) -> None:
    for number in numbers:
        running = ",".join(f"adapter-{n}" for n in range(number))
        labels = {"running_lora_adapters": running, "waiting_lora_adapters": "adapter-0", "max_lora": 4}
        gauge.labels(**labels).set_to_current_time()


def test_sets_of_adapters_have_no_series_on_the_page_or_in_memory() -> None:
    registry = CollectorRegistry()
    gauge = info(registry)
    kept = Counter("vllm:request_success", "Ended.", ["model_name", "finished_reason"], registry=registry)
    run_together(gauge, range(3))  # while the engine proves itself
    assert keep_bounded(registry, COUNTED.append) == ["vllm:lora_requests_info"]
    kept.labels("m", "stop").inc()
    page = generate_latest(registry)
    run_together(gauge, range(100))
    assert generate_latest(registry) == page
    assert b"adapter-" not in page and b'vllm:request_success_total{finished_reason="stop"' in page
    assert len(gauge._metrics) == 0


def test_an_engine_that_is_started_again_has_its_own_metric_dropped_too() -> None:
    registry = CollectorRegistry()
    for _ in range(2):  # vLLM would refuse to make a metric whose name is still taken
        gauge = info(registry)
        assert keep_bounded(registry, COUNTED.append) == ["vllm:lora_requests_info"]
        run_together(gauge, range(5))
    assert generate_latest(registry) == b""


def test_how_many_adapters_ran_or_waited_at_a_step_is_kept() -> None:
    registry, metrics = CollectorRegistry(), EngineMetrics()
    gauge = info(registry)
    keep_bounded(registry, metrics.adapters.in_flight)
    for running, waiting in (("a@1", ""), ("a@1,b@1", "b@1,c@1"), ("", "a@1,b@1,c@1,d@1")):
        gauge.labels(running_lora_adapters=running, waiting_lora_adapters=waiting, max_lora=4).set(1.0)
    steps = {f"{IN_FLIGHT.name}_count": 3, f"{IN_FLIGHT.name}_sum": 1 + 3 + 4}
    assert {name: metrics.adapters.registry.get_sample_value(name) for name in steps} == steps


def test_each_replica_of_a_process_shows_its_own_engine_and_adapters_alone() -> None:
    process, pages = CollectorRegistry(), {name: EngineMetrics(alone=False) for name in ("even", "odd")}
    for number, (name, metrics) in enumerate(pages.items(), 1):
        requests = Counter("vllm:request_success", "Ended.", ["model_name"], registry=process)
        Counter("vllm:tool_call_parser_invocations", "Of all.", registry=process) if number == 1 else None
        take(OF_ENGINE, metrics.engine, process)  # vLLM would refuse the second one otherwise
        requests.labels(name).inc(number)
        metrics.adapters.failed()
    for number, (name, metrics) in enumerate(pages.items(), 1):
        page = metrics.page().decode()
        assert f'vllm:request_success_total{{model_name="{name}"}} {number}.0' in page
        assert page.count("vllm:request_success_total{") == 1
        assert "tenantry_adapter_load_failures_total 1.0" in page
        assert "tool_call" not in page and "python_info" not in page
    assert "vllm:tool_call_parser_invocations" in {collector._name for collector in collectors(process)}


def test_one_that_has_its_process_alone_shows_that_too() -> None:
    page = EngineMetrics().page().decode()
    assert "python_info" in page and "tenantry_adapters_resident" in page


def collectors(registry: CollectorRegistry) -> list[Any]:
    return list(registry._collector_to_names)


@pytest.mark.parametrize("label", sorted(ENDLESS))
def test_every_metric_of_the_kind_is_dropped(label: str) -> None:
    registry = CollectorRegistry()
    Counter("some", "Some.", ["engine", label], registry=registry)
    assert keep_bounded(registry, COUNTED.append) == ["some"]


def test_no_other_label_of_vllms_is_unknown() -> None:
    """A new one has to be looked at: are its values bounded?"""
    spec = importlib.util.find_spec("vllm")
    assert spec is not None and spec.origin is not None
    tree = ast.parse((Path(spec.origin).parent / "v1/metrics/loggers.py").read_text())
    named = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "labelnames":
            named |= _texts(node.value)
        if isinstance(node, ast.Assign) and any("labelname" in ast.unparse(each) for each in node.targets):
            named |= _texts(node.value)
    assert named >= {"engine", "running_lora_adapters"}
    assert named <= BOUNDED | ENDLESS


def _texts(node: ast.AST) -> set[str]:
    return {str(each.value) for each in ast.walk(node) if isinstance(each, ast.Constant)}

"""Which settings of BentoML's are refused, since they would do nothing?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from routing.http.bento_settings import PASSED_BY, without_effect

# As BentoML has them where nobody says anything.
DEFAULTS: dict[str, Any] = {
    "workers": 1,
    "threads": 1,
    "backlog": 2048,
    "traffic": {"timeout": 60.0, "max_concurrency": None},
    "http": {"port": 3000, "response": {"trace_id": False}, "cors": {"enabled": False}},
    "metrics": {"enabled": True, "namespace": "bentoml_service"},
    "logging": {"access": {"enabled": True, "skip_paths": ["/livez"]}},
    "tracing": {"exporter_type": None, "excluded_urls": None},
    "max_runner_connections": 16,
    "runner_connection": {"max_requests": 100},
    "grpc": {"port": 3000, "reflection": {"enabled": False}},
}


def test_what_nobody_has_set_is_no_fault() -> None:
    assert without_effect(DEFAULTS, DEFAULTS) == []
    assert without_effect({"traffic": {"timeout": None}}, DEFAULTS) == []


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"traffic": {"max_concurrency": 5}}, "traffic.max_concurrency"),
        ({"traffic": {"timeout": 600}}, "traffic.timeout"),
        ({"http": {"response": {"trace_id": True}}}, "http.response.trace_id"),
        ({"metrics": {"namespace": "mine"}}, "metrics.namespace"),
        ({"metrics": {"duration": {"buckets": [1.0]}}}, "metrics.duration.buckets"),
        ({"logging": {"access": {"skip_paths": []}}}, "logging.access.skip_paths"),
        ({"tracing": {"exporter_type": "otlp"}}, "tracing.exporter_type"),
        ({"tracing": {"otlp": {"endpoint": "http://x"}}}, "tracing.otlp.endpoint"),
        ({"workers": 2}, "workers"),
        ({"workers": "cpu_count"}, "workers"),
        ({"threads": 8}, "threads"),
        ({"max_runner_connections": 99}, "max_runner_connections"),
        ({"runner_connection": {"max_requests": 1}}, "runner_connection.max_requests"),
        ({"grpc": {"reflection": {"enabled": True}}}, "grpc.reflection.enabled"),
        ({"endpoints": {"livez": "/alive"}}, "endpoints.livez"),
    ],
)
def test_what_would_do_nothing_is_named_with_what_does_it(settings: dict[str, Any], path: str) -> None:
    (said,) = without_effect(settings, DEFAULTS)
    instead = next(text for passed_by, text in PASSED_BY.items() if path.startswith(passed_by))
    assert said == f"{path} is not taken here: {instead}"


@pytest.mark.parametrize(
    "settings",
    [
        {"http": {"port": 8080, "host": "::1", "cors": {"enabled": True}}},
        {"ssl": {"enabled": True, "certfile": "x"}},
        {"backlog": 64},
        {"resources": {"gpu": 1}},
        {"runner_probe": {"enabled": False}},
        {"metrics": {"enabled": False}},
        {"logging": {"access": {"enabled": False}}},
        {"tracing": {"excluded_urls": ".*"}},
    ],
)
def test_what_works_is_taken(settings: dict[str, Any]) -> None:
    assert without_effect(settings, DEFAULTS) == []


def test_the_documents_name_each_of_them() -> None:
    text = (Path(__file__).parents[4] / "docs/configuration.md").read_text()
    table = text[text.index("## BentoML's settings") : text.index("`http.cors` counts")]
    assert [path for path in PASSED_BY if f"`{path}`" not in table] == []


def test_each_of_several_usual_values_is_usual() -> None:
    shipped = {"traffic": {"timeout": 30}}
    assert without_effect({"traffic": {"timeout": 30}}, DEFAULTS, shipped) == []
    assert without_effect({"traffic": {"timeout": 60.0}}, DEFAULTS, shipped) == []
    assert len(without_effect({"traffic": {"timeout": 31}}, DEFAULTS, shipped)) == 1

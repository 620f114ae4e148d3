"""docs/metrics.md is what the definitions say."""

from __future__ import annotations

from pathlib import Path

from engines.loader.metrics import ENGINE_METRICS
from routing.observing.metrics.definitions import GATEWAY_METRICS
from routing.observing.metrics.document import document

PAGE = Path(__file__).parents[5] / "docs" / "metrics.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == document(), "tenantry metrics > docs/metrics.md"


def test_every_metric_has_a_row() -> None:
    for metric in (*GATEWAY_METRICS, *ENGINE_METRICS):
        assert document().count(f"| `{metric.sample}` | {metric.kind} |") == 1, metric.name

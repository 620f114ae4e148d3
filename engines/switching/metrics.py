"""The metric of turns in place, on the engine's page."""

from __future__ import annotations

from prometheus_client import Counter

from engines.metric import Metric, MetricKind

WAKE_CHECK_FAILURES = Metric(
    "tenantry_wake_check_failures",
    MetricKind.COUNTER,
    "Models that did not answer after a switch as they did when they were first loaded.",
)
_failures = Counter(WAKE_CHECK_FAILURES.name, WAKE_CHECK_FAILURES.text)


def wake_check_failed() -> None:
    """Count an answer that is not the one that was kept."""
    _failures.inc()

"""The metrics of switches, on the engine's page."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from engines.metric import Metric, MetricKind

WAKE_CHECK_FAILURES = Metric(
    "tenantry_wake_check_failures",
    MetricKind.COUNTER,
    "Times that the model, or an adapter on it, did not answer after a switch as when it was first loaded.",
)
WAY_FAILURES = Metric(
    "tenantry_way_failures",
    MetricKind.COUNTER,
    "Times that a way to bring the model failed, so that the next one was taken.",
    labels=("way",),
)
SWITCHING_METRICS = (WAKE_CHECK_FAILURES, WAY_FAILURES)


class SwitchingMetrics:
    """These metrics of one replica, from its worker's start on."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._ways = Counter(
            WAY_FAILURES.name, WAY_FAILURES.text, WAY_FAILURES.labels, registry=self.registry
        )
        self.failures = 0
        self._failures = Counter(WAKE_CHECK_FAILURES.name, WAKE_CHECK_FAILURES.text, registry=self.registry)

    def way_failed(self, way: str) -> None:
        """Count a way that has failed."""
        self._ways.labels(way).inc()

    def wake_check_failed(self) -> None:
        """Count an answer that is not the one that was kept."""
        self._failures.inc()
        self.failures += 1

"""The metric of turns in place, on the engine's page."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from engines.metric import Metric, MetricKind

WAKE_CHECK_FAILURES = Metric(
    "tenantry_wake_check_failures",
    MetricKind.COUNTER,
    "Times that the model, or an adapter on it, did not answer after a switch as when it was first loaded.",
)
SWITCHING_METRICS = (WAKE_CHECK_FAILURES,)


class SwitchingMetrics:
    """This metric of one replica, from its worker's start on."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._failures = Counter(WAKE_CHECK_FAILURES.name, WAKE_CHECK_FAILURES.text, registry=self.registry)

    def wake_check_failed(self) -> None:
        """Count an answer that is not the one that was kept."""
        self._failures.inc()

"""Metrics of adapters on the engine's page: load times, failures, evictions, residents, adapters in use.

No label names an adapter: the gateway's page has models, this one has tiers.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from engines.metric import Metric, MetricKind

LOADS = Metric(
    "tenantry_adapter_load_seconds",
    MetricKind.HISTOGRAM,
    "Time to bring an adapter one tier up: `disk` into host memory, `host` into a slot.",
    ("tier",),
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
FAILURES = Metric(
    "tenantry_adapter_load_failures",
    MetricKind.COUNTER,
    "Loads from disk that failed: files that are gone or broken, or an adapter that vLLM refused.",
)
EVICTIONS = Metric(
    "tenantry_adapter_evictions",
    MetricKind.COUNTER,
    "Adapters that made way for another one, by what they left: `slot` or `host`.",
    ("from",),
)
RESIDENT = Metric(
    "tenantry_adapters_resident",
    MetricKind.GAUGE,
    "Adapters in the engine: in `host` memory, those in a `slot` included.",
    ("tier",),
)
PINNED = Metric("tenantry_adapters_pinned", MetricKind.GAUGE, "Adapters that hold a slot for good.")
IN_FLIGHT = Metric(
    "tenantry_adapters_in_flight",
    MetricKind.HISTOGRAM,
    "Adapters with a request in vLLM, running or waiting, at each of the engine's steps.",
    buckets=(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0),
)
ENGINE_METRICS = (LOADS, FAILURES, EVICTIONS, RESIDENT, PINNED, IN_FLIGHT)


class AdapterMetrics:
    """These metrics of one replica, from its worker's start on; each replica of a host has its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of = self.registry
        self._loads = Histogram(LOADS.name, LOADS.text, LOADS.labels, buckets=LOADS.buckets, registry=of)
        self._failures = Counter(FAILURES.name, FAILURES.text, registry=of)
        self._evictions = Counter(EVICTIONS.name, EVICTIONS.text, EVICTIONS.labels, registry=of)
        self._resident = Gauge(RESIDENT.name, RESIDENT.text, RESIDENT.labels, registry=of)
        self._pinned = Gauge(PINNED.name, PINNED.text, registry=of)
        self._in_flight = Histogram(IN_FLIGHT.name, IN_FLIGHT.text, buckets=IN_FLIGHT.buckets, registry=of)
        for tier in ("slot", "host"):  # there from the start, so that a rate over them begins at zero
            self.evicted(tier, 0)
        for tier in ("disk", "host"):
            self._loads.labels(tier)

    def loaded(self, tier: str, seconds: float) -> None:
        """Count an adapter that was brought up from a tier, "disk" or "host"."""
        self._loads.labels(tier).observe(seconds)

    def failed(self) -> None:
        """Count a load from disk that failed."""
        self._failures.inc()

    def evicted(self, tier: str, count: int = 1) -> None:
        """Count adapters that left `tier`, "slot" or "host", for another one."""
        self._evictions.labels(tier).inc(count)

    def residents(self, *, slots: int, host: int, pinned: int) -> None:
        """Set the numbers of adapters in slots, in host memory and pinned."""
        self._resident.labels("slot").set(slots)
        self._resident.labels("host").set(host)
        self._pinned.set(pinned)

    def in_flight(self, adapters: int) -> None:
        """Count a step of the engine, by the number of adapters that have requests in vLLM."""
        self._in_flight.observe(adapters)

"""Which metrics exist? Every name, label, bucket and unit of the gateway; nothing else declares one.

Labels come from the fleet alone, never from a request, and only the first `MAX_MODELS` (tenant, model) pairs
seen get series of their own; the rest share `other`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from routing.record import Record
from routing.scheduling.breaker import BreakerState
from routing.scheduling.report import SchedulerReport
from routing.types import Outcome

MAX_MODELS = 500
OTHER = "other"
MODEL_LABELS = ("tenant", "model", "adapter")
REPLICA_LABELS = ("pool", "replica")
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

# Seconds. From one decode step of a small model to the longest answer anybody waits for.
LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)


class SchedulerView(Protocol):
    """What the gauges read at the moment of a scrape."""

    def queued(self) -> dict[tuple[str, str], int]: ...
    def admitted(self) -> dict[tuple[str, str], int]: ...
    def report(self, decisions: int = ...) -> SchedulerReport: ...


class GatewayMetrics:
    """The gateway's metrics page."""

    def __init__(self, scheduler: SchedulerView) -> None:
        self._registry = registry = CollectorRegistry()
        self._per_model: dict[tuple[str, str], _ModelSeries] = {}
        self._per_replica: dict[str, _ReplicaSeries] = {}

        def histogram(name: str, text: str, labels: tuple[str, ...], buckets: Iterable[float]) -> Histogram:
            return Histogram(name, text, labels, buckets=tuple(buckets), registry=registry)

        def counter(name: str, text: str, labels: tuple[str, ...]) -> Counter:
            return Counter(name, text, labels, registry=registry)

        self.requests = counter(
            "tenantry_requests", "Requests by how they ended.", (*MODEL_LABELS, "outcome", "reason")
        )
        self.refusals = counter(
            "tenantry_refusals", "Requests refused before a model was known.", ("status", "reason")
        )
        self.prompt_tokens = counter(
            "tenantry_prompt_tokens", "Prompt tokens, as engines count.", MODEL_LABELS
        )
        self.completion_tokens = counter(
            "tenantry_completion_tokens", "Completion tokens, as engines count.", MODEL_LABELS
        )
        self.first_byte = histogram(
            "tenantry_time_to_first_token_seconds",
            "Arrival to the first byte of the answer.",
            MODEL_LABELS,
            LATENCY_BUCKETS,
        )
        self.token = histogram(
            "tenantry_time_per_output_token_seconds",
            "Mean time per token after the first, per streamed request.",
            MODEL_LABELS,
            TOKEN_BUCKETS,
        )
        self.total = histogram(
            "tenantry_request_duration_seconds", "Arrival to the last byte.", MODEL_LABELS, LATENCY_BUCKETS
        )
        self.queue = histogram(
            "tenantry_queue_time_seconds", "Arrival to the grant of a replica.", MODEL_LABELS, LATENCY_BUCKETS
        )
        self.replica_requests = counter(
            "tenantry_replica_requests",
            "Requests by the replica that ran them.",
            (*REPLICA_LABELS, "outcome"),
        )
        self.replica_first_byte = histogram(
            "tenantry_replica_time_to_first_token_seconds",
            "Arrival to the first byte, by replica.",
            REPLICA_LABELS,
            LATENCY_BUCKETS,
        )
        self.replica_total = histogram(
            "tenantry_replica_request_duration_seconds",
            "Arrival to the last byte, by replica.",
            REPLICA_LABELS,
            LATENCY_BUCKETS,
        )
        registry.register(_SchedulerGauges(scheduler))

    def settled(self, record: Record) -> None:
        """Count one settled request."""
        target = record.target
        key = target.tenant, target.model
        series = self._per_model.get(key)
        if series is None:
            own = len(self._per_model) < MAX_MODELS
            labels = (target.tenant, target.model, target.adapter or "") if own else (OTHER, OTHER, OTHER)
            series = _ModelSeries(self, labels)
            if own:
                self._per_model[key] = series
        series.observe(record)
        if record.replica is not None:
            replica = self._per_replica.get(record.replica)
            if replica is None:
                replica = _ReplicaSeries(self, target.pool, record.replica)
                self._per_replica[record.replica] = replica
            replica.observe(record)

    def refused(self, status: int, reason: str) -> None:
        """Count a request that was refused before its model was known."""
        self.refusals.labels(str(status), reason).inc()

    def page(self) -> bytes:
        """Render the page in Prometheus' text format."""
        return generate_latest(self._registry)


class _ModelSeries:
    """The series of one (tenant, model), looked up once: label lookup costs more than counting."""

    def __init__(self, metrics: GatewayMetrics, labels: tuple[str, str, str]) -> None:
        self._requests = metrics.requests
        self._labels = labels
        self._ended: dict[tuple[str, str], Counter] = {}
        self._prompt_tokens = metrics.prompt_tokens.labels(*labels)
        self._completion_tokens = metrics.completion_tokens.labels(*labels)
        self._first_byte = metrics.first_byte.labels(*labels)
        self._token = metrics.token.labels(*labels)
        self._total = metrics.total.labels(*labels)
        self._queue = metrics.queue.labels(*labels)

    def observe(self, record: Record) -> None:
        ending = record.outcome.value, record.reason
        if ending not in self._ended:
            self._ended[ending] = self._requests.labels(*self._labels, *ending)
        self._ended[ending].inc()
        if record.queue_s is None:
            return
        self._queue.observe(record.queue_s)
        self._total.observe(record.total_s)
        if record.first_byte_s is not None:
            self._first_byte.observe(record.first_byte_s)
        if (token_s := record.token_s) is not None:
            self._token.observe(token_s)
        self._prompt_tokens.inc(record.prompt_tokens)
        self._completion_tokens.inc(record.completion_tokens)


class _ReplicaSeries:
    """The series of one replica."""

    def __init__(self, metrics: GatewayMetrics, pool: str, replica: str) -> None:
        self._ended = {
            outcome: metrics.replica_requests.labels(pool, replica, outcome.value) for outcome in Outcome
        }
        self._first_byte = metrics.replica_first_byte.labels(pool, replica)
        self._total = metrics.replica_total.labels(pool, replica)

    def observe(self, record: Record) -> None:
        self._ended[record.outcome].inc()
        self._total.observe(record.total_s)
        if record.first_byte_s is not None:
            self._first_byte.observe(record.first_byte_s)


class _SchedulerGauges(Collector):
    """Gauges read from the scheduler at scrape time, so that they cost a request nothing."""

    def __init__(self, scheduler: SchedulerView) -> None:
        self._scheduler = scheduler

    def collect(self) -> Iterator[Metric]:
        queued, admitted = self._scheduler.queued(), self._scheduler.admitted()
        keys = sorted({*queued, *admitted})
        yield _gauge(
            "tenantry_queue_depth",
            "Requests waiting for a replica.",
            MODEL_LABELS[:2],
            _bounded((key, queued.get(key, 0)) for key in keys).items(),
        )
        yield _gauge(
            "tenantry_in_flight",
            "Sequences in the gateway, waiting or running.",
            MODEL_LABELS[:2],
            _bounded((key, admitted.get(key, 0)) for key in keys).items(),
        )
        pools = self._scheduler.report(decisions=0).pools
        yield _gauge(
            "tenantry_band_queue_depth",
            "Requests waiting for a replica, by priority band.",
            ("pool", "band"),
            (((pool.name, band), depth) for pool in pools for band, depth in pool.queued_by_band.items()),
        )
        replicas = [((pool.name, replica.name), replica) for pool in pools for replica in pool.replicas]
        for name, text, read in _REPLICA_GAUGES:
            values = ((row, read(replica)) for row, replica in replicas)
            yield _gauge(name, text, REPLICA_LABELS, (each for each in values if each[1] is not None))
        yield _gauge(
            "tenantry_replica_breaker_state",
            "1 for the state that the replica's circuit breaker is in, 0 for the others.",
            (*REPLICA_LABELS, "state"),
            (
                ((*row, state.value), int(replica.health.breaker is state))
                for row, replica in replicas
                for state in BreakerState
            ),
        )


# A reader that gives None leaves its replica out.
_REPLICA_GAUGES = (
    ("tenantry_replica_ready", "1 where the replica answers.", lambda r: int(r.ready)),
    (
        "tenantry_replica_draining",
        "1 where an operator has drained it: no new work.",
        lambda r: int(r.draining),
    ),
    ("tenantry_replica_in_flight", "Sequences running on the replica.", lambda r: r.sequences),
    (
        "tenantry_replica_capacity",
        "Sequences it may have in flight now (K_R), after objective, slow start and outliers.",
        lambda r: r.capacity,
    ),
    (
        "tenantry_replica_inter_token_latency_seconds",
        "Running mean of the time between two tokens of a stream; pools with an objective for it.",
        lambda r: r.itl_s,
    ),
    ("tenantry_replica_slots", "Adapter slots (max_loras) of the replica.", lambda r: r.slots),
    ("tenantry_replica_leased_slots", "Slots held by adapters in flight.", lambda r: len(r.leases)),
    (
        "tenantry_replica_clearing_slots",
        "Slots being cleared for an adapter that waits.",
        lambda r: int(r.clearing_victim is not None),
    ),
)


def _gauge(
    name: str, text: str, labels: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for row, value in rows:
        family.add_metric(row, value)
    return family


def _bounded(rows: Iterable[tuple[tuple[str, str], int]]) -> dict[tuple[str, str], int]:
    """Keep the largest `MAX_MODELS` rows by name, add the rest up under `other`."""
    ranked = sorted(rows, key=lambda row: -row[1])
    kept = dict(ranked[:MAX_MODELS])
    rest = sum(value for _, value in ranked[MAX_MODELS:])
    if rest:
        kept[OTHER, OTHER] = rest
    return kept

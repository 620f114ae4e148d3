"""Gauges of the scheduler's state, read when the page is: they cost a request nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Protocol

from engines.metric import Metric
from routing.observing.metrics import definitions as d
from routing.scheduling.health.breaker import BreakerState
from routing.scheduling.replica_figures import ReplicaReport, ReplicaState
from routing.scheduling.report import SchedulerReport
from routing.scheduling.state import Replica
from routing.scheduling.tickets import Ticket

Rows = dict[tuple[str, ...], float]
QueueKey = tuple[str, str]  # tenant, model
READY = "tenantry_replica_ready"  # without a value between turns, or each turn would look like a failure


class SchedulerView(Protocol):
    """The part of the scheduler that the page reads."""

    @property
    def replicas(self) -> Mapping[str, Replica]: ...
    def waiting(self) -> Iterable[Ticket]: ...
    def admitted(self) -> dict[QueueKey, int]: ...
    def report(self, decisions: int = ...) -> SchedulerReport: ...


def read(scheduler: SchedulerView, named: set[QueueKey], most: int) -> Iterator[tuple[Metric, Rows]]:
    """Read every gauge. Models in `named` keep their names; `most` have one, the others are added up."""
    report = scheduler.report(decisions=0)
    yield from _queues(scheduler, report.now_s, named, most)
    yield d.BAND_DEPTH, _depths(report)
    yield (
        d.DESIRED,
        {(p.name,): p.replicas_desired for p in report.pools if p.replicas_desired is not None},
    )
    replicas = [
        ((pool.name, replica.name), replica)
        for pool in report.pools
        for replica in pool.replicas
        if replica.state is not ReplicaState.AWAY
    ]
    resting = {each.name for each in scheduler.replicas.values() if each.engine.is_between_turns}
    for metric, value_of in d.REPLICA_FIGURES.items():
        left_out = resting if metric.name == READY else set[str]()
        yield metric, _values(replicas, value_of, left_out)
    yield (
        d.REPLICA_BREAKER,
        {
            (*row, state.value): int(replica.health.breaker is state)
            for row, replica in replicas
            for state in BreakerState
        },
    )


def _values(
    replicas: Iterable[tuple[tuple[str, str], ReplicaReport]],
    value_of: Callable[[ReplicaReport], float | None],
    left_out: Collection[str],
) -> Rows:
    """Read one figure of replicas that have it."""
    values = ((row, value_of(replica)) for row, replica in replicas if replica.name not in left_out)
    return {row: value for row, value in values if value is not None}


def _depths(report: SchedulerReport) -> Rows:
    """Count waiting requests by pool and band; a pool may have several base models."""
    rows: Rows = {}
    for pool in report.pools:
        for band, depth in pool.queued_by_band.items():
            rows[pool.name, band] = rows.get((pool.name, band), 0) + depth
    return rows


def _queues(
    scheduler: SchedulerView, now_s: float, named: set[QueueKey], most: int
) -> Iterator[tuple[Metric, Rows]]:
    admitted = scheduler.admitted()
    depth: dict[QueueKey, int] = {}
    age_s: dict[QueueKey, float] = {}
    for ticket in scheduler.waiting():
        request = ticket.request
        key = request.target.tenant, request.target.model
        depth[key] = depth.get(key, 0) + 1
        age_s[key] = max(age_s.get(key, 0.0), now_s - request.arrived_s)
    keys = sorted(
        admitted.keys() | depth.keys(), key=lambda k: (k not in named, -depth.get(k, 0), -admitted.get(k, 0))
    )
    kept = {*keys[:most]} - {(d.OTHER, d.OTHER)}  # a tenant may have that name; it is added to the rest
    yield d.QUEUE_DEPTH, _folded(keys, kept, depth, sum)
    yield d.QUEUE_AGE, _folded(keys, kept, age_s, max)
    yield d.IN_FLIGHT, _folded(keys, kept, admitted, sum)


def _folded(
    keys: Iterable[QueueKey],
    kept: set[QueueKey],
    values: Mapping[QueueKey, float],
    fold: Callable[[Iterable[float]], float],
) -> Rows:
    """Return a row for each kept key, and one for all others."""
    rows: Rows = {key: values.get(key, 0) for key in keys if key in kept}
    rest = [values[key] for key in keys if key not in kept and key in values]
    if rest:
        rows[d.OTHER, d.OTHER] = fold(rest)
    return rows

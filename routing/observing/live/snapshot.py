"""The live snapshot: models with verdicts, pools with replicas and slots, the last decisions; pure.

Combines the figures of settled requests (`figures`), the waiting requests, the scheduler's state
(`scheduling.report`) and the engines' adapters (`lifecycle.ports`). Everything in it is bounded, since it
travels once a second; omitted entries are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from engines.residency import Residency
from routing.observing.live.figures import BUCKET_S, Figures, Figures1m, History, ModelKey, Series
from routing.observing.live.verdict import Limit, Verdict, Waiting, judge, limit
from routing.scheduling import report as scheduling
from routing.scheduling.decisions import KEPT, Action, Decision
from routing.scheduling.figure import figure
from routing.scheduling.replica_figures import ReplicaFigures, ReplicaReport
from routing.types import Request

MAX_SHOWN_MODELS = 100
MAX_SHOWN_TENANTS = 50  # of each pool
MAX_SHOWN_DECISIONS = 50


class SlotUse(StrEnum):
    """The use of a slot by its adapter."""

    RUNNING = "running"
    PINNED = "pinned"  # it keeps the slot without running
    IDLE = "idle"  # loaded, and any adapter may take the slot
    DRAINING = "draining"  # it gets no new requests, so that another adapter may have the slot


@dataclass(frozen=True, slots=True)
class Slot:
    """An adapter in a slot of a replica."""

    adapter: str = figure("The engine's name of the version.")
    use: SlotUse = figure()
    pinned: bool = figure()
    sequences: int = figure()
    leased_s: float | None = figure("How long it has been leased; null: it does not run.")


@dataclass(frozen=True, slots=True)
class ReplicaView(ReplicaFigures):
    """One replica: its figures, its faults, and the adapters it holds."""

    trouble: str = figure("Its faults, for people, or empty.")
    in_slots: tuple[Slot, ...] = figure()
    in_host: int = figure("Adapters in its host memory.")
    faults: int = figure("Adapters that failed in it; `/admin/v1/replicas` has the reasons.")


@dataclass(frozen=True, slots=True)
class TenantView:
    """One tenant with requests or slots in a pool."""

    name: str = figure(example="example")
    band: str = figure()
    queued: int = figure("Requests that wait.")
    tickets: int = figure("Requests that wait or run.")
    slots: int = figure("Slots it holds.")


@dataclass(frozen=True, slots=True)
class PoolView:
    """One pool."""

    name: str = figure(example="shared")
    ttft_slo_s: float | None = figure()
    itl_slo_s: float | None = figure()
    queued_by_band: dict[str, int] = figure()
    replicas: tuple[ReplicaView, ...] = figure()
    tenants: tuple[TenantView, ...] = figure("The one with the most waiting requests first.")
    tenants_left_out: int = figure()


@dataclass(frozen=True, slots=True)
class ModelView:
    """One model of one tenant."""

    tenant: str
    model: str
    adapter: str | None
    pool: str
    verdict: Verdict
    reason: str
    limit: Limit
    figures: Figures1m
    waiting: Waiting


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole view, at one moment."""

    now_s: float  # monotonic
    total: Figures1m
    waiting: int
    models: tuple[ModelView, ...]  # the worst first
    models_left_out: int
    other: Figures1m | None  # models without figures of their own; None: there are none
    pools: tuple[PoolView, ...]
    decisions: tuple[Decision, ...]  # the newest first
    decisions_left_out: int


@dataclass(frozen=True, slots=True)
class ModelHistory:
    """One model over the last minutes."""

    tenant: str
    model: str
    history: History


@dataclass(frozen=True, slots=True)
class Queued:
    """A model with waiting requests: its adapter, its pool, and their number."""

    adapter: str | None
    pool: str
    waiting: Waiting


class LiveView:
    """Makes snapshots of one gateway."""

    def __init__(
        self,
        figures: Figures,
        *,
        scheduler: Callable[[int], scheduling.SchedulerReport],
        residencies: Callable[[], Mapping[str, Residency | None]],
        queue: Callable[[], Iterable[tuple[Request, str | None]]],
        clock: Callable[[], float],
    ) -> None:
        """`scheduler` takes the number of decisions; `queue` gives waiting requests, each with its reason."""
        self._figures = figures
        self._scheduler = scheduler
        self._residencies = residencies
        self._queue = queue
        self._clock = clock

    def snapshot(self, since: Decision | None = None, decisions: int = MAX_SHOWN_DECISIONS) -> Snapshot:
        """Return the current state; of the decisions, those after `since`, the informative ones first."""
        now_s, report = self._clock(), self._scheduler(KEPT)
        objectives = {pool.name: pool.ttft_slo_s for pool in report.pools}
        waiting = _waiting(self._queue(), now_s)
        models = self._models(now_s, waiting, objectives)
        shown, left_out = _telling(report.decisions, since, decisions)
        residencies = self._residencies()
        other = self._figures.of(self._figures.other, now_s)
        return Snapshot(
            now_s=now_s,
            total=self._figures.of(self._figures.total, now_s),
            waiting=sum(queued.waiting.requests for queued in waiting.values()),
            models=tuple(models[:MAX_SHOWN_MODELS]),
            models_left_out=max(0, len(models) - MAX_SHOWN_MODELS),
            other=other if other.requests else None,
            pools=_pools(report.pools, residencies),
            decisions=shown,
            decisions_left_out=left_out,
        )

    def history(self, models: Iterable[ModelView]) -> list[ModelHistory]:
        """Return the last minutes of these models."""
        now_s = self._clock()
        number, series = int(now_s // BUCKET_S), self._figures.series(now_s)
        keys = ((view.tenant, view.model) for view in models)
        return [ModelHistory(*key, series[key].history(number)) for key in keys if key in series]

    def newest_decision(self) -> Decision | None:
        """Return the last decision, as a later `since`."""
        return next(iter(self._scheduler(1).decisions), None)

    def _models(
        self, now_s: float, waiting: Mapping[ModelKey, Queued], objectives: Mapping[str, float | None]
    ) -> list[ModelView]:
        series = self._figures.series(now_s)
        unseen = Series(None)
        views = []
        for key in series.keys() | waiting.keys():
            own, queued = series.get(key, unseen), waiting.get(key)
            target = own.target
            adapter, pool = (target.adapter, target.pool) if target else (None, "")
            if queued is not None:
                adapter, pool = queued.adapter, queued.pool
            figures = self._figures.of(own, now_s)
            bound = limit(objectives.get(pool), figures.usual_s)
            behind = queued.waiting if queued else Waiting()
            said = judge(figures, bound, behind)
            views.append(ModelView(*key, adapter, pool, said.verdict, said.reason, bound, figures, behind))
        return sorted(views, key=_badness)


_RANK = {Verdict.FAILING: 0, Verdict.SLOW: 1, Verdict.GREEN: 2}


def _badness(view: ModelView) -> tuple[int, float, str, str]:
    """The worst verdict first; within one whose first tokens, or waits, are latest."""
    figures = view.figures
    latest_s = max(figures.first_token_p99_s or 0.0, figures.queue_p99_s or 0.0, view.waiting.oldest_s)
    return _RANK[view.verdict], -latest_s, view.tenant, view.model


def _waiting(queue: Iterable[tuple[Request, str | None]], now_s: float) -> dict[ModelKey, Queued]:
    """Count the waiting requests by model."""
    counts: dict[ModelKey, int] = {}
    oldest: dict[ModelKey, tuple[Request, str | None]] = {}
    for request, reason in queue:
        key = request.target.tenant, request.target.model
        counts[key] = counts.get(key, 0) + 1
        if key not in oldest or request.arrived_s < oldest[key][0].arrived_s:
            oldest[key] = request, reason
    return {
        key: Queued(
            request.target.adapter,
            request.target.pool,
            Waiting(counts[key], now_s - request.arrived_s, reason),
        )
        for key, (request, reason) in oldest.items()
    }


def _telling(
    decisions: Sequence[Decision], since: Decision | None, limit_: int
) -> tuple[tuple[Decision, ...], int]:
    """Keep `limit_` decisions after `since`. Grants are left out first, since every request has one."""
    new: list[Decision] = []
    for decision in decisions:
        if decision is since:
            break
        new.append(decision)
    kept = [d for d in new if d.action is not Action.GRANTED][:limit_]
    room = limit_ - len(kept)
    granted = [d for d in new if d.action is Action.GRANTED][:room]
    chosen = {id(d) for d in (*kept, *granted)}
    return tuple(d for d in new if id(d) in chosen), len(new) - len(chosen)


def _pools(
    reports: Iterable[scheduling.PoolReport], residencies: Mapping[str, Residency | None]
) -> tuple[PoolView, ...]:
    """Show each pool once, with all of its base models."""
    by_name: dict[str, list[scheduling.PoolReport]] = {}
    for report in reports:
        by_name.setdefault(report.name, []).append(report)
    return tuple(_pool(parts, residencies) for parts in by_name.values())


def _pool(parts: Sequence[scheduling.PoolReport], residencies: Mapping[str, Residency | None]) -> PoolView:
    """Add up the parts of a pool, one for each base model."""
    pool, queued, by_name = parts[0], Counter[str](), dict[str, TenantView]()
    for part in parts:
        queued.update(part.queued_by_band)
        for t in part.tenants:
            seen = by_name.get(t.name) or TenantView(t.name, t.band, 0, 0, 0)
            by_name[t.name] = TenantView(
                t.name, t.band, seen.queued + t.queued, seen.tickets + t.tickets, seen.slots + t.slots
            )
    tenants = sorted(by_name.values(), key=lambda t: (-t.queued, -t.tickets, t.name))
    return PoolView(
        name=pool.name,
        ttft_slo_s=pool.ttft_slo_s,
        itl_slo_s=pool.itl_slo_s,
        queued_by_band=dict(queued),
        replicas=tuple(_replica(r, residencies.get(r.name)) for part in parts for r in part.replicas),
        tenants=tuple(tenants[:MAX_SHOWN_TENANTS]),
        tenants_left_out=max(0, len(tenants) - MAX_SHOWN_TENANTS),
    )


def _replica(replica: ReplicaReport, residency: Residency | None) -> ReplicaView:
    return ReplicaView(
        **replica.by_name(),
        trouble=_trouble(replica),
        in_slots=_slots(replica, residency.slots if residency else ()),
        in_host=len(residency.host) if residency else 0,
        faults=len(residency.faults) if residency else 0,
    )


def _trouble(replica: ReplicaReport) -> str:
    """Return a replica's faults, or ""."""
    health = replica.health
    parts = []
    if health.breaker != "closed":
        parts.append(f"circuit breaker {health.breaker}")
    if health.recent_failures:
        parts.append(f"{health.recent_failures} of {health.recent_requests} requests failed lately")
    if health.outlying:
        parts.append("first tokens come much later than its peers'")
    if parts and health.last_failure:
        parts.append(health.last_failure)
    if replica.reason:
        parts.insert(0, replica.reason)
    return "; ".join(parts)


def _slots(replica: ReplicaReport, loaded: Sequence[str]) -> tuple[Slot, ...]:
    """List adapters that hold a slot for the scheduler, then others that the engine says are loaded."""
    pinned = frozenset(replica.pinned)
    found: dict[str, Slot] = {}
    for lease in replica.leases:
        use = SlotUse.DRAINING if lease.adapter == replica.slot_evicted else SlotUse.RUNNING
        name = lease.adapter
        found[name] = Slot(name, use, name in pinned, lease.sequences, lease.leased_s)
    for name in replica.pinned:
        found.setdefault(name, Slot(name, SlotUse.PINNED, True, 0, None))
    room = max(0, replica.slots - len(found))
    idle = [name for name in loaded if name not in found][-room:] if room else []
    return (*found.values(), *(Slot(name, SlotUse.IDLE, False, 0, None) for name in idle))

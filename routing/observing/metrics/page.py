"""Counts requests as they end, and renders the page. Counting costs some microseconds, reading is rare."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from engines.metric import Metric
from fleet.money import COST_UNITS
from fleet.types import MetricsSettings, Slo
from routing.observing.metrics import definitions as d
from routing.observing.metrics import gauges
from routing.observing.metrics.exposition import TextFormat, family, head
from routing.observing.metrics.models import Models
from routing.observing.metrics.replicas import Replicas
from routing.observing.metrics.series import PoolCounts, Series
from routing.types import FallbackReason, Record, Target

AT_ONCE = 16  # models rendered before the event loop gets a turn: a millisecond or two


class BudgetView(Protocol):
    """One tenant's budget, as the page shows it."""

    @property
    def tenant(self) -> str: ...
    @property
    def limit(self) -> int: ...
    @property
    def used(self) -> int: ...
    @property
    def currency(self) -> str | None: ...


class LedgerView(Protocol):
    """The usage ledger, as the page shows it."""

    @property
    def lost(self) -> int: ...
    @property
    def is_away(self) -> bool: ...
    def budget_statuses(self) -> Iterable[BudgetView]: ...


class BatchesView(Protocol):
    """The batches of this gateway, as the page shows them."""

    @property
    def lines(self) -> Mapping[str, int]: ...
    def unfinished(self) -> Mapping[str, int]: ...


class LookFigures(Protocol):
    """What the last look at the plan said."""

    @property
    def devices_now(self) -> int | None: ...
    @property
    def devices_anew(self) -> int: ...
    @property
    def advice(self) -> str: ...
    @property
    def at_s(self) -> float: ...


class PlansView(Protocol):
    """The plans of this gateway, as the page shows them."""

    @property
    def figures(self) -> LookFigures | None: ...


class TurnsView(Protocol):
    """The turns of one pool, as the page shows them."""

    @property
    def switches(self) -> Mapping[tuple[str, str, str, str], int]: ...
    @property
    def switch_s(self) -> Mapping[tuple[str, str], float]: ...
    @property
    def holds(self) -> Mapping[tuple[str, str], int]: ...
    @property
    def limit_s(self) -> float: ...
    def awake_s(self) -> Mapping[tuple[str, str], float]: ...


class GatewayMetrics:
    """The metrics of one gateway."""

    def __init__(
        self,
        scheduler: gauges.SchedulerView,
        *,
        clock: Callable[[], float],
        slos: Mapping[str, Slo],
        serves: Callable[[Target], bool] = lambda _: True,
        settings: MetricsSettings = MetricsSettings(),  # noqa: B008 - frozen
        ledger: LedgerView | None = None,
        turns: Mapping[str, TurnsView] | None = None,
    ) -> None:
        """`slos` by pool; `serves` tells whether a target is still served; `turns` by pool."""
        self.batches: BatchesView | None = None  # None: it has none
        self.plans: PlansView | None = None  # None: nobody watches plans
        self._turns = turns or {}
        self._ledger = ledger
        self._scheduler = scheduler
        self._clock = clock
        self._max_models = settings.max_models
        self._models = Models(slos, serves, max_models=settings.max_models, idle_s=settings.idle_after_s)
        self._replicas = Replicas(scheduler.replicas)
        self._pools: dict[str, PoolCounts] = {name: PoolCounts() for name in slos}
        self._refusals: Counter[tuple[str, str]] = Counter()  # status, reason
        self._fallbacks: Counter[tuple[str, str, str]] = Counter()  # tenant, model, reason
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)

    def take_slos(self, slos: Mapping[str, Slo]) -> None:
        """Judge by these objectives from now on, by pool."""
        self._models.take_slos(slos)

    def settled(self, records: Iterable[Record]) -> None:
        """Count settled requests."""
        now_s = self._clock()
        for record in records:
            pool = record.target.pool
            self._models.count(record, now_s)
            counts = self._pools.get(pool)
            if counts is None:
                counts = self._pools[pool] = PoolCounts()
            counts.count(record)
            if record.target.fallback_reason is not None:
                self._count_fallback(record.target, record.target.fallback_reason)
            if record.replica is not None:
                self._replicas.of(pool, record.replica, now_s).count(record)
                for name in record.failed_on:
                    self._replicas.of(pool, name, now_s).count_break()

    def _count_fallback(self, target: Target, reason: FallbackReason) -> None:
        """Count a fallback for the model in whose place it answered; beyond `max_models` for `other`."""
        key = target.tenant, target.fallback_of, reason.value
        known = key in self._fallbacks or len(self._fallbacks) < self._max_models * len(FallbackReason)
        self._fallbacks[key if known else (d.OTHER, d.OTHER, reason.value)] += 1

    def refused(self, status: int, reason: str) -> None:
        """Count a request that was refused before its model was known."""
        self._refusals[str(status), reason] += 1

    def stalled(self, pool: str, replica: str) -> None:
        """Count a stream without a token from its replica for too long."""
        self._replicas.of(pool, replica, self._clock()).count_stall()

    async def read(self, accept: str | None) -> tuple[bytes, bytes]:
        """Return the content type and the page that a scraper's `Accept` header asks for."""
        form = TextFormat.accepted(accept)
        now_s = self._clock()
        self._models.review(now_s)
        self._replicas.review(now_s)
        for number, series in enumerate(self._models.series(), 1):
            series.rendered(form)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        return form.value, self.page(form)

    def page(self, form: TextFormat = TextFormat.PROMETHEUS) -> bytes:
        """Render the page."""
        parts = [*self._rendered(d.MODEL_METRICS, list(self._models.series()), form)]
        parts += self._rendered(d.REPLICA_METRICS, self._replicas.series(), form)
        for metric, rows in self._counts():
            parts.append(family(metric, rows, form))
        for metric, rows in gauges.read(self._scheduler, self._models.names(), self._max_models):
            parts.append(family(metric, rows, form))
        if form is TextFormat.OPENMETRICS:
            ending: bytes = generate_openmetrics(self._process)  # type: ignore[no-untyped-call]
            return "".join(parts).encode() + ending
        return "".join(parts).encode() + generate_latest(self._process)

    def _rendered(
        self, metrics: Sequence[Metric], series: Sequence[Series], form: TextFormat
    ) -> Iterator[str]:
        """Return each family whole: the formats want its samples together."""
        samples = [each.rendered(form) for each in series]
        for number, metric in enumerate(metrics):
            text = "".join(each[number] for each in samples)
            if text:
                yield head(metric, form) + text

    def _counts(self) -> Iterator[tuple[Metric, gauges.Rows]]:
        """Read the counters with few labels."""
        pools = self._pools.items()
        yield d.MODELS, {("own",): self._models.own, (d.OTHER,): self._models.outside}
        yield d.WAITS, {(pool, reason): n for pool, each in pools for reason, n in each.waits.items()}
        yield d.GRANTS, {(pool, picked): n for pool, each in pools for picked, n in each.grants.items()}
        yield d.HEDGES, {(pool,): each.hedged for pool, each in pools}
        yield d.RETRIES, {(pool,): each.retries for pool, each in pools}
        if self._ledger is not None:
            yield d.USAGE_LOST, {(): self._ledger.lost}
            yield d.USAGE_AWAY, {(): self._ledger.is_away}
            yield from _budgets(self._ledger.budget_statuses())
        if self.batches is not None:
            yield d.BATCHES, {(status,): n for status, n in self.batches.unfinished().items()}
            yield d.BATCH_LINES, {(outcome,): n for outcome, n in self.batches.lines.items()}
        yield from self._of_turns()
        yield from _of_look(self.plans)
        yield d.FALLBACKS, {(who, model, why): n for (who, model, why), n in self._fallbacks.items()}
        yield d.REFUSALS, {(status, reason): n for (status, reason), n in self._refusals.items()}

    def _of_turns(self) -> Iterator[tuple[Metric, gauges.Rows]]:
        """Read what the turns of whole models have come to."""
        turns = self._turns.items()
        yield d.SWITCHES, {(pool, *key): n for pool, each in turns for key, n in each.switches.items()}
        yield d.SWITCH_TIME, {(pool, *key): s for pool, each in turns for key, s in each.switch_s.items()}
        yield d.HOLDS, {(pool, *key): n for pool, each in turns for key, n in each.holds.items()}
        yield d.AWAKE_TIME, {(pool, *key): s for pool, each in turns for key, s in each.awake_s().items()}
        yield d.STARVATION_LIMIT, {(pool,): each.limit_s for pool, each in turns}


def _of_look(plans: PlansView | None) -> Iterator[tuple[Metric, gauges.Rows]]:
    look = None if plans is None else plans.figures
    if look is None:
        return
    known = {("now",): look.devices_now, ("anew",): look.devices_anew}
    yield d.PLAN_DEVICES, {row: count for row, count in known.items() if count is not None}
    yield d.PLAN_ADVICE, {(look.advice,): 1}
    yield d.PLAN_LOOKED, {(): look.at_s}


def _budgets(statuses: Iterable[BudgetView]) -> Iterator[tuple[Metric, gauges.Rows]]:
    """Give the budgets in tokens, and those in money in whole units of the currency."""
    statuses = list(statuses)
    in_tokens = [each for each in statuses if each.currency is None]
    in_money = [each for each in statuses if each.currency is not None]
    yield d.BUDGET, {(each.tenant,): each.limit for each in in_tokens}
    yield d.BUDGET_USED, {(each.tenant,): each.used for each in in_tokens}
    yield d.BUDGET_COST, {(each.tenant,): each.limit / COST_UNITS for each in in_money}
    yield d.BUDGET_COST_USED, {(each.tenant,): each.used / COST_UNITS for each in in_money}

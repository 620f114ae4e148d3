"""The numbers of one model, pool or replica, added up as requests end.

Only the event loop counts and reads, so that no lock is needed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from engines.metric import Metric, MetricKind
from fleet.types import Slo
from routing.observing.metrics import definitions as d
from routing.observing.metrics.exposition import TextFormat, labelled, line, number
from routing.types import Outcome, Record


class Histogram:
    """Counts in buckets."""

    __slots__ = ("_bounds", "_counts", "_exemplars", "_metric", "_sum")

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._bounds = metric.buckets
        self._counts = [0] * (len(metric.buckets) + 1)
        self._sum = 0.0
        self._exemplars: dict[
            int, str
        ] = {}  # bucket -> the last traced request in it, as OpenMetrics writes it

    @property
    def count(self) -> int:
        """Values observed."""
        return sum(self._counts)

    def observe(self, value: float, record: Record) -> None:
        """Count a value of a request."""
        bucket = bisect_left(self._bounds, value)
        self._counts[bucket] += 1
        self._sum += value
        if record.traced:
            self._exemplars[bucket] = f' # {{trace_id="{record.trace_id}"}} {value!r} {record.ended_at_s:.3f}'

    def lines(self, labels: str, form: TextFormat) -> str:
        """Return its samples."""
        name, total, parts = self._metric.name, 0, []
        exemplars = self._exemplars if form is TextFormat.OPENMETRICS else {}
        bounds = (*self._bounds, float("inf"))
        for bucket, (bound, count) in enumerate(zip(bounds, self._counts, strict=True)):
            total += count
            exemplar = exemplars.get(bucket, "")
            parts.append(f'{name}_bucket{{{labels},le="{number(bound)}"}} {total}{exemplar}\n')
        parts.append(line(f"{name}_sum", labels, self._sum))
        parts.append(line(f"{name}_count", labels, total))
        return "".join(parts)


class Series:
    """The rendered samples of one label set, kept until the next count."""

    __slots__ = ("_changed", "_rendered")

    def __init__(self) -> None:
        self._changed = True
        self._rendered: dict[TextFormat, tuple[str, ...]] = {}

    def rendered(self, form: TextFormat) -> tuple[str, ...]:
        """Return the samples of each family in turn."""
        if self._changed:
            self._rendered.clear()
            self._changed = False
        if form not in self._rendered:
            self._rendered[form] = tuple(self._lines(form))
        return self._rendered[form]

    def _lines(self, form: TextFormat) -> Iterable[str]:
        raise NotImplementedError


class ModelSeries(Series):
    """Of one (pool, tenant, model, adapter, version), or of all that share `other` in a pool."""

    METRICS = d.MODEL_METRICS
    __slots__ = ("_counts", "_ended", "_labels", "_slo", "_times")

    def __init__(self, labels: Sequence[str], slo: Slo) -> None:
        super().__init__()
        self._labels = labelled(d.MODEL_LABELS, labels)
        self._ended: Counter[tuple[str, str]] = Counter()  # outcome, reason
        self._times = {m: Histogram(m) for m in self.METRICS if m.kind is MetricKind.HISTOGRAM}
        counted = (d.PROMPT_TOKENS, d.CACHED_TOKENS, d.COMPLETION_TOKENS, d.ESTIMATED_USAGE, d.ENGINE_TIME)
        self._counts: dict[Metric, float] = dict.fromkeys(counted, 0)
        self.take_slo(slo)

    def take_slo(self, slo: Slo) -> None:
        """Judge by this objective from now on; what was counted stays."""
        self._slo, self._changed = slo, True
        if slo.ttft_s is not None:
            self._counts.setdefault(d.SLOW_FIRST_TOKENS, 0)
        if slo.itl_s is not None:
            self._counts.setdefault(d.SLOW_STREAMS, 0)

    def count(self, record: Record) -> None:
        """Count a settled request."""
        self._changed = True
        self._ended[record.outcome.value, record.reason] += 1
        if record.switch_s:
            self._counts[d.SWITCH_SHARE] = self._counts.get(d.SWITCH_SHARE, 0.0) + record.switch_s
        if record.queue_s is None:
            if record.outcome is Outcome.EXPIRED:
                self._times[d.QUEUE_TIME].observe(record.total_s, record)
            return
        self._times[d.QUEUE_TIME].observe(record.queue_s, record)
        self._times[d.DURATION].observe(record.total_s, record)
        self._counts[d.PROMPT_TOKENS] += record.prompt_tokens
        self._counts[d.CACHED_TOKENS] += record.cached_tokens
        self._counts[d.COMPLETION_TOKENS] += record.completion_tokens
        self._counts[d.ESTIMATED_USAGE] += record.estimated
        self._counts[d.ENGINE_TIME] += record.engine_s
        self._count_pace(record)

    def _count_pace(self, record: Record) -> None:
        first_s, token_s, slo = record.first_byte_s, record.token_s, self._slo
        if first_s is not None:
            self._times[d.FIRST_TOKEN].observe(first_s, record)
            if slo.ttft_s is not None and first_s > slo.ttft_s:
                self._counts[d.SLOW_FIRST_TOKENS] += 1
        if token_s is not None:
            self._times[d.OUTPUT_TOKEN].observe(token_s, record)
            if slo.itl_s is not None and token_s > slo.itl_s:
                self._counts[d.SLOW_STREAMS] += 1

    def _lines(self, form: TextFormat) -> Iterable[str]:
        for metric in self.METRICS:
            if metric is d.REQUESTS:
                yield "".join(
                    line(metric.sample, f"{self._labels},{labelled(('outcome', 'reason'), ending)}", count)
                    for ending, count in sorted(self._ended.items())
                )
            elif metric.kind is MetricKind.HISTOGRAM:
                yield self._times[metric].lines(self._labels, form)
            elif metric in self._counts:
                yield line(metric.sample, self._labels, self._counts[metric])
            else:
                yield ""


class ReplicaSeries(Series):
    """Of one replica."""

    METRICS = d.REPLICA_METRICS
    __slots__ = ("_ended", "_labels", "_times", "breaks", "stalls")

    def __init__(self, pool: str, replica: str) -> None:
        super().__init__()
        self._labels = labelled(d.REPLICA_LABELS, (pool, replica))
        self._ended = dict.fromkeys(Outcome, 0)
        self._times = {m: Histogram(m) for m in (d.REPLICA_FIRST_TOKEN, d.REPLICA_DURATION)}
        self.breaks = self.stalls = 0

    def count(self, record: Record) -> None:
        """Count a settled request whose last replica it was."""
        self._changed = True
        self._ended[record.outcome] += 1
        self._times[d.REPLICA_DURATION].observe(record.total_s, record)
        if record.first_byte_s is not None:
            self._times[d.REPLICA_FIRST_TOKEN].observe(record.first_byte_s, record)

    def count_break(self) -> None:
        """Count a request under which it broke."""
        self._changed = True
        self.breaks += 1

    def count_stall(self) -> None:
        """Count a stall of one of its streams."""
        self._changed = True
        self.stalls += 1

    def _lines(self, form: TextFormat) -> Iterable[str]:
        ended, labels = d.REPLICA_REQUESTS, self._labels
        yield "".join(
            line(ended.sample, f'{labels},outcome="{outcome}"', count)
            for outcome, count in self._ended.items()
        )
        yield line(d.REPLICA_BREAKS.sample, labels, self.breaks)
        yield line(d.REPLICA_STALLS.sample, labels, self.stalls)
        for histogram in self._times.values():
            yield histogram.lines(labels, form)


@dataclass(slots=True)
class PoolCounts:
    """Of one pool."""

    waits: Counter[str] = field(default_factory=Counter)  # by `waits_for`
    grants: Counter[str] = field(default_factory=Counter)  # by `picked`
    hedged: int = 0
    retries: int = 0

    def count(self, record: Record) -> None:
        """Count a settled request."""
        if record.waits_for is not None:
            self.waits[record.waits_for] += 1
        if record.picked is not None:
            self.grants[record.picked] += 1
        if record.attempts > 1:
            self.retries += record.attempts - 1
            self.hedged += record.hedged

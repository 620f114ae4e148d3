"""Each (tenant, model)'s requests, latencies and faults of the last minutes, from settled requests.

A request costs a few additions, however much is kept. Time is cut into buckets of `BUCKET_S`; the last
`BUCKETS` are kept, `WINDOW` of them make a current figure. Only the `max_models` busiest pairs have figures
of their own, the rest share one. A pair without a request in all of the time kept is removed.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from routing.observing.live.histogram import Counts, bucket, largest, merged, quantile
from routing.scheduling.admission import Cap
from routing.types import Outcome, Record, Target

BUCKET_S = 5.0
BUCKETS = 60  # five minutes, for sparklines
WINDOW = 12  # one minute, for current figures
MAX_MODELS = 200

# A usual time is a mean of logarithms, each bucket's median counting once: of all buckets at first, later of
# some half an hour. Slow buckets weigh a tenth as much, or a long trouble would become usual.
MEMORY_BUCKETS = 360
SLOW_LESSON = 0.1

ModelKey = tuple[str, str]  # tenant, model
Limit = Callable[[float | None], float]  # usual time -> the limit above which a first token is slow, seconds


@dataclass(slots=True)
class Cell:
    """The requests that ended within one bucket of time."""

    number: int  # of the bucket, since the clock's beginning
    requests: int = 0
    failed: int = 0  # through the fault of engine, adapter or fleet
    late: int = 0  # expired in the queue, or refused on arrival since they would have waited too long
    capped: int = 0  # 429: the tenant's own cap
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_token: Counts = field(default_factory=dict)  # streams; a whole answer hides its begin
    queue: Counts = field(default_factory=dict)
    answer: Counts = field(default_factory=dict)  # arrival to the last byte
    faults: Counter[str] = field(default_factory=Counter)  # codes of those that failed or were late
    waits_for: Counter[str] = field(default_factory=Counter)  # reasons of those that waited
    _p99s: tuple[float | None, float | None] | None = None  # once computed

    @property
    def p99s(self) -> tuple[float | None, float | None]:
        """First token's and queue's p99 of a bucket that is over, in seconds; cached for many reads."""
        if self._p99s is None:
            self._p99s = _rounded(quantile(self.first_token, 0.99)), _rounded(quantile(self.queue, 0.99))
        return self._p99s

    def add(self, record: Record) -> None:
        """Count a request and its durations."""
        self.count(record)
        if record.waits_for is not None:
            self.waits_for[record.waits_for] += 1
        if record.queue_s is None:
            return
        _count(self.queue, record.queue_s)
        _count(self.answer, record.total_s)
        if record.stream and record.first_byte_s is not None:
            _count(self.first_token, record.first_byte_s)

    def count(self, record: Record) -> None:
        """Count a request alone."""
        self.requests += 1
        self.prompt_tokens += record.prompt_tokens
        self.completion_tokens += record.completion_tokens
        if record.outcome is not Outcome.COMPLETED and record.outcome is not Outcome.CANCELLED:
            self._count_trouble(record)

    def _count_trouble(self, record: Record) -> None:
        if record.status == 429:
            self.capped += 1
        elif record.outcome is Outcome.EXPIRED or record.reason == Cap.OVERLOADED:
            self.late += 1
            self.faults[record.reason] += 1
        elif record.outcome is Outcome.FAILED or record.status >= 500:
            self.failed += 1
            self.faults[record.reason] += 1


@dataclass(frozen=True, slots=True)
class Figures1m:
    """One model's figures of the last minute. Durations in seconds; None without data."""

    span_s: float
    requests: int
    failed: int
    late: int
    capped: int
    prompt_tokens: int
    completion_tokens: int
    first_token_p50_s: float | None
    first_token_p99_s: float | None
    queue_p99_s: float | None
    third_first_token_s: float | None  # the third latest: one late request does not make a model slow
    third_queue_s: float | None
    answer_p50_s: float | None
    answer_p99_s: float | None
    fault: str | None  # the most frequent code among those that failed or were late
    waits_for: str | None  # the most frequent reason of those that waited
    usual_s: float | None  # usual time to the first token; None: too few requests

    @property
    def requests_per_s(self) -> float:
        """Requests that ended, per second."""
        return self.requests / self.span_s

    @property
    def tokens_per_s(self) -> float:
        """Completion tokens, per second."""
        return self.completion_tokens / self.span_s

    @property
    def error_rate(self) -> float:
        """Part of the requests that failed or were too late, 0..1."""
        return (self.failed + self.late) / self.requests if self.requests else 0.0


@dataclass(frozen=True, slots=True)
class History:
    """One model over the time kept: a value for each closed bucket, the oldest first."""

    first_token_p99_s: tuple[float | None, ...]
    queue_p99_s: tuple[float | None, ...]
    requests: tuple[int, ...]
    errors: tuple[int, ...]
    completion_tokens: tuple[int, ...]


class Series:
    """Figures of one (tenant, model), or of all others together."""

    def __init__(self, target: Target | None) -> None:
        self.target = target  # the last one; None: of several models
        self._cells: deque[Cell] = deque(maxlen=BUCKETS + 1)
        self._usual_log = 0.0
        self._lessons = 0.0

    def add(self, record: Record, number: int, limit_s: Limit) -> None:
        """Count a request that ended in this bucket, and its durations."""
        if self._cells and self._cells[-1].number == number:
            self._cells[-1].add(record)
            return
        if self._cells:
            self._learn(self._cells[-1], limit_s)
        self._cell(number).add(record)

    def count(self, record: Record, number: int) -> None:
        """Count a request that ended in this bucket, without its durations."""
        self._cell(number).count(record)

    @property
    def newest(self) -> int:
        """The last bucket in which a request ended."""
        return self._cells[-1].number if self._cells else -1

    @property
    def usual_s(self) -> float | None:
        """Its usual time to the first token; None before three buckets of it."""
        return math.exp(self._usual_log) if self._lessons >= 3 else None

    def requests_since(self, number: int) -> int:
        """Count the requests that ended in this bucket or later."""
        return sum(cell.requests for cell in self._cells if cell.number >= number)

    def last_minute(self, number: int, span_s: float) -> Figures1m:
        """Sum up the last `WINDOW` buckets, ending with this one; `span_s` is their duration."""
        cells = [cell for cell in self._cells if cell.number > number - WINDOW]
        first = merged(cell.first_token for cell in cells)
        queue = merged(cell.queue for cell in cells)
        answer = merged(cell.answer for cell in cells)
        faults, reasons = Counter[str](), Counter[str]()
        for cell in cells:
            faults.update(cell.faults)
            reasons.update(cell.waits_for)
        return Figures1m(
            span_s=span_s,
            requests=sum(cell.requests for cell in cells),
            failed=sum(cell.failed for cell in cells),
            late=sum(cell.late for cell in cells),
            capped=sum(cell.capped for cell in cells),
            prompt_tokens=sum(cell.prompt_tokens for cell in cells),
            completion_tokens=sum(cell.completion_tokens for cell in cells),
            first_token_p50_s=quantile(first, 0.5),
            first_token_p99_s=quantile(first, 0.99),
            queue_p99_s=quantile(queue, 0.99),
            third_first_token_s=largest(first, 3),
            third_queue_s=largest(queue, 3),
            answer_p50_s=quantile(answer, 0.5),
            answer_p99_s=quantile(answer, 0.99),
            fault=_most(faults),
            waits_for=_most(reasons),
            usual_s=self.usual_s,
        )

    def history(self, number: int) -> History:
        """Return the values of each of the `BUCKETS` buckets before this one."""
        by_number = {cell.number: cell for cell in self._cells}
        cells = [by_number.get(n) for n in range(number - BUCKETS, number)]
        return History(
            first_token_p99_s=tuple(c.p99s[0] if c else None for c in cells),
            queue_p99_s=tuple(c.p99s[1] if c else None for c in cells),
            requests=tuple(c.requests if c else 0 for c in cells),
            errors=tuple(c.failed + c.late if c else 0 for c in cells),
            completion_tokens=tuple(c.completion_tokens if c else 0 for c in cells),
        )

    def _cell(self, number: int) -> Cell:
        if not self._cells or self._cells[-1].number != number:
            self._cells.append(Cell(number))
        return self._cells[-1]

    def _learn(self, cell: Cell, limit_s: Limit) -> None:
        median_s = quantile(cell.first_token, 0.5)
        if median_s is None:
            return
        slow = self._lessons >= 3 and median_s > limit_s(self.usual_s)
        lesson = SLOW_LESSON if slow else 1.0
        self._lessons = min(self._lessons + lesson, MEMORY_BUCKETS)
        self._usual_log += (math.log(median_s) - self._usual_log) * lesson / self._lessons


class Figures:
    """Figures of every model with recent requests."""

    def __init__(self, now_s: float, limit_s: Limit, *, max_models: int = MAX_MODELS) -> None:
        """`now_s` is monotonic, as all times here."""
        self._started_s = now_s
        self._limit_s = limit_s
        self._max_models = max_models
        self._series: dict[ModelKey, Series] = {}
        self._total, self._other = Series(None), Series(None)
        self._outside: Counter[ModelKey] = Counter()  # requests in this bucket, of those that share
        self._number = int(now_s // BUCKET_S)

    def observe_all(self, records: Iterable[Record], now_s: float) -> None:
        """Count requests that were settled by now."""
        for record in records:
            self.observe(record, now_s)

    def observe(self, record: Record, now_s: float) -> None:
        """Count a request that was settled now."""
        number = int(now_s // BUCKET_S)
        if number != self._number:
            self._turn(number)
        target = record.target
        key = target.tenant, target.model
        series = self._series.get(key)
        if series is None:
            series = self._admit(key, target)
        elif series.target is not target:
            series.target = target
        series.add(record, number, self._limit_s)
        self._total.count(record, number)

    def series(self, now_s: float) -> dict[ModelKey, Series]:
        """Return the series of their own."""
        number = int(now_s // BUCKET_S)
        if number != self._number:
            self._turn(number)
        return dict(self._series)

    def of(self, series: Series, now_s: float) -> Figures1m:
        """Return the current figures of a series."""
        number = int(now_s // BUCKET_S)
        begun_s = max((number - WINDOW + 1) * BUCKET_S, self._started_s)
        return series.last_minute(number, max(now_s - begun_s, 1.0))

    @property
    def total(self) -> Series:
        """Everything together; without durations, which mean little over many models."""
        return self._total

    @property
    def other(self) -> Series:
        """The models without figures of their own, together."""
        return self._other

    def _admit(self, key: ModelKey, target: Target) -> Series:
        if len(self._series) < self._max_models:
            self._series[key] = Series(target)
            return self._series[key]
        if key in self._outside or len(self._outside) < self._max_models:
            self._outside[key] += 1
        return self._other

    def _turn(self, number: int) -> None:
        """Begin a bucket: remove silent series, and replace the least busy ones by busier ones outside."""
        outside, before, self._number = self._outside, self._number, number
        self._outside = Counter()
        oldest = number - BUCKETS
        self._series = {key: s for key, s in self._series.items() if s.newest >= oldest}
        if not outside:
            return
        quietest = sorted(self._series, key=lambda key: self._series[key].requests_since(before))
        for (_, count), quiet in zip(outside.most_common(), quietest, strict=False):
            if self._series[quiet].requests_since(before) >= count:
                return
            del self._series[quiet]  # the next request of the busier one takes the place


def _count(counts: Counts, value_s: float) -> None:
    number = bucket(value_s)
    counts[number] = counts.get(number, 0) + 1


def _rounded(time_s: float | None) -> float | None:
    return None if time_s is None else round(time_s, 4)


def _most(counts: Counter[str]) -> str | None:
    return counts.most_common(1)[0][0] if counts else None

"""May a replica be given a request, after how the last ones fared there? A circuit breaker. Pure.

The pattern is Nygard's ("Release It!", 2007). Closed: requests go, and their failures are counted. Open: none
goes until a back-off is over. Half-open: one goes, the probe, and how it fares decides. The table below holds
every transition; an event that is not in it changes nothing. `now_s` comes in, from a monotonic clock.

A request gets a period when it begins and reports with it when it ends. A report from another period counts
for nothing: what was in flight when the breaker opened, or when the engine was replaced, says nothing of now.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum

MAX_CONSECUTIVE_FAILURES = 3  # Envoy's consecutive_5xx is 5; an answer of an LLM is dearer to lose
MAX_FAILURE_RATE = 0.5  # Hystrix: errorThresholdPercentage 50 ...
MIN_REQUESTS = 20  # ... of requestVolumeThreshold 20 at least ...
WINDOW_S = 30.0  # ... there in 10 s; longer here, since a request takes seconds and not milliseconds
BACKOFF_S = 1.0  # doubles at every opening, as with Linkerd, where it goes from 1 s to 60 s
MAX_BACKOFF_S = 30.0  # Envoy's base_ejection_time: a replica that is well again must not stay out longer
FORGET_S = 30.0  # a breaker that was closed for this time starts its back-off anew
NO_PERIOD = 0  # of a request the breaker did not allow; its report counts for nothing

_BUCKETS = 10
_BUCKET_S = WINDOW_S / _BUCKETS


class BreakerState(StrEnum):
    """Whether requests go to the replica."""

    CLOSED = "closed"  # they do
    OPEN = "open"  # none does, until the back-off is over
    HALF_OPEN = "half-open"  # one is under way, the probe


class BreakerEvent(StrEnum):
    """What can happen to a breaker."""

    TRIPPED = "tripped"  # too many failures
    PROBED = "probed"  # the back-off was over, a request was given
    PASSED = "passed"  # the probe was answered
    FAILED = "failed"  # the probe was not
    ABANDONED = "abandoned"  # the probe ended for a reason that is not the replica's
    RESTARTED = "restarted"  # another engine runs there now


TRANSITIONS: Mapping[tuple[BreakerState, BreakerEvent], BreakerState] = {
    (BreakerState.CLOSED, BreakerEvent.TRIPPED): BreakerState.OPEN,
    (BreakerState.CLOSED, BreakerEvent.RESTARTED): BreakerState.CLOSED,
    (BreakerState.OPEN, BreakerEvent.PROBED): BreakerState.HALF_OPEN,
    (BreakerState.OPEN, BreakerEvent.RESTARTED): BreakerState.OPEN,
    (BreakerState.HALF_OPEN, BreakerEvent.PASSED): BreakerState.CLOSED,
    (BreakerState.HALF_OPEN, BreakerEvent.FAILED): BreakerState.OPEN,
    (BreakerState.HALF_OPEN, BreakerEvent.ABANDONED): BreakerState.OPEN,
    (BreakerState.HALF_OPEN, BreakerEvent.RESTARTED): BreakerState.OPEN,
}


class Breaker:
    """The circuit breaker of one replica."""

    __slots__ = (
        "_closed_s",
        "_recent",
        "_retry_s",
        "backoff_s",
        "consecutive_failures",
        "period",
        "state",
    )

    def __init__(self) -> None:
        self.state = BreakerState.CLOSED
        self.period = NO_PERIOD + 1
        self.consecutive_failures = 0
        self.backoff_s = 0.0  # of the last opening
        self._retry_s = 0.0
        self._closed_s = -math.inf
        self._recent = _RecentRequests()

    def allows(self, now_s: float) -> bool:
        """Whether a request may be given now. Changes nothing."""
        state = self.state
        if state is BreakerState.CLOSED:
            return True
        return state is BreakerState.OPEN and now_s >= self._retry_s

    def began(self, now_s: float) -> int:
        """A request was given; return the period it must report with. After a back-off it is the probe.

        Of one that was not allowed it is `NO_PERIOD`.
        """
        if self.state is BreakerState.CLOSED:
            return self.period
        if not self.allows(now_s) or not self._move(BreakerEvent.PROBED):
            return NO_PERIOD
        self.period += 1
        return self.period

    def listens(self, period: int) -> bool:
        """Whether a report from this period counts for anything now."""
        return period == self.period and self.state is not BreakerState.OPEN

    def answered(self, now_s: float, period: int) -> bool:
        """A request got its first token, which is all that a probe is for; say whether the breaker closed."""
        if self.state is BreakerState.CLOSED or period != self.period or not self._move(BreakerEvent.PASSED):
            return False
        self.consecutive_failures = 0
        self._recent.forget()
        self._closed_s = now_s
        return True

    def succeeded(self, now_s: float, period: int) -> bool:
        """A request ended well; say whether the breaker closed."""
        closed = self.answered(now_s, period)
        if self.listens(period):
            self.consecutive_failures = 0
            self._recent.add(now_s, failed=False)
        return closed

    def failed(self, now_s: float, period: int) -> bool:
        """A request failed through the replica's fault; say whether the breaker opened."""
        if not self.listens(period):
            return False
        self.consecutive_failures += 1
        if self.state is BreakerState.CLOSED:
            self._recent.add(now_s, failed=True)
            forgotten = now_s - self._closed_s >= FORGET_S
            return self._is_too_much() and self._open(BreakerEvent.TRIPPED, now_s, anew=forgotten)
        return self._open(BreakerEvent.FAILED, now_s, anew=False)

    def abandoned(self, period: int) -> None:
        """A request ended and says nothing of the replica. After a probe the next one may go at once."""
        if period == self.period:
            self._move(BreakerEvent.ABANDONED)

    def restarted(self, now_s: float) -> None:
        """Another engine runs there now: forget what the last one did, but not for how long it was out.

        An open breaker stays open, and a probe may go at once: an engine that dies of every request comes
        back ready every time.
        """
        self._move(BreakerEvent.RESTARTED)
        self.period += 1
        self.consecutive_failures = 0
        self._recent.forget()
        self._retry_s = now_s

    def recent(self, now_s: float) -> tuple[int, int]:
        """(ended, failed) requests of the last `WINDOW_S`."""
        return self._recent.counts(now_s)

    def probe_in_s(self, now_s: float) -> float | None:
        """How long until a probe may go; None while the breaker is not open."""
        return max(0.0, self._retry_s - now_s) if self.state is BreakerState.OPEN else None

    def _move(self, event: BreakerEvent) -> bool:
        after = TRANSITIONS.get((self.state, event))
        if after is None:
            return False
        self.state = after
        return True

    def _is_too_much(self) -> bool:
        recent = self._recent
        return self.consecutive_failures >= MAX_CONSECUTIVE_FAILURES or (
            recent.ended >= MIN_REQUESTS and recent.failed >= MAX_FAILURE_RATE * recent.ended
        )

    def _open(self, event: BreakerEvent, now_s: float, *, anew: bool) -> bool:
        if not self._move(event):
            return False
        self.backoff_s = BACKOFF_S if anew else min(MAX_BACKOFF_S, max(BACKOFF_S, 2 * self.backoff_s))
        self._retry_s = now_s + self.backoff_s
        return True


class _RecentRequests:
    """Requests that ended in the last `WINDOW_S`, in a ring of buckets; adding one costs O(1)."""

    __slots__ = ("_bucket", "_ended", "_failed", "ended", "failed")

    def __init__(self) -> None:
        self._bucket = 0
        self.forget()

    def forget(self) -> None:
        self.ended = self.failed = 0
        self._ended, self._failed = [0] * _BUCKETS, [0] * _BUCKETS

    def add(self, now_s: float, *, failed: bool) -> None:
        self._advance(now_s)
        place = self._bucket % _BUCKETS
        self.ended += 1
        self._ended[place] += 1
        self.failed += failed
        self._failed[place] += failed

    def counts(self, now_s: float) -> tuple[int, int]:
        self._advance(now_s)
        return self.ended, self.failed

    def _advance(self, now_s: float) -> None:
        """Empty the buckets whose time has come round again. Time that runs backwards changes nothing."""
        bucket = int(now_s // _BUCKET_S)
        for step in range(min(bucket - self._bucket, _BUCKETS)):
            place = (bucket - step) % _BUCKETS
            self.ended -= self._ended[place]
            self.failed -= self._failed[place]
            self._ended[place] = self._failed[place] = 0
        self._bucket = max(self._bucket, bucket)

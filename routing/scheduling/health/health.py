"""How healthy is a replica, and how much of its limit may it be given? Pure: no clock, `now_s` comes in.

Three rules, all from how the gateway's own requests fared: a circuit breaker (`breaker.py`), slow start for
an engine whose caches are cold, and a comparison of first-token times within the group. Whether it is ready
is another question, which the probe asks of the engine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median_low

from routing.scheduling.figure import figure, rounded
from routing.scheduling.health.breaker import WINDOW_S, Breaker, BreakerState
from routing.scheduling.health.first_tokens import FirstTokens

# Envoy's slow start: weight times max(10 %, time / window), linear with its default aggression of 1.0. It
# leaves the window to the operator; 10 s is ours.
SLOW_START_S = 10.0
SLOW_START_FLOOR = 0.1

# If logarithms of what is smoothed spread by 1 (a standard deviation), two replicas that are alike come to
# differ by 0.23 (its standard deviation); a factor of 2 is three times that.
SLOWER = math.log(2.0)  # than the median: an outlier; and
STILL_SLOWER = math.log(1.5)  # remains one, so that it does not come and go
MAX_MODIFIED_Z = 3.5  # Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993
MAD_TO_SIGMA = 1.4826  # the median absolute deviation of a normal distribution is sigma divided by this
MIN_EXCESS_S = 0.05  # a smaller difference is not noticed
MAX_OUTLIERS = 1 / 3  # of the group, but one always may; Envoy's max_ejection_percent is 10, likewise
OUTLIER_RAMP = 0.5  # of its limit: slow is not broken, and it must go on answering to be forgiven


WITNESSES = 2  # the requests of one tenant may break any engine


@dataclass(frozen=True, slots=True)
class HealthSnapshot:
    """What a replica's own requests say of it."""

    breaker: BreakerState = figure(
        "closed: it gets work. open: it gets none until a back-off is over. half-open: one request is "
        "under way that decides."
    )
    probe_in_s: float | None = figure("Until an open breaker lets one request through; null: it is not open.")
    backoff_s: float = figure("Of the last opening; doubles at each.")
    consecutive_failures: int = figure()
    recent_requests: int = figure(f"That ended in the breaker's window of {WINDOW_S:g} s.")
    recent_failures: int = figure("Of those, through the replica's fault.")
    last_failure: str = figure("What the last one was, or empty.")
    share: float = figure("Part of its limit that it may use, 0..1: less while its engine is fresh, or slow.")
    first_token_s: float | None = figure(
        "Smoothed time from grant to first token; null: too few answers yet."
    )
    outlying: bool = figure("Whether its first tokens take much longer than its peers'.")


class Health:
    """What one replica's own requests say of it.

    Call `began` for every request it is given, `answered` at its first token, and one of `succeeded`,
    `failed` and `abandoned` at its end, each with the period that `began` returned.
    """

    __slots__ = (
        "_breaker",
        "_ceiling",
        "_fresh_s",
        "_suffering",
        "first_tokens",
        "last_failure",
        "name",
        "witnesses",
    )

    def __init__(self, name: str) -> None:
        """A replica of which nothing is known yet: trusted with all of its limit."""
        self.name = name
        self.last_failure = ""
        self.witnesses = WITNESSES  # tenants whose requests must have failed before it is to blame
        self._suffering: dict[str, float] = {}  # tenant whose last request failed here -> when that was
        self._breaker = Breaker()
        self._fresh_s = -math.inf  # since when its engine warms up; inf while the breaker is not closed
        self._forget_latency()

    def __repr__(self) -> str:
        breaker = self._breaker
        parts = [str(breaker.state)]
        if breaker.state is not BreakerState.CLOSED:
            parts.append(f"back-off {breaker.backoff_s:g} s")
        if breaker.consecutive_failures:
            parts.append(f"{breaker.consecutive_failures} failed in a row")
        if self.first_token_s is not None:
            parts.append(f"first token {self.first_token_s:.3g} s")
        if self.outlying:
            parts.append("outlying")
        return f"<Health {self.name}: {', '.join(parts)}>"

    # -- questions, asked at every decision ----------------------------------------------------------------

    def allows(self, now_s: float) -> bool:
        """Whether it may be given a request now. Changes nothing."""
        return self._breaker.allows(now_s)

    def ramp(self, now_s: float) -> float:
        """Return the part of its limit that it may use, over 0 and up to 1. Without events it only grows."""
        warm = (now_s - self._fresh_s) / SLOW_START_S
        if warm >= 1.0:
            return self._ceiling
        return self._ceiling * (warm if warm > SLOW_START_FLOOR else SLOW_START_FLOOR)

    # -- what its requests meet ----------------------------------------------------------------------------

    def began(self, now_s: float) -> int:
        """Note that it was given a request; return the period to report with (see `Breaker.began`)."""
        return self._breaker.began(now_s)

    def answered(self, now_s: float, period: int, first_token_s: float) -> None:
        """Note that a request got its first token, and when. Closes a half-open breaker."""
        if not self._breaker.listens(period):
            return
        if self._breaker.answered(now_s, period):
            self._fresh_s = now_s
        self.first_tokens.note(now_s, first_token_s)

    def succeeded(self, now_s: float, period: int, tenant: str | None = None) -> None:
        """Note that a request of a tenant ended well, or with a refusal that was the request's fault."""
        if self._suffering and tenant is not None:
            self._suffering.pop(tenant, None)
        if self._breaker.succeeded(now_s, period):
            self._fresh_s = now_s

    def failed(self, now_s: float, period: int, reason: str = "", tenant: str | None = None) -> None:
        """Note that a request of a tenant failed: a broken stream, no answer in time, a 5xx of the engine.

        Some requests break any engine. So a failure counts only where the last requests of `witnesses`
        tenants have failed here not long ago. Without a tenant the replica itself says that it is ill, as
        with a refused connection.
        """
        if not self._breaker.listens(period):
            return
        self.last_failure = reason
        if tenant is not None and not self._is_attested(tenant, now_s):
            self._breaker.abandoned(period)
            return
        if self._breaker.failed(now_s, period):
            self._fresh_s = math.inf
            self._forget_latency()

    def abandoned(self, period: int) -> None:
        """Note that a request ended and says nothing of the replica: its client left, for example."""
        self._breaker.abandoned(period)

    def restarted(self, now_s: float, *, slow_start: bool = True) -> None:
        """Note that another engine became ready there. Only an open breaker remembers the last one.

        One that only missed a readiness probe has not restarted, its caches are warm. Without `slow_start`
        it is given all of its limit at once: right where no other replica could carry the load meanwhile.
        """
        self._breaker.restarted(now_s)
        self._suffering.clear()
        self._forget_latency()
        if self._breaker.state is BreakerState.CLOSED:
            self._fresh_s = now_s if slow_start else -math.inf

    # -- beside its peers ----------------------------------------------------------------------------------

    @property
    def outlying(self) -> bool:
        """Whether it was found to be slower than its peers, which halves its limit. Set from `outliers`."""
        return self._ceiling < 1.0

    @outlying.setter
    def outlying(self, value: bool) -> None:
        self._ceiling = OUTLIER_RAMP if value else 1.0

    @property
    def first_token_s(self) -> float | None:
        """Smoothed time to its first token; None while too few answers are known."""
        return self.first_tokens.mean_s

    def snapshot(self, now_s: float) -> HealthSnapshot:
        """Copy its state for the admin API."""
        breaker = self._breaker
        ended, failed = breaker.recent(now_s)
        return rounded(
            HealthSnapshot(
                breaker=breaker.state,
                probe_in_s=breaker.probe_in_s(now_s),
                backoff_s=breaker.backoff_s,
                consecutive_failures=breaker.consecutive_failures,
                recent_requests=ended,
                recent_failures=failed,
                last_failure=self.last_failure,
                share=self.ramp(now_s),
                first_token_s=self.first_token_s,
                outlying=self.outlying,
            )
        )

    def _is_attested(self, tenant: str, now_s: float) -> bool:
        """Note that a tenant's request failed; say whether enough of them have seen that."""
        self._suffering[tenant] = now_s
        recent = sum(now_s - at_s < WINDOW_S for at_s in self._suffering.values())
        return recent >= self.witnesses

    def _forget_latency(self) -> None:
        self._ceiling = 1.0
        self.first_tokens = FirstTokens()


def outliers(healths: Iterable[Health], now_s: float) -> set[str]:
    """Name the replicas of one group that are too slow to their first token. Changes nothing.

    Too slow is above the group's median by a factor of 2, and by 3.5 sigma of the logarithms, estimated from
    their median absolute deviation. The median is the lower one, so that of two replicas the slower is
    compared with the faster. At most a third is named, the slowest, or one of two.
    """
    known = [(health, health.first_tokens.log_s(now_s)) for health in healths]
    logs = [(log, health.name, health.outlying) for health, log in known if log is not None]
    if len(logs) < 2:
        return set()
    middle = median_low([log for log, _, _ in logs])
    sigma = MAD_TO_SIGMA * median_low([abs(log - middle) for log, _, _ in logs])
    slow = [
        (log, name)
        for log, name, was in logs
        if log - middle > max(STILL_SLOWER if was else SLOWER, MAX_MODIFIED_Z * sigma)
        and math.exp(log) - math.exp(middle) > MIN_EXCESS_S
    ]
    most = max(1, int(len(logs) * MAX_OUTLIERS))
    return {name for _, name in sorted(slow, reverse=True)[:most]}

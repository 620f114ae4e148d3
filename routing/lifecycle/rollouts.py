"""Is a new version as good as the one it replaces? Statistics of both sides of a split, and a verdict. Pure.

Rates are compared by Newcombe's hybrid score interval for a difference of proportions (Newcombe 1998,
method 10, built from Wilson's score intervals), latencies by the difference of mean logarithms with Welch's
standard error. A side is only called worse when the whole interval lies beyond the plan's limits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from routing.catalog.entries import RolloutPlan
from routing.types import Outcome, Record

Z = 2.576  # 99 % two-sided: the verdict is computed after every request, so each must be strict
MIN_BAD = 3  # least bad answers of the candidate before any rate is judged
EMPTY_TOKENS = 1  # an answer that is nothing but its end token


class Action(StrEnum):
    """The action that ends or continues a rollout."""

    WAIT = "wait"
    PROMOTE = "promote"
    ROLL_BACK = "roll back"


@dataclass(frozen=True, slots=True)
class Verdict:
    """An action, and its reason."""

    action: Action
    reason: str = ""


@dataclass(slots=True)
class Side:
    """Statistics of one version since the rollout began."""

    requests: int = 0  # that ran to their end, good or bad
    failed: int = 0
    empty: int = 0
    timed: int = 0
    mean_log_s: float = 0.0  # of the time on the engine
    squares: float = 0.0  # Welford's sum of squared differences

    def observe(self, record: Record) -> None:
        """Count one settled request; those that never ran, were wrong, or whose client left, are ignored."""
        if record.outcome not in (Outcome.COMPLETED, Outcome.FAILED) or record.replica is None:
            return
        if record.outcome is Outcome.COMPLETED and record.reason:
            return
        self.requests += 1
        if record.outcome is Outcome.FAILED:
            self.failed += 1
            return
        self.empty += record.completion_tokens <= EMPTY_TOKENS
        seconds = math.log(max(record.total_s - (record.queue_s or 0.0), 1e-6))
        self.timed += 1
        off = seconds - self.mean_log_s
        self.mean_log_s += off / self.timed
        self.squares += off * (seconds - self.mean_log_s)

    @property
    def standard_error(self) -> float:
        """Of the mean logarithm."""
        return math.sqrt(self.squares / (self.timed - 1) / self.timed) if self.timed > 1 else math.inf


def judge(plan: RolloutPlan, live: Side, candidate: Side) -> Verdict:
    """Compare both sides of a split."""
    for what, bad, other, allowed in (
        ("errors", candidate.failed, live.failed, plan.max_error_rise),
        ("empty answers", candidate.empty, live.empty, plan.max_empty_rise),
    ):
        rise = least_rise((bad, candidate.requests), (other, live.requests))
        if bad >= MIN_BAD and rise > allowed:
            return Verdict(
                Action.ROLL_BACK,
                f"{what}: {bad} of {candidate.requests} requests, {other} of {live.requests} of the live "
                f"version; at least {rise:.1%} more, {allowed:.1%} are allowed",
            )
    if candidate.requests < plan.min_requests:
        return Verdict(Action.WAIT)
    slowdown = least_slowdown(live, candidate)
    if slowdown > plan.max_latency_ratio:
        return Verdict(
            Action.ROLL_BACK,
            f"latency: at least {slowdown:.2f} times the live version's, {plan.max_latency_ratio:g} allowed",
        )
    if plan.promote_after is not None and candidate.requests >= plan.promote_after:
        return Verdict(Action.PROMOTE, f"as good as the live version after {candidate.requests} requests")
    return Verdict(Action.WAIT)


def least_rise(candidate: tuple[int, int], live: tuple[int, int]) -> float:
    """Lower end of the interval for the rise of a rate, both (bad, all). A live side never used has 0."""
    if not candidate[1]:
        return -1.0
    rate, lower, _ = _wilson(*candidate)
    live_rate, _, live_upper = _wilson(*live) if live[1] else (0.0, 0.0, 0.0)
    return (rate - live_rate) - math.hypot(rate - lower, live_upper - live_rate)


def least_slowdown(live: Side, candidate: Side) -> float:
    """Lower end of the interval for the ratio of geometric mean times; 0 while there are too few requests."""
    error = math.hypot(live.standard_error, candidate.standard_error)
    if not math.isfinite(error):
        return 0.0
    return math.exp(candidate.mean_log_s - live.mean_log_s - Z * error)


def _wilson(bad: int, all_: int) -> tuple[float, float, float]:
    """Rate with Wilson's score interval (Wilson 1927)."""
    rate, z2 = bad / all_, Z * Z
    middle = (rate + z2 / (2 * all_)) / (1 + z2 / all_)
    half = Z / (1 + z2 / all_) * math.sqrt(rate * (1 - rate) / all_ + z2 / (4 * all_ * all_))
    return rate, max(0.0, middle - half), min(1.0, middle + half)

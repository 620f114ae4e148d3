"""Is a model well, slow or failing, and why? One judgement from its last minute and its queue; pure.

- failing: requests fail through the fault of engine, adapter or fleet: at least 3 in the last minute, and at
  least 5 % of all that ended.
- slow: the p99 of first tokens, or of the wait alone, is above the limit, and so are at least 3 of them; or
  the oldest waiting request has waited longer already; or at least 5 % (and 3) expired in the queue or
  were shed on arrival.
- The limit is the pool's objective `slo.ttft_s`. Without one it is the model's own past: `USUAL_FACTOR` times
  its usual first token, but at least `FLOOR_S`, or `UNKNOWN_S` before there is a usual one.

A tenant's own caps (429) are not a fault of the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from routing.observing.live.figures import Figures1m
from routing.scheduling.filters import WaitReason

USUAL_FACTOR = 5.0  # a p99 is commonly two to four times the median
FLOOR_S = 1.0  # a reader does not notice less
UNKNOWN_S = 10.0
MIN_TROUBLED = 3  # one broken request does not make a model failing
TROUBLED_PART = 0.05


class Verdict(StrEnum):
    """The state of a model, the worst first."""

    FAILING = "failing"
    SLOW = "slow"
    GREEN = "green"


class LimitSource(StrEnum):
    """The source of a model's limit for the first token."""

    OBJECTIVE = "objective"  # the pool's `slo.ttft_s`
    USUAL = "usual"  # its own past
    DEFAULT = "default"  # no requests yet


@dataclass(frozen=True, slots=True)
class Limit:
    """The time above which a first token is slow."""

    seconds: float
    source: LimitSource


@dataclass(frozen=True, slots=True)
class Waiting:
    """The waiting requests of one model."""

    requests: int = 0
    oldest_s: float = 0.0
    waits_for: str | None = None  # why the oldest had to wait: a `WaitReason`


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and its reason."""

    verdict: Verdict
    reason: str  # empty if it is green


def usual_limit_s(usual_s: float | None) -> float:
    """Return the limit of a model whose pool has no objective, in seconds."""
    return UNKNOWN_S if usual_s is None else max(FLOOR_S, USUAL_FACTOR * usual_s)


def limit(objective_s: float | None, usual_s: float | None) -> Limit:
    """Return a model's limit and its source."""
    if objective_s is not None:
        return Limit(objective_s, LimitSource.OBJECTIVE)
    source = LimitSource.DEFAULT if usual_s is None else LimitSource.USUAL
    return Limit(usual_limit_s(usual_s), source)


def judge(figures: Figures1m, bound: Limit, waiting: Waiting) -> Judgement:
    """Judge one model; the worst true verdict counts."""
    if _troubled(figures.failed, figures.requests):
        text = f"{_part(figures.failed, figures.requests)} of its requests fail ({figures.fault})"
        return Judgement(Verdict.FAILING, text)
    reason = _lateness(figures, bound, waiting)
    return Judgement(Verdict.SLOW if reason else Verdict.GREEN, reason)


def _lateness(figures: Figures1m, bound: Limit, waiting: Waiting) -> str:
    """Return why a model is slow, or ""."""
    measure = f"{_LIMITS[bound.source]} {_seconds(bound.seconds)}"
    if waiting.oldest_s > bound.seconds:
        what = _plural(waiting.requests, "request waits", "requests wait")
        why = _cause(waiting.waits_for)
        return f"{what}, the oldest for {_seconds(waiting.oldest_s)}{why}; {measure}"
    if _troubled(figures.late, figures.requests):
        part = _part(figures.late, figures.requests)
        return f"{part} of its requests were refused or expired since too much waits ({figures.fault})"
    first_s, queue_s = figures.first_token_p99_s, figures.queue_p99_s
    waited = _seconds(queue_s or 0.0)
    if _above(bound, queue_s, figures.third_queue_s):
        return f"p99 wait for a replica {waited}{_cause(figures.waits_for)}; {measure}"
    if _above(bound, first_s, figures.third_first_token_s):
        return f"p99 first token {_seconds(first_s or 0.0)}, {waited} of it in the queue; {measure}"
    return ""


_LIMITS = {
    LimitSource.OBJECTIVE: "its objective is",
    LimitSource.USUAL: "usual is below",
    LimitSource.DEFAULT: "allowed is",
}
_CAUSES = {
    WaitReason.FROM_ZERO: "the pool had no replica, and the first one comes",
    WaitReason.NOT_READY: "no replica is ready",
    WaitReason.NOT_TRUSTED: "its replicas fail",
    WaitReason.ADAPTER_UNKNOWN: "no engine knows its version yet",
    WaitReason.NO_ROOM: "its replicas are full",
    WaitReason.ASLEEP: "the model is not awake; others have their turn",
    WaitReason.NO_SLOT: "every slot is held by other adapters",
    WaitReason.ROOM_RESERVED: "its tenant floods, and room is kept for others",
    WaitReason.SLOT_RESERVED: "its tenant floods, and the free slots are kept for others",
    WaitReason.SPARES_READ: "a replica that has it in memory is waited for",
    WaitReason.SLOT_DRAINING: "its slot is being drained for another adapter",
    WaitReason.BEHIND: "more of it comes than is served",
}


def _cause(reason: str | None) -> str:
    return f" since {_CAUSES[WaitReason(reason)]}" if reason in _CAUSES else ""


def _above(bound: Limit, *durations_s: float | None) -> bool:
    return all(duration_s is not None and duration_s > bound.seconds for duration_s in durations_s)


def _troubled(count: int, requests: int) -> bool:
    return count >= MIN_TROUBLED and count >= TROUBLED_PART * requests


def _part(count: int, requests: int) -> str:
    return f"{100 * count / requests:.0f} %"


def _plural(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _seconds(time_s: float) -> str:
    return f"{1000 * time_s:.0f} ms" if time_s < 1 else f"{time_s:.1f} s"

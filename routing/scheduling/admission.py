"""May a request enter, given how much its tenant has in the gateway already? Pure; charges nothing.

Concurrency counts from admission to settlement, waiting included, so a tenant sees its own cap at once
and not after a wait. The queue caps bound how many of those may be waiting, and how many tokens they hold.
Rates are counted elsewhere (`rates`); what the gateway as a whole can take is the dispatcher's to say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from fleet.types import Caps, KeyLimits

# Refused requests of one tenant that are taken to come back. Were there no bound, a client that asks without
# pause would put off its tenant's others.
MOST_EXPECTED = 16


class Cap(StrEnum):
    """Which limit said no; where fleet.yaml has it, the name is the one there."""

    CONCURRENCY = "max_concurrency"
    MODEL_CONCURRENCY = "max_concurrency_per_model"
    ADAPTER_CONCURRENCY = "max_concurrency_per_adapter"  # of the adapter, all tenants together
    QUEUED = "max_queued"
    QUEUED_TOKENS = "max_queued_tokens"
    REQUESTS_PER_MINUTE = "requests_per_minute"
    TOKENS_PER_MINUTE = "tokens_per_minute"
    # Of the key with which the request came; its name in fleet.yaml is what follows `key_`.
    KEY_CONCURRENCY = "key_max_concurrency"
    KEY_QUEUED = "key_max_queued"
    KEY_REQUESTS_PER_MINUTE = "key_requests_per_minute"
    KEY_TOKENS_PER_MINUTE = "key_tokens_per_minute"
    OVERLOADED = "overloaded"  # no tenant's cap: the gateway as a whole, answered with 503


@dataclass(frozen=True, slots=True)
class Rejection:
    """Which cap said no, and when to try again."""

    cap: Cap
    limit: int
    retry_after_s: float | None  # None: retrying cannot help, the request alone is over the cap


@dataclass(slots=True)
class Usage:
    """What one tenant, or one key, has in the gateway now, and how long its requests have been taking."""

    sequences: int = 0
    sequences_by_model: dict[str, int] = field(default_factory=dict)
    queued: int = 0
    queued_tokens: int = 0  # prompt tokens of those, estimated
    mean_request_s: float = 1.0  # arrival to end, exponentially weighted
    # When refused requests were told to come back: each after the one before, so that each finds room.
    expected_s: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_EXPECTED))

    def expect(self, rejection: Rejection, now_s: float) -> None:
        """Remember when a refused request will come back; the next one is told a later time."""
        if rejection.retry_after_s is not None:
            self.expected_s.append(now_s + rejection.retry_after_s)

    def forget_past(self, now_s: float) -> None:
        """Forget the refused requests that should have come back by now."""
        while self.expected_s and self.expected_s[0] <= now_s:
            self.expected_s.popleft()


class Demand(NamedTuple):
    """What one request asks for, and what its adapter has to do already for all tenants."""

    model: str
    sequences: int
    prompt_tokens: int  # estimated
    must_wait: bool  # no replica can take it at once
    adapter_limit: int | None = None  # sequences of all tenants and versions; None: no such cap
    adapter_sequences: int = 0  # of those, in the gateway now


def admit(caps: Caps, usage: Usage, demand: Demand) -> Rejection | None:
    """Say which cap stops the request, or None; the usage is left as it is.

    Where the request alone is over a cap on what waits, it can enter once it need not wait.
    """
    of_model = usage.sequences_by_model.get(demand.model, 0)
    in_flight = (
        (Cap.CONCURRENCY, caps.max_concurrency, usage.sequences),
        (Cap.MODEL_CONCURRENCY, caps.max_concurrency_per_model, of_model),
        (Cap.ADAPTER_CONCURRENCY, demand.adapter_limit, demand.adapter_sequences),
    )
    rejection = _in_flight(in_flight, usage, demand)
    if rejection is not None or not demand.must_wait:
        return rejection
    waiting = (
        (Cap.QUEUED, caps.max_queued, usage.queued, 1),
        (Cap.QUEUED_TOKENS, caps.max_queued_tokens, usage.queued_tokens, demand.prompt_tokens),
    )
    return _waiting(waiting, usage)


def admit_key(limits: KeyLimits, usage: Usage, demand: Demand) -> Rejection | None:
    """Say which limit of its key stops the request, or None; the usage is left as it is."""
    rejection = _in_flight(((Cap.KEY_CONCURRENCY, limits.max_concurrency, usage.sequences),), usage, demand)
    if rejection is not None or not demand.must_wait:
        return rejection
    return _waiting(((Cap.KEY_QUEUED, limits.max_queued, usage.queued, 1),), usage)


def _in_flight(
    limits: Iterable[tuple[Cap, int | None, int]], usage: Usage, demand: Demand
) -> Rejection | None:
    """Bound what is in flight: (cap, limit, used) of each."""
    for cap, limit, used in limits:
        if limit is None or used + demand.sequences <= limit:
            continue
        if demand.sequences > limit:
            return Rejection(cap, limit, None)
        return Rejection(cap, limit, _until_free_s(usage, used + demand.sequences - limit, used))
    return None


def _waiting(limits: Iterable[tuple[Cap, int | None, int, int]], usage: Usage) -> Rejection | None:
    """Bound what waits: (cap, limit, used, wanted) of each."""
    for cap, limit, used, wanted in limits:
        if limit is not None and used + wanted > limit:
            return Rejection(cap, limit, _until_free_s(usage, used + wanted - limit, used))
    return None


def _until_free_s(usage: Usage, excess: int, used: int) -> float:
    """Expected time until `excess` of what is used has ended, and room is left for each expected: 0.1..60 s.

    Little's law (1961): what is in the gateway ends at the rate used / mean time. All of it takes the mean.
    """
    means = min(1.0, excess / max(1, used)) + len(usage.expected_s) / max(1, used)
    return min(60.0, max(0.1, usage.mean_request_s * means))

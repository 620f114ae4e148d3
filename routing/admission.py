"""May this request enter, given what its tenant has in the gateway already? Pure; charges nothing.

Concurrency counts from admission to settlement, waiting included, so a tenant sees its own cap at once
and not after a wait. The queue cap bounds how many of those may be waiting.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from routing.types import Caps


class Cap(StrEnum):
    """Which limit said no; the name is the one in fleet.yaml."""

    CONCURRENCY = "max_concurrency"
    MODEL_CONCURRENCY = "max_concurrency_per_model"
    QUEUED = "max_queued"


@dataclass(frozen=True, slots=True)
class Rejection:
    """Which cap said no, and when to try again."""

    cap: Cap
    limit: int
    retry_after_s: float | None  # None: retrying cannot help, the request alone is over the cap


@dataclass(slots=True)
class Usage:
    """What one tenant has in the gateway now, and how long its requests have been taking."""

    sequences: int = 0
    sequences_by_model: dict[str, int] = field(default_factory=dict)
    queued: int = 0
    mean_request_s: float = 1.0  # exponentially weighted

    def of_model(self, model: str) -> int:
        """Sequences of one model in the gateway now."""
        return self.sequences_by_model.get(model, 0)


def admit(caps: Caps, usage: Usage, *, model: str, sequences: int, must_wait: bool) -> Rejection | None:
    """Say which cap stops a request of so many sequences, or None; the usage is left as it is."""
    limits = [(Cap.CONCURRENCY, caps.max_concurrency, usage.sequences)]
    if caps.max_concurrency_per_model is not None:
        limits.append((Cap.MODEL_CONCURRENCY, caps.max_concurrency_per_model, usage.of_model(model)))
    for cap, limit, used in limits:
        if sequences > limit:
            return Rejection(cap, limit, None)
        if used + sequences > limit:
            return Rejection(cap, limit, _until_next_finish_s(usage.mean_request_s, used))
    if must_wait and usage.queued >= caps.max_queued:
        return Rejection(
            Cap.QUEUED, caps.max_queued, _until_next_finish_s(usage.mean_request_s, usage.queued)
        )
    return None


def _until_next_finish_s(mean_request_s: float, running: int) -> float:
    """Expected time until one of so many requests ends: mean / running, in 0.1..60 s."""
    return min(60.0, max(0.1, mean_request_s / max(1, running)))

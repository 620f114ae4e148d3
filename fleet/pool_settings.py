"""What a pool may be told beside its models and tenants, as plain values: residency, and how it scales."""

from __future__ import annotations

from dataclasses import dataclass

HOLD_S = 300.0  # an engine of some ten billion parameters loads in one to three minutes, a node comes in two


@dataclass(frozen=True, slots=True)
class ResidencySettings:
    """How long the base models that share a host stay awake, and which of them come first."""

    ttl_s: float | None = None  # unused for so long it goes to disk; None: only for another's sake
    min_s: float | None = None  # one that came stays awake this long; None: as its switch is measured to cost
    max_turn_s: float = 60.0  # awake at a stretch while requests for others wait
    starvation_limit_s: float = 30.0  # a request waits no longer than this, one drain and one switch
    preload: tuple[str, ...] = ()  # awake first after a start
    pinned: tuple[str, ...] = ()  # always awake


@dataclass(frozen=True, slots=True)
class Scaling:
    """How few replicas a pool may have; the most are those that it declares."""

    least: int  # 0: it may have none, and requests then wait for the first one
    hold_s: float = HOLD_S  # for so long, where their tenant's queue_timeout_s is not longer

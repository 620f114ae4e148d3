"""The values the routing layer passes around: what a request is for, what it takes, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Outcome(StrEnum):
    """How a request ended; every request ends in exactly one."""

    COMPLETED = "completed"
    REJECTED = "rejected"  # never queued
    EXPIRED = "expired"  # queued too long
    CANCELLED = "cancelled"  # the client left
    FAILED = "failed"  # engine fault


@dataclass(frozen=True, slots=True)
class Target:
    """What one model name means for one tenant."""

    tenant: str
    model: str  # the tenant's alias for it
    adapter: str | None  # the adapter's name; None: the base model itself
    base_model: str
    pool: str
    version: int | None = None  # of the adapter
    adapter_id: str | None = None  # the name engines know that version by; slots and leases go by it
    adapter_limit: int | None = (
        None  # sequences of a declared adapter, all tenants together; None: no such cap
    )
    asked: str = field(default="", compare=False)  # what the client calls it, where not by its alias

    @property
    def answers_as(self) -> str:
        """The name that answers have: the client's own."""
        return self.asked or self.model

    @property
    def engine_model(self) -> str:
        """The name the engine knows it by."""
        return self.adapter_id or self.base_model


@dataclass(frozen=True, slots=True)
class Request:
    """What the scheduler needs to know of one request."""

    id: str
    target: Target
    sequences: int  # choices times prompts: what it occupies in an engine
    prompt_tokens: int  # estimated, see `prompts`
    arrived_s: float  # monotonic
    failed_on: frozenset[str] = frozenset()  # replicas that broke under it
    max_completion_tokens: int | None = None  # of each sequence, where the client says
    size_bytes: int = 0  # of the body, while it waits in memory

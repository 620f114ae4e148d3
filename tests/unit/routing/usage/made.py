"""Records and rows for tests of the ledger."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from routing.types import Outcome, Record, Target
from routing.usage.entries import DAY_S, Entries, Row

NOON_S = 1_767_960_000.0  # 2026-01-09 12:00 UTC
TODAY = "2026-01-09"


def record(tenant: str = "a", model: str = "support", *, adapter: bool = True, **changes: Any) -> Record:
    """A completed request of 10 and 5 tokens."""
    versioned = (f"{tenant}-{model}", "base", "shared", 3) if adapter else (None, "base", "shared", None)
    values = {
        "request_id": "x",
        "target": Target(tenant, model, *versioned),
        "outcome": Outcome.COMPLETED,
        "status": 200,
        "replica": "shared-0",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cached_tokens": 4,
        "queue_s": 0.5,
        "total_s": 2.0,
        "engine_s": 0.75,
        "slot_s": 1.5,
        "ended_at_s": NOON_S,
        "key": "k1",
    }
    return Record(**{**values, **changes})


def rows(*records: Record, at_s: float = NOON_S, start: str = "0123456789ab") -> list[Row]:
    """The rows of records that ended then."""
    entries = Entries(start)
    return [entries.row(replace(each, ended_at_s=at_s)) for each in records]


def days_ago(days: int) -> float:
    """Noon, so many days earlier."""
    return NOON_S - days * DAY_S

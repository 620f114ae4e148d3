"""Settled requests for tests of live figures."""

from __future__ import annotations

from typing import Any

from routing.observing.live.figures import Figures
from routing.observing.live.verdict import usual_limit_s
from routing.types import Outcome, Record, Target
from tests.unit.routing.requests import target

NOW = 1000.0  # begins a bucket


def answered(first_s: float = 0.1, *, of: Target | None = None, **changes: Any) -> Record:
    """A stream whose first token came after so long; all but 10 ms of it in the engine."""
    fields: dict[str, Any] = {
        "stream": True,
        "queue_s": 0.01,
        "first_byte_s": first_s,
        "total_s": 2 * first_s,
        "prompt_tokens": 5,
        "completion_tokens": 10,
    }
    return Record("id", of or target("a", "support"), Outcome.COMPLETED, 200, **(fields | changes))


def ended(outcome: Outcome, status: int, reason: str, *, of: Target | None = None, **changes: Any) -> Record:
    """A request that got no answer."""
    return Record("id", of or target("a", "support"), outcome, status, reason, **changes)


def figures(**options: Any) -> Figures:
    """Figures that begin at `NOW`."""
    return Figures(NOW, usual_limit_s, **options)

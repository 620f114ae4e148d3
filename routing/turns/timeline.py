"""Who was awake when, and why that changed: the last events of one pool, each logged as it happens."""

from __future__ import annotations

import logging
import time
from collections import deque

from routing.turns.report import TurnEvent

KEPT = 200
log = logging.getLogger("tenantry.turns")


class Timeline:
    """The last events of a pool."""

    def __init__(self, pool: str) -> None:
        self.events: deque[TurnEvent] = deque(maxlen=KEPT)
        self._pool = pool

    def add(
        self,
        host: str,
        model: str,
        instead_of: str | None,
        what: str,
        why: str,
        took_s: float = 0.0,
        way: str = "",
    ) -> None:
        """Keep an event, and log it; a failure as a warning."""
        self.events.append(
            TurnEvent(time.time(), self._pool, host, model, instead_of, what, why, took_s, way)
        )
        level = logging.WARNING if what == "failed" else logging.INFO
        goes = f" instead of {instead_of}" if instead_of else ""
        took = f", {took_s:.2f} s {way}".rstrip() if took_s else ""
        log.log(level, "%s: %s %s%s (%s)%s", host, model, what, goes, why, took)

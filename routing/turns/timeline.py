"""Who was awake when, and why that changed: the last events of one pool, each logged as it happens."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque

from routing.turns.report import TurnEvent
from routing.turns.rule import TurnEnd, Why

KEPT = 200
LEVELS = {"failed": logging.WARNING, "drains": logging.DEBUG, "goes_on": logging.DEBUG}
log = logging.getLogger("tenantry.turns")


class Timeline:
    """The last events of a pool."""

    def __init__(self, pool: str) -> None:
        self.events: deque[TurnEvent] = deque(maxlen=KEPT)
        self.holds: deque[TurnEvent] = deque(maxlen=KEPT)
        self.held: Counter[tuple[str, str]] = Counter()
        self._pool = pool

    def hold(self, model: str, why: str) -> None:
        """Keep why a model has to wait, from now on."""
        self.held[model, why] += 1
        self.holds.append(TurnEvent(time.time(), self._pool, "", model, None, "held", why))

    def drains(self, host: str, model: str, end: TurnEnd | None, running: int) -> None:
        """Keep that a model's turn is over: for another one, or by order while it runs something."""
        if end is not None:
            self.add(host, end.by, model, "drains", end.why)
        elif running:
            self.add(host, model, None, "drains", Why.WANTED)

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
        """Keep an event, and log it; a failure as a warning, a turn that may still go on for debugging."""
        self.events.append(
            TurnEvent(time.time(), self._pool, host, model, instead_of, what, why, took_s, way)
        )
        level = LEVELS.get(what, logging.INFO)
        goes = f" instead of {instead_of}" if instead_of else ""
        took = f", {took_s:.2f} s {way}".rstrip() if took_s else ""
        log.log(level, "%s: %s %s%s (%s)%s", host, model, what, goes, why, took)

"""Applies deadlines, counts stalled streams and warns of budgets, four times a second.

One timer for all requests costs less than one for each.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from routing.flights.running import RunningFlights
from routing.observing.ended import EndedRequests
from routing.observing.metrics import GatewayMetrics
from routing.scheduling.dispatcher import Dispatcher
from routing.usage import Ledger

SWEEP_INTERVAL_S = 0.25
log = logging.getLogger("tenantry.gateway")


class Sweeper:
    """Applies every deadline of one gateway, from its start to its end."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        flights: RunningFlights,
        ended: EndedRequests,
        metrics: GatewayMetrics,
        ledger: Ledger,
        note_event: Callable[[str, str], object],
        clock: Callable[[], float],
    ) -> None:
        self._dispatcher = dispatcher
        self._flights = flights
        self._ended = ended
        self._metrics = metrics
        self._budgets = {"tenant": ledger.budgets, "key": ledger.key_budgets}
        self._note_event = note_event
        self._clock = clock
        self._task: asyncio.Task[None] | None = None  # from start to stop

    def start(self) -> None:
        """Begin to sweep."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End the sweeps, and give observers the requests that have ended."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._ended.flush()

    def sweep(self) -> None:
        """Apply everything that is due now."""
        self._dispatcher.sweep()
        self._ended.flush()
        self._warn_of_budgets()
        now_s = self._clock()
        for pool, replica in self._flights.stalled(now_s):
            self._metrics.stalled(pool, replica)
        self._flights.abort_overdue(now_s)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            self.sweep()

    def _warn_of_budgets(self) -> None:
        """Log budgets that have just reached a limit, and keep that among the events."""
        for whose, budgets in self._budgets.items():
            for status in budgets.newly_reached(time.time()):
                used, limit = status.amount(status.used), status.amount(status.limit)
                text = f"{used} of the month's {limit} {status.unit} are used"
                log.warning("%s %s: %s (%s limit)", whose, status.tenant, text, status.level)
                self._note_event(f"{whose} {status.tenant}", f"{text}: {status.level} limit reached")

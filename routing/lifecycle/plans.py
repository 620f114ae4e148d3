"""The admin API's calls on plans: what `tenantry plan` publishes, and what it sees while it watches.

Nothing follows a plan here. Implements `ports.PlanManagement`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping

from routing.catalog.plans import PlanDocument, PlanFigures, PlanKind
from routing.lifecycle.changes import ACTOR
from routing.lifecycle.registry import Registry, patiently

SUBJECT = "plan"
STAY = "stay"
log = logging.getLogger("tenantry.lifecycle")


class Plans:
    """Keeps the last plan and the last look at it; new ones are events, and so is advice that changes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.figures: PlanFigures | None = None  # of the last look; None: there was none

    async def load(self) -> None:
        """Read what the last look said before the gateway started; waits until the database answers."""
        look = (await patiently(self._registry.plans)).get(PlanKind.LOOK)
        if look is None:
            return
        try:
            told = json.loads(look.text)
            devices = told["devices"]
            self.figures = PlanFigures(devices["now"], devices["anew"], told["advice"], told["to_s"])
        except (ValueError, KeyError, TypeError):
            log.warning("the last look at the plan is of another release; it does not count")

    async def kept(self) -> Mapping[PlanKind, PlanDocument]:
        """Return the documents that are there."""
        return await self._registry.plans()

    async def publish(self, text: str, said: str) -> None:
        """Keep a plan in the place of the one before; `said` is what the event says."""
        await self._registry.keep_plan(_now(PlanKind.PLAN, text))
        self.figures = None
        await self._registry.record(SUBJECT, said)

    async def look(self, text: str, figures: PlanFigures, said: str) -> None:
        """Keep a look in the place of the one before; where its advice is another one, `said` is an event."""
        await self._registry.keep_plan(_now(PlanKind.LOOK, text))
        before = STAY if self.figures is None else self.figures.advice
        self.figures = figures
        if figures.advice != before:
            told = said if figures.advice != STAY else f"no longer {before}"
            await self._registry.record(SUBJECT, f"{figures.advice}: {told}")


def _now(kind: PlanKind, text: str) -> PlanDocument:
    return PlanDocument(kind, time.time(), ACTOR.get(), text)

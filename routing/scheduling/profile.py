"""Which engine, if any, takes the request, and why that one? Filters, scorers and a picker. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from routing.scheduling.filters import ELIGIBLE, Filter, Hold
from routing.scheduling.scorers import (
    Scorer,
    View,
    adapter_affinity,
    least_loaded,
    place,
    rendezvous,
    view_of,
)
from routing.scheduling.state import Engine
from routing.types import Request

ONLY = "only"  # one engine alone could take it


@dataclass(frozen=True, slots=True)
class Pick:
    """An engine, and what spoke for it."""

    engine: Engine
    reason: str  # a `Place`, or `ONLY`


@dataclass(frozen=True, slots=True)
class Profile:
    """A named choice: the filters all must pass, the scorers are summed by weight, the best one is picked."""

    name: str
    filters: tuple[tuple[Filter, Hold], ...]
    scorers: tuple[tuple[Scorer, float], ...]

    def fits(self, engine: Engine, request: Request) -> bool:
        """Whether an engine passes every filter."""
        for passes, _ in self.filters:  # noqa: SIM110 - plain loops: this is the hottest code of all
            if not passes(engine, request):
                return False
        return True

    def pick(self, engines: Sequence[Engine], request: Request, slack: float = 0.25) -> Pick | Hold:
        """Return the best engine that passes every filter; among equals the first.

        Where none does, the reason is the filter that stopped the one that passed the most. `slack` is how
        far above the mean load a preferred engine may be.
        """
        fit: list[Engine] = []
        furthest, hold = -1, Hold.NOT_READY
        for engine in engines:
            for passed, (passes, why) in enumerate(self.filters):
                if not passes(engine, request):
                    if passed > furthest:
                        furthest, hold = passed, why
                    break
            else:
                fit.append(engine)
        if not fit:
            return hold
        if len(fit) == 1:
            return Pick(fit[0], ONLY)
        view = view_of(engines, request, slack)
        best = self._best(fit, request, view)
        return Pick(best, place(best, request, view))

    def _best(self, fit: Sequence[Engine], request: Request, view: View) -> Engine:
        """Return the first of those with the highest sum; a scorer that cannot change that is not asked."""
        best, best_score, most = fit[0], -1.0, sum(weight for _, weight in self.scorers)
        for engine in fit:
            score, left = 0.0, most
            for scorer, weight in self.scorers:
                score += weight * scorer(engine, request, view)
                left -= weight
                if score + left <= best_score:
                    break
            else:
                best, best_score = engine, score
        return best


# The ladder of affinity goes before load: a load from disk stalls the engine's step, and a second copy takes
# a second slot. Its smallest step, 0.25, therefore weighs more than all of the load. Among equals hashing
# decides.
SLOT_LEASE = Profile(
    "slot-lease", ELIGIBLE, ((adapter_affinity, 8.0), (least_loaded, 1.0), (rendezvous, 0.01))
)

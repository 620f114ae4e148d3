"""Which engine, if any, takes the request, and why that one? Filters, scorers and a picker. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from routing.scheduling.affinity import affinity
from routing.scheduling.filters import ELIGIBLE, Filter, WaitReason
from routing.scheduling.scorers import Scorer, adapter_affinity, least_loaded, rendezvous
from routing.scheduling.state import Engine
from routing.scheduling.view import View
from routing.types import Request

ONLY = "only"  # one engine alone could take it


class Pick(NamedTuple):
    """An engine, and what spoke for it."""

    engine: Engine
    reason: str  # an `Affinity`, or `ONLY`


@dataclass(frozen=True, slots=True)
class Profile:
    """A named strategy: an engine must pass all filters; of those that do, the highest sum of scores wins."""

    name: str
    filters: tuple[tuple[Filter, WaitReason], ...]
    scorers: tuple[tuple[Scorer, float], ...]  # with their weights

    def fits(self, engine: Engine, request: Request, view: View) -> bool:
        """Whether an engine passes every filter."""
        for passes, _ in self.filters:  # noqa: SIM110 - plain loops: this is the hottest code of all
            if not passes(engine, request, view):
                return False
        return True

    def pick(self, request: Request, view: View) -> Pick | WaitReason:
        """Return the best engine that passes every filter; among equals the first.

        One that goes is taken only where no other passes. Where none does, the reason is the filter that
        stopped the one that passed the most.
        """
        fit: list[Engine] = []
        going: list[Engine] = []
        furthest, reason = -1, WaitReason.NOT_READY
        for engine in view.engines:
            for passed, (passes, lacks) in enumerate(self.filters):
                if not passes(engine, request, view):
                    if passed > furthest:
                        furthest, reason = passed, lacks
                    break
            else:
                (fit if engine.wanted else going).append(engine)
        fit = fit or going
        if not fit:
            return reason
        if len(fit) == 1:
            return Pick(fit[0], ONLY)
        best = self._best(fit, request, view)
        return Pick(best, affinity(best, request, view))

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


# Affinity goes before load: a load from disk stalls the engine's step, and a second copy takes a second slot.
# The smallest step between two of its scores, 0.25, therefore weighs more than all of the load. Among equals
# hashing decides.
SLOT_LEASE = Profile(
    "slot-lease", ELIGIBLE, ((adapter_affinity, 8.0), (least_loaded, 1.0), (rendezvous, 0.01))
)

"""Which replica, if any, takes the request, and for whom must a slot be cleared? Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from routing.scheduling.filters import ELIGIBLE, Filter
from routing.scheduling.scorers import Scorer, adapter_affinity, least_loaded, rendezvous
from routing.scheduling.state import ReplicaState, SlotClearing
from routing.types import Request


@dataclass(frozen=True, slots=True)
class Profile:
    """A named choice: the filters all must pass, the scorers are summed by weight, the best one is picked."""

    name: str
    filters: Sequence[Filter]
    scorers: Sequence[tuple[Scorer, float]]

    def pick(self, replicas: Iterable[ReplicaState], request: Request) -> ReplicaState | None:
        """Return the best replica that passes every filter, or None."""
        fit = [replica for replica in replicas if all(passes(replica, request) for passes in self.filters)]
        if len(fit) <= 1:
            return fit[0] if fit else None
        return max(fit, key=lambda replica: self._score(replica, request))

    def _score(self, replica: ReplicaState, request: Request) -> float:
        return sum(weight * scorer(replica, request) for scorer, weight in self.scorers)


# Affinity outweighs load: a load from disk stalls the engine's step, and a second copy takes a second slot.
AFFINITY = Profile("affinity", ELIGIBLE, ((adapter_affinity, 2.0), (least_loaded, 1.0), (rendezvous, 0.01)))


def clear_slot(replicas: Iterable[ReplicaState], request: Request) -> ReplicaState | None:
    """Start clearing a slot for a request that has waited too long for one; None where it cannot or need not.

    The victim is the adapter with the least in flight on a ready replica, so that as little as possible is
    held back. One clearing at a time per replica. vLLM itself never takes a slot from a busy adapter.
    """
    adapter = request.target.adapter_id
    candidates = [
        r
        for r in replicas
        if r.ready and r.base_model == request.target.base_model and r.slots > 0 and adapter in r.adapters
    ]
    if adapter is None or any(r.clearing is not None and r.clearing.waiting == adapter for r in candidates):
        return None
    choices = [
        (in_flight, victim, r)
        for r in candidates
        if r.clearing is None and r.free_slots <= 0 and adapter not in r.leases and adapter not in r.pinned
        for victim, in_flight in r.leases.items()
        if victim not in r.pinned
    ]
    if not choices:
        return None
    _, victim, replica = min(choices, key=lambda choice: (choice[0], choice[1], choice[2].name))
    replica.clearing = SlotClearing(waiting=adapter, victim=victim)
    return replica

"""Whose slot should be given to somebody who waits for one? Pure.

vLLM never takes a slot from an adapter that keeps running, so the gateway has to: it sends the victim nothing
new on one replica until its requests there have ended, then the slot is the other's. Two rules, gentle on
purpose, since clearing slots freely leaves engines half empty:

1. *Over its share.* A tenant that holds more slots than its share of them gives one up to a tenant that holds
   fewer, after `YIELD_S`. The share is by weight among the tenants that hold a slot or wait for one.
2. *Too long.* Whoever has waited `slot_wait_s` gets a slot from whom that disturbs least. This is what LoRAX
   does after `adapter_cycle_time_s`, there by rotating every adapter, here only for somebody in need.

At most a part of a replica's slots is cleared at a time: one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from routing.scheduling.state import Lease, ReplicaState, SlotClearing
from routing.types import Request

YIELD_S = 0.25  # a request that ends anyway may free a slot meanwhile


@dataclass(frozen=True, slots=True)
class SlotDemand:
    """Who holds slots in a pool and who waits for them."""

    held: Mapping[str, int]  # tenant -> slots
    weights: Mapping[str, float]
    slots_by_weight: float  # slots of all replicas that take work, by the weight of all who hold or wait

    def share(self, tenant: str) -> float:
        """Slots that one of them may call its own."""
        return self.slots_by_weight * self.weights[tenant]

    def surplus(self, tenant: str) -> float:
        """Slots a tenant holds beyond its share; negative where it is owed some."""
        return self.held.get(tenant, 0) - self.share(tenant)


def demand_of(
    replicas: Iterable[ReplicaState], weights: Mapping[str, float], waiting: Collection[str]
) -> SlotDemand:
    """Count who holds what. A slot that is being cleared is nobody's any more."""
    held: Counter[str] = Counter()
    slots = 0
    for replica in replicas:
        if not replica.accepts:
            continue
        slots += replica.slots
        for adapter, lease in replica.leases.items():
            if replica.clearing is None or replica.clearing.victim != adapter:
                held[lease.tenant] += 1
    claimed = sum(weights[tenant] for tenant in held.keys() | set(waiting))
    return SlotDemand(held, weights, slots / claimed if claimed else 0.0)


def clear_slot(
    replicas: Iterable[ReplicaState],
    request: Request,
    demand: SlotDemand,
    *,
    waited_s: float,
    slot_wait_s: float,
) -> ReplicaState | None:
    """Start clearing a slot for a request that waits for one; None where it must not, cannot or need not."""
    adapter, tenant = request.target.adapter_id, request.target.tenant
    if adapter is None or waited_s < YIELD_S:
        return None
    able = [r for r in replicas if _could_run(r, request, adapter)]
    if any(r.clearing is not None and r.clearing.waiting == adapter for r in able):
        return None
    choices = [
        (lease, victim, replica)
        for replica in able
        if replica.clearing is None and replica.free_slots <= 0
        for victim, lease in replica.leases.items()
        if victim not in replica.pinned
    ]
    if waited_s < slot_wait_s:
        owed = demand.surplus(tenant) <= -1.0
        choices = [choice for choice in choices if owed and demand.surplus(choice[0].tenant) >= 1.0]
    if not choices:
        return None
    _, victim, replica = min(
        choices, key=lambda choice: _disturbance(choice[0], choice[1], choice[2], demand)
    )
    replica.clearing = SlotClearing(waiting=adapter, victim=victim)
    return replica


def _could_run(replica: ReplicaState, request: Request, adapter: str) -> bool:
    return (
        replica.accepts
        and replica.base_model == request.target.base_model
        and replica.name not in request.failed_on
        and replica.slots > 0
        and adapter in replica.adapters
        and not replica.holds(adapter)
    )


def _disturbance(
    lease: Lease, victim: str, replica: ReplicaState, demand: SlotDemand
) -> tuple[float, int, str, str]:
    """Order victims: the tenant furthest above its share, then the least in flight."""
    return -max(0.0, demand.surplus(lease.tenant)), lease.sequences, victim, replica.name

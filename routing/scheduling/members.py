"""Which tenants may use a group of engines, and which may no more but still have something there? Pure.

The bands and weights of both are kept, since what runs ends under the rules with which it began.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set

from fleet.types import Fleet, Pool, Tenant


class Members:
    """The tenants of one group."""

    def __init__(self, tenants: Collection[Tenant]) -> None:
        self.ranks = {tenant.name: tenant.band.rank for tenant in tenants}  # of their bands
        self.weights = {tenant.name: tenant.weight for tenant in tenants}
        self.present: Set[str] = frozenset(self.ranks)  # those whose requests may begin here
        self.leaving: set[str] = set()  # the others

    def differing(self, tenants: Collection[Tenant]) -> dict[str, int]:
        """Map those that are known here and have another band or weight now to the rank they have here."""
        return {
            tenant.name: self.ranks[tenant.name]
            for tenant in tenants
            if tenant.name in self.ranks
            and (self.ranks[tenant.name], self.weights[tenant.name]) != (tenant.band.rank, tenant.weight)
        }

    def take(self, tenants: Mapping[str, Tenant]) -> None:
        """Let these use the group; of the others only what is there already may end."""
        self.present = frozenset(tenants)
        self.leaving = set(self.ranks) - self.present
        self.ranks |= {name: tenant.band.rank for name, tenant in tenants.items()}
        self.weights |= {name: tenant.weight for name, tenant in tenants.items()}

    def forget(self, tenant: str) -> None:
        """Forget a tenant that has left and of which nothing is here any more."""
        self.leaving.discard(tenant)
        del self.ranks[tenant], self.weights[tenant]


def callers(fleet: Fleet, pool: Pool, base_model: str) -> int:
    """Count the tenants of a pool that may ask for a base model; where it has adapters, any may."""
    if fleet.base_models[base_model].serves_adapters:
        return len(pool.tenants)
    return sum(base_model in fleet.tenants[tenant].models.values() for tenant in pool.tenants)

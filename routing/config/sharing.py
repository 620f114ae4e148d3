"""Which tenants can meet in one engine? Pure: answers from the fleet alone."""

from __future__ import annotations

from dataclasses import dataclass

from routing.types import Fleet, Tenant


@dataclass(frozen=True, slots=True)
class Company:
    """One replica, and the tenants whose requests it runs."""

    pool: str
    replica: str
    base_model: str
    device: str | None  # None: not pinned
    tenants: tuple[str, ...]


def who_shares(fleet: Fleet) -> list[Company]:
    """List every replica with the tenants that use its base model there."""
    companies = []
    for pool in fleet.pools.values():
        for index, (replica, base_model) in enumerate(pool.replica_models):
            tenants = tuple(n for n in pool.tenants if base_model in base_models_of(fleet, fleet.tenants[n]))
            device = pool.devices[index] if pool.devices else None
            companies.append(Company(pool.name, replica, base_model, device, tenants))
    return companies


def base_models_of(fleet: Fleet, tenant: Tenant) -> frozenset[str]:
    """Base models a tenant's models need."""
    return frozenset(base_model_of(fleet, model) for model in tenant.models.values())


def base_model_of(fleet: Fleet, model: str) -> str:
    """Return the base model of an adapter, or the base model itself."""
    return fleet.adapters[model].base_model if model in fleet.adapters else model


def pools_of(fleet: Fleet, tenant: Tenant) -> list[str]:
    """Pools that list the tenant."""
    return [pool.name for pool in fleet.pools.values() if tenant.name in pool.tenants]

"""Finds the tenants that can meet in one engine, and on which models. Pure: answers from the fleet alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from fleet.types import Fleet, Tenant


@dataclass(frozen=True, slots=True)
class Company:
    """One replica, and the tenants whose requests it runs."""

    pool: str
    replica: str
    base_model: str
    device: str | None  # None: not pinned
    tenants: tuple[str, ...]
    beside: tuple[str, ...] = ()  # replicas of other pools on the same device
    by_turns_with: tuple[str, ...] = ()  # replicas at the same host: its device is theirs by turns
    is_slice: bool = False  # its device is a MIG slice: memory and compute of its own
    gpu: str | None = None  # of a slice, where the file says it
    on_its_gpu: tuple[str, ...] = ()  # of a slice: replicas on other slices of the same GPU, where known


@dataclass(frozen=True, slots=True)
class Use:
    """One model as a pool serves it, and the tenants that may ask for it there."""

    pool: str
    base_model: str
    model: str  # an adapter, or the base model itself
    tenants: tuple[str, ...]


def who_shares(fleet: Fleet) -> list[Company]:
    """List every replica with the tenants that use its base model there."""
    companies = []
    for pool in fleet.pools.values():
        used = {name: base_models_of(fleet, fleet.tenants[name]) for name in pool.tenants}
        for host in pool.hosts:
            for replica, base_model in host.replicas:
                tenants = tuple(name for name in pool.tenants if base_model in used[name])
                others = tuple(other for other, _ in host.replicas if other != replica)
                company = Company(pool.name, replica, base_model, host.place, tenants, by_turns_with=others)
                if host.on_slice is not None:
                    company = replace(company, is_slice=True, gpu=host.on_slice.gpu or None)
                companies.append(company)
    return [
        replace(one, beside=_beside(one, companies), on_its_gpu=_on_its_gpu(one, companies))
        for one in companies
    ]


def met_by(tenant: str, companies: Iterable[Company]) -> list[str]:
    """Other tenants whose requests run in an engine that runs this tenant's, each once."""
    met = dict.fromkeys(n for company in companies if tenant in company.tenants for n in company.tenants)
    return [name for name in met if name != tenant]


def met_by_turns(tenant: str, companies: Iterable[Company]) -> list[str]:
    """Other tenants whose models have this tenant's devices, and maybe its engines, by turns with its own."""
    companies = list(companies)
    turns = {other for company in companies if tenant in company.tenants for other in company.by_turns_with}
    met = dict.fromkeys(n for company in companies if company.replica in turns for n in company.tenants)
    return [name for name in met if name != tenant]


def who_uses(fleet: Fleet) -> list[Use]:
    """List every model of every pool with the tenants that may ask for it there."""
    users: dict[tuple[str, str], list[str]] = {}
    for pool in fleet.pools.values():
        for name in pool.tenants:
            models = dict.fromkeys(fleet.tenants[name].models.values())
            for model in (m for m in models if base_model_of(fleet, m) in pool.base_models):
                users.setdefault((pool.name, model), []).append(name)
    return [
        Use(pool, base_model_of(fleet, model), model, tuple(tenants))
        for (pool, model), tenants in users.items()
    ]


def base_models_of(fleet: Fleet, tenant: Tenant) -> frozenset[str]:
    """Base models a tenant's models need."""
    return frozenset(base_model_of(fleet, model) for model in tenant.models.values())


def base_model_of(fleet: Fleet, model: str) -> str:
    """Return the base model of an adapter, or the base model itself."""
    return fleet.adapters[model].base_model if model in fleet.adapters else model


def pools_of(fleet: Fleet, tenant: Tenant) -> list[str]:
    """Pools that list the tenant."""
    return [pool.name for pool in fleet.pools.values() if tenant.name in pool.tenants]


def _beside(company: Company, companies: Iterable[Company]) -> tuple[str, ...]:
    """Replicas of other pools that name one of its GPUs. A MIG slice is a device of its own."""
    if company.device is None:
        return ()
    gpus = set(company.device.split(","))
    others = (other for other in companies if other.pool != company.pool and other.device)
    return tuple(other.replica for other in others if gpus & set((other.device or "").split(",")))


def _on_its_gpu(company: Company, companies: Iterable[Company]) -> tuple[str, ...]:
    """Replicas on other slices of a slice's GPU. Whose GPU a slice named by its UUID has, no file says."""
    if company.gpu is None:
        return ()
    others = (other for other in companies if other.replica != company.replica)
    return tuple(other.replica for other in others if other.gpu == company.gpu)

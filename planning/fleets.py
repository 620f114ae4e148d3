"""What does a fleet say of its models: who asks for which, with which objective, apart from whom? Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from fleet.types import Fleet, Isolation, Pool, tenant_of_account
from planning.measuring import NOTHING
from planning.served import Added
from planning.values import Demand, Kind, Model, ModelDemand, Served, Today
from planning.words import listed

ADDED_RANK = 16  # of an adapter that was added and whose rank is not known


@dataclass(frozen=True, slots=True)
class Wish:
    """What a fleet says of one model."""

    tenants: tuple[str, ...]
    ttft_s: float | None  # the shortest objective of the pools in which they ask for it
    isolation: Isolation  # dedicated where one of its tenants is


def model_name(fleet: Fleet, account: str, alias: str, adapter: str) -> str:
    """Return the name of the model that a record of a request means: of an adapter or a base model.

    An adapter that was added at run time is its tenant's own; so is an alias that the fleet no longer knows.
    """
    tenant = tenant_of_account(account)
    if adapter:
        return adapter if adapter in fleet.adapters else f"{tenant}/{adapter}"
    known = fleet.tenants.get(tenant)
    if known is not None and alias in known.models:
        return known.models[alias]
    return alias if alias in fleet.base_models or not tenant else f"{tenant}/{alias}"


def base_of(fleet: Fleet, model: str) -> str:
    """Return the base model of a model of the fleet; the model itself where it is no declared adapter."""
    return fleet.adapters[model].base_model if model in fleet.adapters else model


def wishes(fleet: Fleet) -> dict[str, Wish]:
    """Return what the fleet says of each model that a tenant has a name for."""
    tenants: dict[str, set[str]] = defaultdict(set)
    objectives: dict[str, list[float]] = defaultdict(list)
    dedicated: set[str] = set()
    for tenant in fleet.tenants.values():
        for model in tenant.models.values():
            tenants[model].add(tenant.name)
            if tenant.isolation is Isolation.DEDICATED:
                dedicated.add(model)
            for pool in _pools_of(fleet, model, tenant.name):
                if pool.slo.ttft_s is not None:
                    objectives[model].append(pool.slo.ttft_s)
    return {
        model: Wish(
            tuple(sorted(tenants[model])),
            min(objectives[model], default=None),
            Isolation.DEDICATED if model in dedicated else Isolation.SHARED,
        )
        for model in sorted(tenants)
    }


def with_wishes(demand: Demand, fleet: Fleet) -> Demand:
    """Return the demand with what the fleet says of its models, and with models that nobody asked for.

    What the demand says itself counts first, as a table by hand may.
    """
    told = wishes(fleet)
    models = {one.model: _with(one, told.get(one.model)) for one in demand.models}
    quiet = [name for name in told if name not in models]
    hours = demand.hours or 1
    for name in quiet:
        silent = ModelDemand(name, (), 0.0, (0.0,) * hours, NOTHING, NOTHING)
        models[name] = _with(silent, told[name])
    unknown = sorted(name for name in models if name not in told and _is_gone(name, fleet))
    notes = [*demand.notes]
    if quiet:
        notes.append(f"Nobody asked for {listed(quiet)}.")
    if unknown:
        notes.append(f"The fleet file does not know {listed(unknown)}: added at run time, or gone.")
    return replace(demand, models=tuple(models[name] for name in sorted(models)), notes=tuple(notes))


def added_models(demand: Demand, added: Iterable[Added], known: Mapping[str, Model]) -> list[Model]:
    """Return the models of a demand that are adapters added at run time, each of the tenant that asks."""
    by_key = {(one.tenant, one.name): one for one in added if one.base in known}
    found = []
    for name in (one.model for one in demand.models if one.model not in known):
        tenant, _, own = name.partition("/")
        one = by_key.get((tenant, own)) or by_key.get(("", own))
        if one is not None:
            base = known[one.base]
            size, rank = one.size_bytes, one.rank or ADDED_RANK
            found.append(
                Model(
                    *(name, Kind.ADAPTER, base.name, "", base.shape, size),
                    rank=rank,
                    max_model_len=base.max_model_len,
                )
            )
    return found


def with_added(demand: Demand, fleet: Fleet, added: Iterable[Model]) -> Demand:
    """Return the demand with what the fleet says of adapters that were added at run time."""
    bases = {model.name: model.base for model in added}
    models = (_with(one, _wish_of_added(fleet, one, bases.get(one.model))) for one in demand.models)
    return replace(demand, models=tuple(models))


def _wish_of_added(fleet: Fleet, one: ModelDemand, base: str | None) -> Wish | None:
    if base is None:
        return None
    tenants = [fleet.tenants[name] for name in one.tenants if name in fleet.tenants]
    objectives = [
        pool.slo.ttft_s
        for pool in fleet.pools.values()
        if base in pool.base_models and not {tenant.name for tenant in tenants}.isdisjoint(pool.tenants)
    ]
    is_dedicated = any(tenant.isolation is Isolation.DEDICATED for tenant in tenants)
    return Wish(
        one.tenants,
        min((s for s in objectives if s is not None), default=None),
        Isolation.DEDICATED if is_dedicated else Isolation.SHARED,
    )


def today(fleet: Fleet) -> Today:
    """Return how the fleet serves each of its models, and how many devices its pools use."""
    served: dict[str, list[Served]] = defaultdict(list)
    for pool in fleet.pools.values():
        models = [
            *pool.base_models,
            *(a.name for a in fleet.adapters.values() if a.base_model in pool.base_models),
        ]
        for model in models:
            served[model].append(Served(model, pool.name, pool.strategy, pool.replicas, pool.devices))
    return Today({model: tuple(each) for model, each in served.items()}, _devices(fleet))


def _devices(fleet: Fleet) -> int:
    """Count devices: of each host those that its engine needs; a device that two pools name counts once."""
    named: set[str] = set()
    unnamed = 0
    for pool in fleet.pools.values():
        for host in pool.hosts:
            if host.place is not None:
                named |= set(host.place.split(","))
            else:
                unnamed += max(
                    (fleet.base_models[m].tensor_parallel_size for m in host.base_models), default=1
                )
    return len(named) + unnamed


def _pools_of(fleet: Fleet, model: str, tenant: str) -> Iterable[Pool]:
    base = base_of(fleet, model)
    return (pool for pool in fleet.pools.values() if base in pool.base_models and tenant in pool.tenants)


def _with(one: ModelDemand, wish: Wish | None) -> ModelDemand:
    if wish is None:
        return one
    return replace(
        one,
        tenants=tuple(sorted({*one.tenants, *wish.tenants})),
        ttft_s=wish.ttft_s if one.ttft_s is None else one.ttft_s,
        isolation=wish.isolation if one.isolation is Isolation.SHARED else one.isolation,
    )


def _is_gone(name: str, fleet: Fleet) -> bool:
    return name not in fleet.adapters and name not in fleet.base_models

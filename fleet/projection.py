"""Returns the part of a fleet that one pool needs, with nothing of other tenants. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from fleet.money import Price
from fleet.problems import FleetError, Problem, did_you_mean
from fleet.sharing import base_model_of
from fleet.types import Fleet, GatewaySettings, Pool, Tenant


def project(fleet: Fleet, pool: str) -> Fleet:
    """Return the fleet of one pool: its base models, its tenants with their models there, its adapters.

    Raises `FleetError` when there is no such pool.
    """
    if pool not in fleet.pools:
        hint = did_you_mean(pool, fleet.pools)
        raise FleetError([Problem("fleet", None, "pools", f"no pool is called `{pool}`", hint)])
    kept = fleet.pools[pool]
    tenants = {name: _of_pool(fleet, fleet.tenants[name], kept) for name in kept.tenants}
    used = {model for tenant in tenants.values() for model in tenant.models.values()}
    shown = {*used, *kept.base_models}
    return Fleet(
        base_models={name: fleet.base_models[name] for name in kept.base_models},
        adapters={name: adapter for name, adapter in fleet.adapters.items() if name in used},
        tenants=tenants,
        pools={pool: kept},
        gateway=_of_tenants(fleet.gateway, kept.tenants),
        state=fleet.state,
        usage=fleet.usage,
        prices=fleet.prices and replace(fleet.prices, models=_only(shown, fleet.prices.models)),
    )


def _of_tenants(gateway: GatewaySettings, tenants: Collection[str]) -> GatewaySettings:
    """Return the gateway's settings without users and guards of other tenants."""
    gateway = replace(gateway, guards={n: guard for n, guard in gateway.guards.items() if n in tenants})
    proxies = gateway.trusted_proxies
    if proxies is None:
        return gateway
    users = {name: listed for name, listed in proxies.tenants.items() if name in tenants}
    kept = replace(proxies, tenants=users) if users or proxies.operators else None
    return replace(gateway, trusted_proxies=kept)


def _of_pool(fleet: Fleet, tenant: Tenant, pool: Pool) -> Tenant:
    """Return the tenant with only the models this pool serves."""
    models = {a: m for a, m in tenant.models.items() if base_model_of(fleet, m) in pool.base_models}
    default = tenant.default_model if tenant.default_model in models else None
    fallbacks = {
        alias: other
        for alias, other in tenant.fallbacks.items()
        if alias in models and (other in models or other in models.values())
    }
    prices = tenant.prices
    if prices is not None:
        prices = replace(prices, models=_only({*models.values(), *pool.base_models}, prices.models))
    return replace(tenant, models=models, default_model=default, prices=prices, fallbacks=fallbacks)


def _only(names: Collection[str], prices: Mapping[str, Price]) -> dict[str, Price]:
    return {name: price for name, price in prices.items() if name in names}

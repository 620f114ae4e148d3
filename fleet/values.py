"""What a fleet file says of each part of a fleet, as plain values. Pure.

Keys are given as their hashes, or as the environment variables they came from; never as themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, Final

from fleet.money import COST_UNITS, FACTOR_UNITS, PRICE_UNITS, Price
from fleet.pool_settings import Scaling
from fleet.types import NO_LIMITS, Adapter, BaseModel, Budget, Fleet, Pool, StateSettings, Strategy, Tenant

# What an engine is started with and can be given anew; its weights and its name stay.
ENGINE_SETTINGS: Final = frozenset(
    {
        "dtype", "max_model_len", "max_num_seqs", "max_loras", "max_lora_rank", "max_cpu_loras",
        "tensor_parallel_size", "gpu_memory_utilization", "kv_cache_gib", "media", "vllm_args",
    }
)  # fmt: skip


def engine_values(model: BaseModel) -> dict[str, Any]:
    """Give what a file says of the settings of a base model's engines."""
    return {name: value for name, value in base_model_values(model).items() if name in ENGINE_SETTINGS}


def base_model_values(model: BaseModel) -> dict[str, Any]:
    """Give what a file says of a base model."""
    values = asdict(model)
    del values["name"]
    cache_bytes = values.pop("kv_cache_bytes")
    values["kv_cache_gib"] = None if cache_bytes is None else cache_bytes / 2**30
    values["vllm_args"] = list(model.vllm_args)
    values["media"]["hosts"] = list(model.media.hosts)
    return _given(values)


def adapter_values(adapter: Adapter) -> dict[str, Any]:
    """Give what a file says of an adapter."""
    values = asdict(adapter)
    del values["name"]
    return _given(values)


def tenant_values(tenant: Tenant, key_variables: Mapping[str, str]) -> dict[str, Any]:
    """Give what a file says of a tenant."""
    values = {
        "api_keys": _tenant_keys(tenant, key_variables),
        "models": {
            alias: {"model": model, "fallback": tenant.fallbacks[alias]}
            if alias in tenant.fallbacks
            else model
            for alias, model in tenant.models.items()
        },
        "default_model": tenant.default_model,  # null is not the same as leaving it out
        "priority": tenant.band.value,
        "weight": tenant.weight,
        "caps": _given(asdict(tenant.caps)),
        "isolation": tenant.isolation.value,
        "adapter_sources": list(tenant.adapter_sources),
    }
    if tenant.budget is not None:
        values["budget"] = _budget(tenant.budget)
    if tenant.prices is not None:
        factor = _amount(tenant.prices.factor, FACTOR_UNITS)
        values["prices"] = {"factor": factor, "models": prices_values(tenant.prices.models)}
    if tenant.request_limits:
        values["request_limits"] = dict(tenant.request_limits)
    if tenant.suspended:
        values["suspended"] = True
    return values


def _budget(budget: Budget) -> dict[str, Any]:
    values = asdict(budget)
    if budget.monthly_cost is not None:
        values["monthly_cost"] = _amount(budget.monthly_cost, COST_UNITS)
    return _given(values)


def prices_values(models: Mapping[str, Price]) -> dict[str, dict[str, float]]:
    """Give what a file says of the prices of models."""
    return {name: price_values(price) for name, price in models.items()}


def price_values(price: Price) -> dict[str, float]:
    """Give what a file says of a price."""
    values = asdict(price)
    del values["factor"]  # the tenant's, or 1
    return {key: _amount(units, PRICE_UNITS) for key, units in values.items()}


def _amount(units: int, one: int) -> float:
    """Return the number whose shortest text has these decimals: at most 15 digits, which a float holds."""
    return units // one if units % one == 0 else units / one


def pool_values(pool: Pool) -> dict[str, Any]:
    """Give what a file says of a pool."""
    values = {
        "strategy": pool.strategy.value,
        "base_models": list(pool.base_models),
        "replicas": pool.replicas if pool.scaling is None else _range(pool.replicas, pool.scaling),
        "devices": list(pool.devices),
        "mig": None if pool.mig is None else asdict(pool.mig),
        "tenants": list(pool.tenants),
        "slo": _given(asdict(pool.slo)),
        "hedge_after_s": pool.hedge_after_s,
    }
    if pool.strategy.shares_hosts:
        values["residency"] = _given(_lists(asdict(pool.residency)))
        values["fork_server"] = pool.fork_server
        values["sleep"] = pool.sleep
    if pool.strategy is Strategy.MODEL_MESH:
        values["awake"] = pool.awake
    return _given(values)


def _range(most: int, scaling: Scaling) -> dict[str, Any]:
    """Give a range of replicas; requests are held only where there may be none."""
    return {"min": scaling.least, "max": most} | ({} if scaling.least else {"hold_s": scaling.hold_s})


def gateway_values(fleet: Fleet, key_variables: Mapping[str, str]) -> dict[str, Any]:
    """Give what a file says of the gateway."""
    values = asdict(fleet.gateway)
    hashes = values.pop("operator_key_hashes")
    scheduler = values.pop("scheduler")
    proxies = values.pop("trusted_proxies")
    guards = {
        name: _given({**guard, "on_failure": guard["on_failure"].value})
        for name, guard in values.pop("guards").items()
    }
    scheduler["max_queued_mib"] = scheduler.pop("max_queued_bytes") / 2**20
    return {
        "operator_keys": _keys(hashes, key_variables),
        "metrics_access": values.pop("metrics_access").value,
        "max_body_mib": values.pop("max_body_bytes") / 2**20,
        "tracing": _given(values.pop("tracing")),
        "batches": _batches(values.pop("batches")),
        **_given(values),
        "scheduler": scheduler,
        **({"guards": guards} if guards else {}),
        **({} if proxies is None else {"trusted_proxies": _given(_lists(proxies))}),
    }


def _batches(values: dict[str, Any]) -> dict[str, Any]:
    variable = values.pop("key_variable")
    values["max_file_mib"] = values.pop("max_file_bytes") / 2**20
    values["max_tenant_gib"] = values.pop("max_tenant_bytes") / 2**30
    return _given({**values, "key": None if variable is None else {"env": variable}})


def state_values(state: StateSettings) -> dict[str, Any]:
    """Give what a file says of the state."""
    variable = state.database_variable
    values = {
        "folder": state.folder,
        "database": state.database if variable is None else {"env": variable},
        "store_gib": None if state.store_bytes is None else state.store_bytes / 2**30,
        "max_adapter_mib": state.max_adapter_bytes / 2**20,
        "model_store_gib": None if state.model_store_bytes is None else state.model_store_bytes / 2**30,
        "max_model_gib": state.max_model_bytes / 2**30,
        "keep_versions": state.keep_versions,
    }
    return _given(values)


def _lists(value: Any) -> Any:
    """Turn tuples into lists, which YAML can write."""
    if isinstance(value, dict):
        return {key: _lists(each) for key, each in value.items()}
    return [_lists(each) for each in value] if isinstance(value, tuple) else value


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out None: the file omits such keys."""
    return {key: value for key, value in values.items() if value is not None}


def _tenant_keys(tenant: Tenant, variables: Mapping[str, str]) -> list[dict[str, Any]]:
    ordered = sorted(tenant.key_hashes)
    return [
        key
        | ({"name": tenant.key_names[digest]} if digest in tenant.key_names else {})
        | _given(asdict(tenant.key_limits.get(digest, NO_LIMITS)))
        for digest, key in zip(ordered, _keys(ordered, variables), strict=True)
    ]


def _keys(hashes: Iterable[str], variables: Mapping[str, str]) -> list[dict[str, str]]:
    return [
        {"env": variables[digest]} if digest in variables else {"sha256": digest} for digest in sorted(hashes)
    ]

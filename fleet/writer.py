"""Writes a fleet as YAML that loads as the same fleet. Pure.

Keys are written as their hashes, or as the environment variables they came from; never as themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import yaml

from fleet.entries import entry_of
from fleet.price_entries import written_prices
from fleet.types import Adapter, BaseModel, Fleet, Pool, StateSettings, Tenant


def write_fleet(fleet: Fleet, *, key_variables: Mapping[str, str]) -> str:
    """Write a fleet as YAML; `key_variables` maps a key's hash to the variable that holds the key.

    A database whose URL came from a variable is written as that variable.
    """
    values: dict[str, Any] = {
        "base_models": {name: _base_model(model) for name, model in fleet.base_models.items()},
        "adapters": {name: _adapter(adapter) for name, adapter in fleet.adapters.items()},
        "tenants": {name: _tenant(tenant, key_variables) for name, tenant in fleet.tenants.items()},
        "pools": {name: _pool(pool) for name, pool in fleet.pools.items()},
        "gateway": _gateway(fleet, key_variables),
        "state": _state(fleet.state),
        "usage": asdict(fleet.usage),
    }
    if fleet.prices is not None:
        values["prices"] = {"currency": fleet.prices.currency, "models": written_prices(fleet.prices.models)}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110)


def _base_model(model: BaseModel) -> dict[str, Any]:
    values = asdict(model)
    del values["name"]
    cache_bytes = values.pop("kv_cache_bytes")
    values["kv_cache_gib"] = None if cache_bytes is None else cache_bytes / 2**30
    values["vllm_args"] = list(model.vllm_args)
    return _given(values)


def _adapter(adapter: Adapter) -> dict[str, Any]:
    values = asdict(adapter)
    del values["name"]
    return _given(values)


def _tenant(tenant: Tenant, key_variables: Mapping[str, str]) -> dict[str, Any]:
    return {"api_keys": _keys(tenant.key_hashes, key_variables), **entry_of(tenant)}


def _pool(pool: Pool) -> dict[str, Any]:
    values = {
        "strategy": pool.strategy.value,
        "base_models": list(pool.base_models),
        "replicas": pool.replicas,
        "devices": list(pool.devices),
        "tenants": list(pool.tenants),
        "slo": _given(asdict(pool.slo)),
        "hedge_after_s": pool.hedge_after_s,
    }
    return _given(values)


def _gateway(fleet: Fleet, key_variables: Mapping[str, str]) -> dict[str, Any]:
    values = asdict(fleet.gateway)
    hashes = values.pop("operator_key_hashes")
    scheduler = values.pop("scheduler")
    proxies = values.pop("trusted_proxies")
    scheduler["max_queued_mib"] = scheduler.pop("max_queued_bytes") / 2**20
    return {
        "operator_keys": _keys(hashes, key_variables),
        "metrics_access": values.pop("metrics_access").value,
        "max_body_mib": values.pop("max_body_bytes") / 2**20,
        "tracing": _given(values.pop("tracing")),
        **values,
        "scheduler": scheduler,
        **({} if proxies is None else {"trusted_proxies": _given(_lists(proxies))}),
    }


def _state(state: StateSettings) -> dict[str, Any]:
    variable = state.database_variable
    values = {
        "folder": state.folder,
        "database": state.database if variable is None else {"env": variable},
        "store_gib": None if state.store_bytes is None else state.store_bytes / 2**30,
        "max_adapter_mib": state.max_adapter_bytes / 2**20,
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


def _keys(hashes: Iterable[str], variables: Mapping[str, str]) -> list[dict[str, str]]:
    return [
        {"env": variables[digest]} if digest in variables else {"sha256": digest} for digest in sorted(hashes)
    ]

"""Writes a fleet as YAML that loads as the same fleet. Pure.

Keys are written as their hashes, or as the environment variables they came from; never as themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import yaml

from fleet.types import Fleet
from fleet.values import (
    adapter_values,
    base_model_values,
    gateway_values,
    pool_values,
    prices_values,
    state_values,
    tenant_values,
)


def write_fleet(fleet: Fleet, *, key_variables: Mapping[str, str]) -> str:
    """Write a fleet as YAML; `key_variables` maps a key's hash to the variable that holds the key.

    A database whose URL came from a variable is written as that variable.
    """
    values: dict[str, Any] = {
        "base_models": {name: base_model_values(model) for name, model in fleet.base_models.items()},
        "adapters": {name: adapter_values(adapter) for name, adapter in fleet.adapters.items()},
        "tenants": {name: tenant_values(tenant, key_variables) for name, tenant in fleet.tenants.items()},
        "pools": {name: pool_values(pool) for name, pool in fleet.pools.items()},
        "gateway": gateway_values(fleet, key_variables),
        "state": state_values(fleet.state),
        "usage": asdict(fleet.usage),
    }
    if fleet.prices is not None:
        values["prices"] = {"currency": fleet.prices.currency, "models": prices_values(fleet.prices.models)}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110)

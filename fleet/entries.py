"""A tenant as an entry of fleet.yaml, whole and value by value; and a base model. Pure.

A value's path is its keys joined by a dot, such as `weight`, `caps.max_queued`, `models.support`. Only the
first dot divides: an alias may have dots of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from fleet import schema
from fleet.content import Media
from fleet.price_entries import own_prices_of
from fleet.types import (
    NO_LIMITS,
    BaseModel,
    Budget,
    Caps,
    KeyLimits,
    MediaTokens,
    RequestLimits,
    Tenant,
)
from fleet.values import tenant_values

NESTED = ("models", "caps", "budget", "request_limits")  # keys whose values are set one by one
_INSTEAD = {  # a budget is in one of the two
    "budget.monthly_tokens": "budget.monthly_cost",
    "budget.monthly_cost": "budget.monthly_tokens",
}
CPU_LORAS_PER_SLOT = 4  # adapters in host memory for each slot, where a fleet file sets no number
POOLS = "pools"  # stands in the entries of pools; a tenant's values name it beside its own keys


def base_model_from(name: str, section: schema.BaseModelSection, source: str) -> BaseModel:
    """Turn a checked entry into the base model whose weights are at `source`."""
    cpu_loras = section.max_cpu_loras
    return BaseModel(
        name=name,
        source=source,
        revision=section.revision,
        dtype=section.dtype,
        max_model_len=section.max_model_len,
        max_num_seqs=section.max_num_seqs,
        max_loras=section.max_loras,
        max_lora_rank=section.max_lora_rank,
        max_cpu_loras=section.max_loras * CPU_LORAS_PER_SLOT if cpu_loras is None else cpu_loras,
        tensor_parallel_size=section.tensor_parallel_size,
        gpu_memory_utilization=section.gpu_memory_utilization,
        kv_cache_bytes=None if section.kv_cache_gib is None else round(section.kv_cache_gib * 2**30),
        media_tokens=MediaTokens(**section.media_tokens.model_dump()),
        request_limits=RequestLimits(**section.request_limits.model_dump()),
        media=Media(**section.media.model_dump()),
        vllm_args=section.vllm_args,
        sha256=section.sha256,
    )


def tenant_of(name: str, section: schema.TenantSection, key_hashes: Iterable[str]) -> Tenant:
    """Turn a checked entry into the tenant. The hashes are those of its keys, in their order."""
    keys = dict(zip(key_hashes, section.api_keys, strict=True))
    limits = {digest: _key_limits(key) for digest, key in keys.items()}
    default = section.default_model
    if "default_model" not in section.model_fields_set and len(section.models) == 1:
        default = next(iter(section.models))
    return Tenant(
        name=name,
        key_hashes=frozenset(keys),
        models=section.meanings,
        fallbacks={alias: model.fallback for alias, model in section.models.items() if model.fallback},
        default_model=default,
        band=section.priority,
        weight=section.weight,
        caps=Caps(**section.caps.model_dump()),
        isolation=section.isolation,
        adapter_sources=section.adapter_sources,
        budget=None if section.budget is None else Budget(**section.budget.model_dump()),
        request_limits=section.request_limits.model_dump(exclude_unset=True),
        key_limits={digest: found for digest, found in limits.items() if found != NO_LIMITS},
        key_names={digest: key.name for digest, key in keys.items() if key.name is not None},
        prices=own_prices_of(section.prices),
        suspended=section.suspended,
    )


def _key_limits(section: schema.TenantKeySection) -> KeyLimits:
    return KeyLimits(**section.model_dump(include={field.name for field in fields(KeyLimits)}))


def entry_of(tenant: Tenant) -> dict[str, Any]:
    """Write a tenant as an entry, without its keys."""
    values = tenant_values(tenant, {})
    del values["api_keys"]
    return values


def flat(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry's values by their paths."""
    values: dict[str, Any] = {}
    for key, value in entry.items():
        if key in NESTED and isinstance(value, Mapping):
            values |= {f"{key}.{inner}": each for inner, each in value.items()}
        else:
            values[key] = value
    return values


def meaning_of(model: Any) -> str:
    """Return what an alias stands for, as `models` has it: a name, or {model, fallback}."""
    return str(model["model"] if isinstance(model, Mapping) else model)


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry that has these values. An alias whose value is null is left out."""
    entry: dict[str, Any] = {}
    for path, value in values.items():
        key, _, inner = path.partition(".")
        if not inner:
            entry[key] = value
        elif key != "models" or value is not None:
            entry.setdefault(key, {})[inner] = value
    return entry


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return values of which those above win. A budget that is null takes all of the budget below away."""
    result = dict(below)
    for path, value in above.items():
        key, _, inner = path.partition(".")
        if not inner and key in NESTED:
            result = {p: v for p, v in result.items() if p.partition(".")[0] != key}
        elif inner:
            result.pop(key, None)
            result.pop(_INSTEAD.get(path, ""), None)
        result[path] = value
    return result


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return, by path, what a value was and is now; null: there is none."""
    paths = dict.fromkeys((*before, *after))
    found = ((path, before.get(path), after.get(path)) for path in paths)
    return {path: (was, now) for path, was, now in found if was != now}

"""Which adapters would another fleet leave without an engine that can hold them? Pure."""

from __future__ import annotations

from collections.abc import Iterable

from adapters.states import VersionState
from fleet.types import Fleet
from routing.catalog.entries import AdapterEntry


def why_unfit(entries: Iterable[AdapterEntry], before: Fleet, after: Fleet) -> list[str]:
    """Say for each adapter that has a place in one fleet why it has none in the other; empty: all have."""
    reasons = []
    for entry in entries:
        reason = _why(entry, after)
        if reason and not _why(entry, before):  # else it is no news
            reasons.append(f"adapter {entry.key}: {reason}")
    return sorted(reasons)


def _why(entry: AdapterEntry, fleet: Fleet) -> str:
    name = entry.base_model
    if entry.declared:
        declared = fleet.adapters.get(entry.key.name)
        if declared is None:
            return ""  # it is retired together with the declaration
        name = declared.base_model
    tenant = entry.key.tenant
    if entry.is_retired or (tenant is not None and tenant not in fleet.tenants):
        return ""  # nobody calls it
    model = fleet.base_models.get(name)
    if model is None:
        return f"its base model `{name}` would be removed; retire it first"
    if not model.serves_adapters:
        return f"base model `{name}` would have no slots; retire it first"
    rank = _rank(entry)
    if rank > model.max_lora_rank:
        return f"it has rank {rank}, and max_lora_rank of `{name}` would be {model.max_lora_rank}"
    if entry.rollout is not None and not _has_pool(entry, name, fleet):
        candidate = entry.rollout.candidate
        return f"version {candidate} is being rolled out, and no pool would serve it; roll it back first"
    return ""


def _rank(entry: AdapterEntry) -> int:
    """Return the largest rank of the versions that may answer; 0 where none may."""
    ranks = (version.rank or 0 for version in entry.versions if version.state is VersionState.READY)
    return max(ranks, default=0)


def _has_pool(entry: AdapterEntry, base_model: str, fleet: Fleet) -> bool:
    """Whether a pool serves the base model to somebody who may call the adapter."""
    members = {
        tenant
        for pool in fleet.pools.values()
        if base_model in pool.base_models
        for tenant in pool.tenants
        if tenant in fleet.tenants
    }
    if entry.key.tenant is not None:
        return entry.key.tenant in members
    return any(entry.key.name in fleet.tenants[tenant].models.values() for tenant in members)

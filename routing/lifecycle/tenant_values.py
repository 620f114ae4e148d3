"""The values of a tenant: what a new one gets, and what each comes from. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleet.changes import Amended, values_of
from fleet.entries import POOLS, entry_of, flat, meaning_of, overlaid
from fleet.sharing import base_model_of
from fleet.types import Fleet, Isolation, Tenant
from routing.lifecycle.tenant_ports import ToldValue, ValueSource

DEFAULTS = flat(entry_of(Tenant("", frozenset(), {})))
_MODELS = "models."


def copied(fleet: Fleet, like: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return another tenant's settings below these values: no key, nothing used, and no adapter of it.

    Fallbacks are not copied. Where no model is left, it gets the base models that the other one uses, under
    their own names.
    """
    theirs = values_of(fleet, like)
    models = {path: meaning_of(model) for path, model in theirs.items() if path.startswith(_MODELS)}
    own = {path: name for path, name in models.items() if name in fleet.base_models}
    if not own and not any(path.startswith(_MODELS) for path in values):
        own = {f"{_MODELS}{base}": base for base in (base_model_of(fleet, m) for m in models.values())}
    return overlaid(_settings(theirs, models, own), values)


def _settings(theirs: Mapping[str, Any], models: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return all but the models that are left out; a default among those is left out as well."""
    default = f"{_MODELS}{theirs.get('default_model')}"
    left_out = {*models, "suspended", *(() if default in own else ("default_model",))}
    kept = {path: value for path, value in theirs.items() if path not in left_out}
    return {path: value for path, value in kept.items() if value != DEFAULTS.get(path)} | dict(own)


def with_pools(fleet: Fleet, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with the pools named, where there is no choice: one shared pool for a base model."""
    if POOLS in values:
        return dict(values)
    models = (value for path, value in values.items() if path.startswith(_MODELS) and value is not None)
    wanted = {base_model_of(fleet, meaning_of(model)) for model in models}
    dedicated = {t.name for t in fleet.tenants.values() if t.isolation is Isolation.DEDICATED}
    chosen = []
    for base_model in wanted:
        pools = [
            pool.name
            for pool in fleet.pools.values()
            if base_model in pool.base_models and dedicated.isdisjoint(pool.tenants)
        ]
        chosen += pools if len(pools) == 1 else []
    return {**values, POOLS: sorted(set(chosen))}


def told_values(amended: Amended, name: str) -> list[ToldValue]:
    """List a tenant's values in their order, each with what it comes from."""
    change = amended.changes.get(name)
    is_applied = change is not None and not change.removed and name not in amended.unfit
    set_here = change.values if change is not None and is_applied else {}
    apart = change is not None and change.apart
    declared = {} if apart else values_of(amended.declared, name)
    present = values_of(amended.fleet, name)
    told = []
    for path in dict.fromkeys((*present, *set_here)):
        value, below = present.get(path), declared.get(path)
        if path in set_here:
            here = set_here[path]
            told.append(ToldValue(path, value, ValueSource.RUN_TIME, here.at_s, here.by, below))
        elif path in declared and value != DEFAULTS.get(path):
            told.append(ToldValue(path, value, ValueSource.DECLARED))
        else:
            told.append(ToldValue(path, value, ValueSource.DEFAULT))
    return told

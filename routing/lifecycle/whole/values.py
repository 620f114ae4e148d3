"""May a whole model be added as it is asked for, or retired? Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleet.current import CurrentFleet
from fleet.held_models import base_model_of, why_unfit
from fleet.types import Fleet
from fleet.values import base_model_values
from routing.catalog.directory import Directory
from routing.catalog.models import ModelEntry
from routing.errors import Conflict, InvalidRequest, NotFound
from routing.lifecycle.ports import ModelPlace

_OF_WEIGHTS = frozenset({"source", "revision", "sha256"})


def entry_for(known: ModelEntry | None, name: str, place: ModelPlace, fleet: CurrentFleet) -> ModelEntry:
    """Return the model to which a version is added, new or known. Raises `Conflict` and `InvalidRequest`."""
    if known is None:
        return _new(name, place, fleet)
    if known.retiring:
        raise Conflict(
            f"The former model `{name}` is still being removed. Try again soon.", code="model_leaving"
        )
    if known.pool is None or name in fleet.declared.base_models:
        raise Conflict("This model is declared in fleet.yaml; change it there.", code="model_declared")
    if place.pool not in (None, known.pool):
        raise Conflict(
            f"`{name}` is in pool `{known.pool}`; retire it first, or take another name.", code="pool_differs"
        )
    if place.values or place.like:
        raise Conflict(
            f"`{name}` is there already; its settings were given with its first version.", code="model_exists"
        )
    return known


def _new(name: str, place: ModelPlace, fleet: CurrentFleet) -> ModelEntry:
    declared, pool = fleet.declared, place.pool
    possible = [each.name for each in declared.pools.values() if each.strategy.shares_hosts]
    if pool is None:
        if len(possible) != 1:
            raise InvalidRequest(
                f"Name the pool: {', '.join(possible) or 'none is of strategy model-mesh or swap'}.",
                param="pool",
                code="missing_required_parameter",
            )
        (pool,) = possible
    if name in declared.base_models:
        raise Conflict(f"`{name}` is a base model in fleet.yaml already.", code="model_declared")
    why = why_unfit(declared, fleet.now.pools, name, pool)
    if why is not None:
        raise InvalidRequest(f"`{name}` cannot be added: {why}.", param="pool", code="model_does_not_fit")
    if of_weights := sorted(_OF_WEIGHTS & place.values.keys()):
        raise InvalidRequest(
            f"Settings: {', '.join(of_weights)} go with a version.", param="settings", code="invalid_value"
        )
    values = {**_values_like(place.like, fleet.now), **place.values}
    try:
        base_model_of(name, values, "/unused")
    except ValueError as error:
        raise InvalidRequest(f"Settings: {error}.", param="settings", code="invalid_value") from None
    return ModelEntry(name, pool, values)


def _values_like(like: str | None, fleet: Fleet) -> Mapping[str, Any]:
    """Return the settings of another base model. Raises `NotFound`."""
    if like is None:
        return {}
    if like not in fleet.base_models:
        raise NotFound(f"There is no base model `{like}`.", code="base_model_not_found", param="like")
    values = base_model_values(fleet.base_models[like])
    return {key: value for key, value in values.items() if key not in _OF_WEIGHTS}


def require_unused(name: str, fleet: Fleet, directory: Directory) -> None:
    """Raise `Conflict` where tenants may call a model, or have adapters of it."""
    callers = sorted(tenant.name for tenant in fleet.tenants.values() if name in tenant.models.values())
    owners = sorted(
        {
            str(entry.key)
            for entry in directory.adapters()
            if entry.base_model == name and not entry.is_retired
        }
    )
    told = [f"tenants may call it: {', '.join(callers)}"] if callers else []
    told += [f"adapters are of it: {', '.join(owners)}"] if owners else []
    if told:
        raise Conflict(
            f"`{name}` is in use; {'; '.join(told)}. Take it from them first (`tenantry tenants set`, "
            "`tenantry adapters retire`).",
            code="model_in_use",
        )

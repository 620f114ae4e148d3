"""Whole models that the gateway holds, put into a declared fleet: added at run time, or fetched. Pure.

A model that is added at run time becomes a base model of its pool. What is declared under its name wins. One
that does not fit the declared fleet is kept and not served, until it fits again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from fleet import schema
from fleet.entries import base_model_from
from fleet.types import BaseModel, Fleet, Pool

DECLARED = "a base model of this name is declared"


@dataclass(frozen=True, slots=True)
class HeldModel:
    """A model of which the gateway has a version, or is to have one."""

    name: str
    pool: str | None  # of one that was added at run time; None: it is declared
    values: Mapping[str, Any]  # as an entry of `base_models` has them, its source left out; of the former
    folder: str | None  # of the version that answers; None: there is none yet
    source: str  # of that version, as a fleet file may name it


@dataclass(frozen=True, slots=True)
class Extended:
    """A declared fleet with the models in it."""

    fleet: Fleet
    unfit: Mapping[str, str]  # models that are not served -> why


def with_models(declared: Fleet, models: Iterable[HeldModel], *, as_told: bool = False) -> Extended:
    """Return the declared fleet with the models in it.

    Their sources are the folders of the versions that answer, or `as_told` what a fleet file would name.
    """
    base_models, pools, unfit = dict(declared.base_models), dict(declared.pools), {}
    for model in models:
        if model.pool is None:
            known = base_models.get(model.name)
            if known is not None and model.folder is not None and not as_told:
                base_models[model.name] = replace(known, source=model.folder, revision=None, sha256=None)
            continue
        why = why_unfit(declared, pools, model.name, model.pool)
        if why is not None:
            unfit[model.name] = why
        elif model.folder is not None:
            source = model.source if as_told else model.folder
            base_models[model.name] = base_model_of(model.name, model.values, source)
            pool = pools[model.pool]
            pools[model.pool] = replace(pool, base_models=(*pool.base_models, model.name))
    if base_models == declared.base_models and pools == declared.pools:
        return Extended(declared, unfit)
    return Extended(replace(declared, base_models=base_models, pools=pools), unfit)


def why_unfit(declared: Fleet, pools: Mapping[str, Pool], name: str, pool: str) -> str | None:
    """Say why a model that is added at run time cannot be a base model of a pool; None: it can."""
    found = pools.get(pool)
    if name in declared.base_models:
        return DECLARED
    if name in declared.adapters:
        return "an adapter of this name is declared: a request could mean either"
    if found is None:
        return f"there is no pool `{pool}`"
    if not found.strategy.shares_hosts:
        return f"pool `{pool}` is of strategy {found.strategy}; models are added to model-mesh and swap only"
    wanted = {f"{host.name}.{name}" for host in found.hosts}
    taken = {replica for other in pools.values() for replica, _ in other.replica_models}
    if wanted & taken:
        return f"a replica is called {min(wanted & taken)} already"
    return None


def base_model_of(name: str, values: Mapping[str, Any], source: str) -> BaseModel:
    """Make a base model of the values of an entry. Raises `ValueError`, which names each wrong one."""
    try:
        section = schema.BaseModelSection.model_validate({**values, "source": source})
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
        raise ValueError("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in found)) from None
    made = base_model_from(name, section, source)
    if made.kv_cache_bytes == 0:
        raise ValueError("kv_cache_gib: less than a byte")
    if made.max_cpu_loras < made.max_loras:
        raise ValueError("max_cpu_loras: less than max_loras")
    return made

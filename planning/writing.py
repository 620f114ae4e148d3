"""A plan as a fleet: what `check` passes and `apply` takes. Pure.

With a fleet of today, its tenants, adapters and settings stay, and pools and engines' settings change.
Without one, tenants are made as the demand names them, with keys from variables of the environment.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from fleet.mig import Mig
from fleet.types import Adapter, Fleet, GatewaySettings, Isolation, Pool, Strategy, Tenant
from planning.forecast import ALL
from planning.loads import Load
from planning.placing import Placed
from planning.pools import base_models_of, pool_of
from planning.units import OPEN, NoPlanError
from planning.values import Model


@dataclass(frozen=True, slots=True)
class Written:
    """A fleet, the variables that hold its keys, and what a person must still do."""

    fleet: Fleet
    key_variables: dict[str, str]
    todo: tuple[str, ...]


def fleet_of(placed: Sequence[Placed], models: Iterable[Model], today: Fleet | None) -> Written:
    """Return the fleet of a plan. Raises `NoPlanError` where a model's source is not known."""
    loads = [load for one in placed for load in one.sharing.loads]
    base_models = base_models_of([one.sharing for one in placed], today.base_models if today else None)
    missing = [name for name, model in base_models.items() if not model.source]
    if missing:
        raise NoPlanError(f"where `{missing[0]}` is, is not known: name a folder or a hub id as its `source`")
    adapters = _adapters(loads, {model.name: model for model in models}, today)
    variables: dict[str, str] = {}
    tenants = _tenants(loads, today, variables)
    todo: list[str] = []
    pools = {}
    for one in placed:
        pool = pool_of(one.sharing, one.name, _names(one.sharing.loads, tenants, today))
        pools[one.name] = _on_devices(pool, one, placed, todo)
    if today is not None:
        changed = replace(today, base_models=base_models, adapters=adapters, pools=pools)
        return Written(changed, {}, tuple(todo))
    gateway = GatewaySettings(operator_key_hashes=frozenset({_key("OPERATOR_API_KEY", variables)}))
    keys = sorted(variables.values())
    todo.append(f"set the keys: {', '.join(keys[:8])}{' ...' if len(keys) > 8 else ''}")
    return Written(Fleet(base_models, adapters, tenants, pools, gateway), variables, tuple(todo))


def _adapters(loads: Iterable[Load], known: Mapping[str, Model], today: Fleet | None) -> dict[str, Adapter]:
    found = dict(today.adapters) if today else {}
    for load in loads:
        for adapter in load.unit.adapters:
            if adapter.name not in found:
                found[adapter.name] = _adapter(known[adapter.name], load)
    return found


def _adapter(model: Model, load: Load) -> Adapter:
    if not model.source:
        raise NoPlanError(
            f"where `{model.name}` is, is not known: name a folder or an address as its `source`"
        )
    return Adapter(model.name, model.source, load.unit.base.name)


def _tenants(loads: Sequence[Load], today: Fleet | None, variables: dict[str, str]) -> dict[str, Tenant]:
    if today is not None:
        return dict(today.tenants)
    owned: dict[str, set[str]] = defaultdict(set)
    dedicated = set()
    for load in loads:
        for demand in load.unit.demands:
            for name in demand.tenants or (ALL,):
                owned[name].add(demand.model)
                if demand.isolation is Isolation.DEDICATED:
                    dedicated.add(name)
    return {
        name: Tenant(
            name,
            frozenset({_key(f"{re.sub('[^A-Z0-9]', '_', name.upper())}_API_KEY", variables)}),
            {model: model for model in sorted(names)},
            isolation=Isolation.DEDICATED if name in dedicated else Isolation.SHARED,
        )
        for name, names in sorted(owned.items())
    }


def _key(variable: str, variables: dict[str, str]) -> str:
    """Return what stands for the hash of a key that a variable will hold."""
    variable = variable if variable[0].isalpha() else f"T_{variable}"
    digest = hashlib.sha256(variable.encode()).hexdigest()
    variables[digest] = variable
    return digest


def _names(loads: Sequence[Load], tenants: Mapping[str, Tenant], today: Fleet | None) -> list[str]:
    """Return the tenants of a pool: who asks for a model of it, or may, and is of its circle."""
    named = {name for load in loads for demand in load.unit.demands for name in demand.tenants or (ALL,)}
    if today is not None and loads[0].unit.circle == OPEN:
        models = {model for load in loads for model in load.unit.models}
        named |= {name for name, one in tenants.items() if _may_join(one, models)}
    return [name for name in tenants if name in named]


def _may_join(tenant: Tenant, models: Set[str]) -> bool:
    return tenant.isolation is not Isolation.DEDICATED and bool(models & {*tenant.models.values()})


def _on_devices(pool: Pool, one: Placed, placed: Sequence[Placed], todo: list[str]) -> Pool:
    """Pin a pool's hosts, where one machine has all its devices."""
    machine = one.sharing.machine
    if one.sharing.strategy is Strategy.MIG:
        return _on_slices(pool, one, placed, todo)
    most = max((number for place in one.places for number in place.devices), default=0)
    if most >= machine.devices:
        has = f"{machine.devices} x {machine.device.kind}"
        note = f"more devices than one machine has ({has}): say where hosts run"
        todo += [] if note in todo else [note]
        return pool
    return replace(pool, devices=tuple(",".join(map(str, place.devices)) for place in one.places))


def _on_slices(pool: Pool, one: Placed, placed: Sequence[Placed], todo: list[str]) -> Pool:
    """Name slices by device and profile; by UUIDs to be filled in where two pools have such of one device."""
    mine = {(place.devices[0], place.profile) for place in one.places}
    others = {
        (place.devices[0], place.profile)
        for other in placed
        if other is not one
        for place in other.places
        if place.profile
    }
    if len(mine) == 1 and not mine & others:
        (gpu, profile), *_ = mine
        return replace(pool, mig=Mig(str(gpu), profile, len(one.places)))
    note = "make the slices (`tenantry mig plan`), then put their UUIDs (`tenantry devices`) for MIG-gpu..."
    todo += [] if note in todo else [note]
    uuids = tuple(f"MIG-gpu{place.devices[0]}-{place.profile}-at-{place.start}" for place in one.places)
    return replace(pool, devices=uuids)

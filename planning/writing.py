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

from fleet.mig import UUID_PREFIX, Mig
from fleet.types import Adapter, Fleet, GatewaySettings, Isolation, Pool, Strategy, Tenant
from planning.forecast import ALL
from planning.loads import Load
from planning.naming import names_for, renamed, unique
from planning.placing import Placed
from planning.pools import base_models_of, pool_of
from planning.units import OPEN, NoPlanError
from planning.values import Model
from planning.words import listed


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
    tenants = dict(today.tenants) if today is not None else _tenants(loads)
    todo: list[str] = []
    pools = {}
    for one in placed:
        pool = pool_of(one.sharing, one.name, _names(one.sharing.loads, tenants, today))
        todo += _objectives(pool, loads=one.sharing.loads)
        pools[one.name] = _on_devices(pool, one, placed, todo)
    models_as = names_for([*base_models, *adapters], fallback="model")
    tenants_as = names_for(tenants, fallback="tenant")
    made = renamed(Fleet(base_models, adapters, tenants, pools), models_as, tenants_as)
    variables: dict[str, str] = {}
    if today is not None:
        made = replace(
            today,
            base_models=made.base_models,
            adapters=made.adapters,
            tenants=made.tenants,
            pools=made.pools,
        )
        todo += _without_a_name(made, today)
    else:
        made, variables = _with_keys(made)
        keys = sorted(variables.values())
        todo.append(f"set the keys: {', '.join(keys[:8])}{' ...' if len(keys) > 8 else ''}")
    todo += _told_names(models_as, tenants_as)
    return Written(made, variables, tuple(todo))


def _adapters(loads: Iterable[Load], known: Mapping[str, Model], today: Fleet | None) -> dict[str, Adapter]:
    found = dict(today.adapters) if today else {}
    for load in loads:
        for adapter in load.unit.adapters:
            if adapter.name not in found and not _is_added(adapter, today):
                found[adapter.name] = _adapter(known[adapter.name], load)
    return found


def _is_added(adapter: Model, today: Fleet | None) -> bool:
    """Whether the gateway keeps an adapter itself, since it was added at run time."""
    return today is not None and not adapter.source and adapter.name.partition("/")[0] in today.tenants


def _adapter(model: Model, load: Load) -> Adapter:
    if not model.source:
        raise NoPlanError(
            f"where `{model.name}` is, is not known: name a folder or an address as its `source`"
        )
    return Adapter(model.name, model.source, load.unit.base.name)


def _tenants(loads: Sequence[Load]) -> dict[str, Tenant]:
    """Return the tenants that ask for something, without keys."""
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
            frozenset(),
            {model: model for model in sorted(names)},
            isolation=Isolation.DEDICATED if name in dedicated else Isolation.SHARED,
        )
        for name, names in sorted(owned.items())
    }


def _with_keys(fleet: Fleet) -> tuple[Fleet, dict[str, str]]:
    """Return the fleet with a key for each tenant and the operator, and the variables that will hold them."""
    stems = [re.sub("[^A-Z0-9]", "_", name.upper()) for name in fleet.tenants]
    stems = [stem if stem[0].isalpha() else f"T_{stem}" for stem in stems]
    stems = ["OPERATOR", *unique(stems, ("OPERATOR",), mark="_")]
    variables = [f"{stem}_API_KEY" for stem in stems]
    digests = [hashlib.sha256(variable.encode()).hexdigest() for variable in variables]  # stand for the keys'
    tenants = {
        name: replace(one, key_hashes=frozenset({digest}))
        for (name, one), digest in zip(fleet.tenants.items(), digests[1:], strict=True)
    }
    gateway = GatewaySettings(operator_key_hashes=frozenset({digests[0]}))
    return replace(fleet, tenants=tenants, gateway=gateway), dict(zip(digests, variables, strict=True))


def _without_a_name(made: Fleet, today: Fleet) -> list[str]:
    """Say which models are new that no tenant can ask for yet."""
    named = {model for tenant in made.tenants.values() for model in tenant.models.values()}
    carrying = {adapter.base_model for adapter in made.adapters.values()}
    new = {*made.adapters, *made.base_models} - {*today.adapters, *today.base_models}
    nameless = sorted(new - named - carrying)
    return [f"no tenant has a name yet for {listed(nameless)}"] if nameless else []


def _objectives(pool: Pool, loads: Iterable[Load]) -> list[str]:
    """Say whose objective is shorter than its pool's, since a pool has one."""
    has = pool.slo.ttft_s
    shorter = [
        f"`{one.model}` {one.ttft_s:g} s"
        for load in loads
        for one in load.unit.demands
        if one.ttft_s is not None and (has is None or one.ttft_s < has)
    ]
    if not shorter:
        return []
    what = "none, since not all of its models have one" if has is None else f"{has:g} s"
    return [f"a pool has one objective, `{pool.name}` has {what}: shorter are {listed(shorter)}"]


def _told_names(*names: Mapping[str, str]) -> list[str]:
    """Say which names a fleet does not take, and what stands for them."""
    changed = [f"`{old}` is `{new}`" for each in names for old, new in each.items() if old != new]
    return [f"a fleet does not take all names: {listed(changed)}"] if changed else []


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
    """Pin a pool's hosts, where one machine has all devices of the plan."""
    machine = one.sharing.machine
    if one.sharing.strategy is Strategy.MIG:
        return _on_slices(pool, one, placed, todo)
    if "/" in machine.device.kind:
        stem = f"{UUID_PREFIX}{_slug(machine.device.kind)}"
        note = f"put the UUIDs of your slices (`tenantry devices`) for {stem}..."
        todo += [] if note in todo else [note]
        return replace(pool, devices=tuple(f"{stem}-{place.devices[0]}" for place in one.places))
    most = max((number for place in one.places for number in place.devices), default=0)
    kinds = _kinds(placed)
    if most >= machine.devices or len(kinds) > 1:
        has = f"{machine.devices} x {machine.device.kind}"
        note = f"more devices than one machine has ({has}): say where hosts run"
        if len(kinds) > 1:
            note = f"devices of several kinds ({', '.join(kinds)}): say where hosts run"
        todo += [] if note in todo else [note]
        return pool
    return replace(pool, devices=tuple(",".join(map(str, place.devices)) for place in one.places))


def _on_slices(pool: Pool, one: Placed, placed: Sequence[Placed], todo: list[str]) -> Pool:
    """Name slices by device and profile; by UUIDs to be filled in where that is not enough.

    It is not where two pools have slices of one profile on one device, or devices are of several kinds.
    """
    mine = {(place.devices[0], place.profile) for place in one.places}
    others = {
        (place.devices[0], place.profile)
        for other in placed
        if other is not one
        for place in other.places
        if place.profile
    }
    several = len(_kinds(placed)) > 1
    if len(mine) == 1 and not mine & others and not several:
        (gpu, profile), *_ = mine
        return replace(pool, mig=Mig(str(gpu), profile, len(one.places)))
    gpu_of = f"{_slug(one.sharing.machine.device.kind)}-gpu" if several else "gpu"
    note = (
        "make the slices (`tenantry mig plan`), then put their UUIDs (`tenantry devices`) for "
        f"{UUID_PREFIX}{gpu_of}..."
    )
    todo += [] if note in todo else [note]
    uuids = tuple(
        f"{UUID_PREFIX}{gpu_of}{place.devices[0]}-{place.profile}-at-{place.start}" for place in one.places
    )
    return replace(pool, devices=uuids)


def _kinds(placed: Iterable[Placed]) -> list[str]:
    return sorted({place.kind for one in placed for place in one.places})


def _slug(kind: str) -> str:
    return kind.replace("/", "-")

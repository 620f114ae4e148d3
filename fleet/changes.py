"""Changes of tenants at run time, on top of the fleet that is declared. Pure.

What was set at run time wins over what is declared, value by value. A tenant that was removed at run time
stays removed, whatever is declared. A change that does not fit the declared fleet is kept and not applied,
but for one thing: a suspended tenant stays suspended. The rules are those of fleet files.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from pydantic import ValidationError

from fleet import schema
from fleet.entries import POOLS, entry_of, flat, nested, overlaid, tenant_of
from fleet.explain import explain, without_echoes
from fleet.fields import ModelSection
from fleet.price_rules import check_prices
from fleet.prices import PriceSection, PricesSection
from fleet.problems import Findings, did_you_mean
from fleet.references import Known, check_references
from fleet.rules import check_rules
from fleet.settings import GatewaySection, StateSection, UsageSection
from fleet.tenant_change import SUSPENDED, SetValue, TenantChange
from fleet.types import Fleet, Isolation, Pool, Tenant

NOT_DECLARED = "no tenant of this name is declared any more"
_PRICE = PriceSection.model_construct(input=0, output=0)  # whichever it is
_GATEWAY, _STATE, _USAGE = GatewaySection(), StateSection(), UsageSection()  # were checked already
_NEIGHBOURS = 3  # of a dedicated tenant, named in its fault


@dataclass(frozen=True, slots=True)
class Amended:
    """A declared fleet with changes on top."""

    declared: Fleet
    changes: Mapping[str, TenantChange]  # by tenant
    fleet: Fleet  # the one that counts
    unfit: Mapping[str, tuple[str, ...]]  # tenants whose change is not applied -> why

    def with_change(self, change: TenantChange) -> Amended:
        """Return the fleet with the change of one more tenant, or another change of the same."""
        changes = {**self.changes, change.tenant: change}
        if self.unfit:  # it may have made room for others
            return with_changes(self.declared, changes)
        placed = _Places(self.declared, self.fleet)
        problems = placed.put(change)
        if problems:
            return with_changes(self.declared, changes)
        return Amended(self.declared, changes, placed.fleet(), {})


def with_changes(declared: Fleet, changes: Mapping[str, TenantChange]) -> Amended:
    """Return the declared fleet with changes on top, in the order in which they are given."""
    unfit: dict[str, tuple[str, ...]] = {}
    while True:
        places = _Places(declared, declared)
        for name, change in changes.items():
            places.place(_reduced(change) if name in unfit else change)
        found = {
            name: problems
            for name, change in changes.items()
            if name not in unfit and (problems := places.take(change))
        }
        if not found:
            for name in unfit:
                places.take(_reduced(changes[name]))
            return Amended(declared, changes, places.fleet(), unfit)
        unfit |= found


def values_of(fleet: Fleet, tenant: str) -> dict[str, Any]:
    """Return a tenant's values by their paths; none where the fleet does not have it."""
    found = fleet.tenants.get(tenant)
    if found is None:
        return {}
    pools = [pool.name for pool in fleet.pools.values() if tenant in pool.tenants]
    return flat(entry_of(found)) | {POOLS: pools}


def set_values(change: TenantChange, values: Mapping[str, Any], at_s: float, by: str) -> TenantChange:
    """Return the change with more values set."""
    stamped = {path: SetValue(value, at_s, by) for path, value in values.items()}
    return replace(change, values=overlaid(change.values, stamped))


def _reduced(change: TenantChange) -> TenantChange:
    """Return what is applied of a change that does not fit."""
    if change.apart:
        return replace(change, removed=True)
    kept = {SUSPENDED: change.values[SUSPENDED]} if change.is_suspended else {}
    return replace(change, admitted=False, values=kept)


class _Places:
    """The tenants of a fleet and their pools, while changes are put on them."""

    def __init__(self, declared: Fleet, start: Fleet) -> None:
        self._declared = declared
        self._start = start
        self._tenants = dict(start.tenants)
        self._members = {name: dict.fromkeys(pool.tenants) for name, pool in start.pools.items()}
        self._base_models = {
            model.name: schema.BaseModelSection.model_construct(
                source=model.source, max_loras=model.max_loras
            )
            for model in declared.base_models.values()
        }
        self._dedicated = {
            name for name, tenant in start.tenants.items() if tenant.isolation is Isolation.DEDICATED
        }

    def put(self, change: TenantChange) -> tuple[str, ...]:
        """Put one change on; returns why it does not fit."""
        self.place(change)
        return self.take(change)

    def place(self, change: TenantChange) -> None:
        """Put the tenant on its pools."""
        wanted = self._wanted(change)
        pools = () if wanted is None else wanted.get(POOLS) or ()
        for pool, members in self._members.items():
            if pool not in pools:
                members.pop(change.tenant, None)
            elif change.tenant not in members:
                members[change.tenant] = None
        is_dedicated = wanted is not None and wanted.get("isolation") == Isolation.DEDICATED
        (self._dedicated.add if is_dedicated else self._dedicated.discard)(change.tenant)

    def take(self, change: TenantChange) -> tuple[str, ...]:
        """Take the tenant as changed, where all are placed; returns why it does not fit."""
        wanted, name = self._wanted(change), change.tenant
        if wanted is None:
            self._tenants.pop(name, None)
            return () if change.removed or not change.values else (NOT_DECLARED,)
        declared = None if change.apart else self._declared.tenants.get(name)
        if not change.values and declared is not None:
            self._tenants[name] = replace(declared, generation=change.generation)
            return ()
        made = self._check(name, wanted)
        if not isinstance(made, Tenant):
            return made
        if declared is not None:
            made = _with_keys_of(declared, made)
        self._tenants[name] = replace(made, generation=change.generation)
        return ()

    def fleet(self) -> Fleet:
        """Return the fleet."""
        pools = {name: self._pool(pool) for name, pool in self._start.pools.items()}
        return replace(self._start, tenants=self._tenants, pools=pools)

    def _pool(self, pool: Pool) -> Pool:
        tenants = tuple(self._members[pool.name])
        return pool if tenants == pool.tenants else replace(pool, tenants=tenants)

    def _wanted(self, change: TenantChange) -> dict[str, Any] | None:
        """Return the values that the tenant is to have; None: there is to be no such tenant."""
        declared = {} if change.apart else values_of(self._declared, change.tenant)
        if change.removed or not (declared or change.admitted):
            return None
        return overlaid(declared, {path: each.value for path, each in change.values.items()})

    def _check(self, name: str, wanted: Mapping[str, Any]) -> Tenant | tuple[str, ...]:
        """Return the tenant, or every problem as `tenantry check` words it."""
        findings = Findings("")
        pools = wanted.get(POOLS, ())
        for index, pool in enumerate(pools):
            if pool not in self._members:
                hint = did_you_mean(pool, self._members)
                findings.error(("tenants", name, POOLS, index), f"no pool is called `{pool}`", hint)
        entry = nested({path: value for path, value in wanted.items() if path != POOLS})
        try:
            section = schema.TenantSection.model_validate({**entry, "api_keys": []})
        except ValidationError as error:
            for detail in without_echoes(error.errors(include_url=False)):
                detail["loc"] = ("tenants", name, *detail["loc"])
                explain(detail, findings)
            return _told(findings)
        tenant = tenant_of(name, section, ())
        unknown_pools, file = list(findings.errors), self._file(name, section)
        for whole in (False, True):
            findings.errors[:] = unknown_pools
            known = _known(file, self._declared, whole=whole)
            check_references(file, known, findings)
            check_rules(file, findings)
            check_prices(file, known, findings)
            if not findings.errors:
                return tenant
        return _told(findings)

    def _file(self, name: str, section: schema.TenantSection) -> schema.FleetFile:
        """Return as much of a fleet file as decides whether the tenant fits into it."""
        declared = self._declared
        named = {*section.meanings.values(), *(section.prices.models if section.prices else ())}
        adapters = {a: declared.adapters[a] for a in sorted(named) if a in declared.adapters}
        pools = {pool: self._section(pool, name) for pool in self._members}
        dedicated = {
            other: schema.TenantSection.model_construct(
                api_keys=(),
                models={a: ModelSection(model=m) for a, m in self._tenants[other].models.items()},
                isolation=Isolation.DEDICATED,
            )
            for pool in pools.values()
            for other in pool.tenants
            if other != name and other in self._dedicated and other in self._tenants
        }
        return schema.FleetFile.model_construct(
            base_models=self._base_models,
            adapters={
                a.name: schema.AdapterSection.model_construct(source=a.source, base_model=a.base_model)
                for a in adapters.values()
            },
            tenants={name: section, **dedicated},
            pools=pools,
            prices=self._prices({*declared.base_models, *adapters}),
            gateway=_GATEWAY,
            state=_STATE,
            usage=_USAGE,
        )

    def _prices(self, models: Collection[str]) -> PricesSection | None:
        """Return which of these models have a price."""
        prices = self._declared.prices
        if prices is None:
            return None
        priced = {name: _PRICE for name in prices.models if name in models}
        return PricesSection.model_construct(currency=prices.currency, models=priced)

    def _section(self, pool: str, tenant: str) -> schema.PoolSection:
        """Return a pool with those of its tenants that matter to this one."""
        members, found = self._members[pool], self._declared.pools[pool]
        named: list[str] = []
        if tenant in members:
            others = [other for other in self._dedicated if other in members and other != tenant]
            if tenant in self._dedicated:
                shared = (other for other in members if other not in self._dedicated)
                others += islice(shared, _NEIGHBOURS)
            named = [tenant, *others]
        return schema.PoolSection.model_construct(
            strategy=found.strategy, base_models=found.base_models, tenants=tuple(named)
        )


def _with_keys_of(declared: Tenant, made: Tenant) -> Tenant:
    return replace(
        made,
        key_hashes=declared.key_hashes,
        key_limits=declared.key_limits,
        key_names=declared.key_names,
    )


def _known(file: schema.FleetFile, declared: Fleet, *, whole: bool) -> Known:
    """Return the names that may be meant; the whole of them helps with suggestions only, and takes long."""
    tenants: Collection[str] = {name for pool in file.pools.values() for name in pool.tenants}
    adapters: Collection[str] = declared.adapters if whole else file.adapters
    names = {
        "base_models": declared.base_models,
        "adapters": adapters,
        "tenants": {*tenants, *file.tenants},
        "pools": declared.pools,
    }
    return Known(names)


def _told(findings: Findings) -> tuple[str, ...]:
    return tuple(
        f"{found.path}: {found.message}" + (f"; {found.remedy}" if found.remedy else "")
        for found in findings.errors
    )

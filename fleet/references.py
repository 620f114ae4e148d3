"""Checks that every name in a fleet file refers to exactly one thing. Pure; knows no file and no engine.

Looks at every model a tenant may use: it must be declared, and exactly one pool must serve it to that tenant.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from fleet.problems import Findings, KeyPath, did_you_mean
from fleet.schema import FleetFile, PoolSection, TenantSection
from fleet.types import Strategy

Names = Mapping[str, Iterable[str]]
_BASE_MODELS, _MODELS = ("base_models", "base model"), ("models", "adapter or base model")


class Known:
    """The names declared in each section, also those of parts that were refused."""

    def __init__(self, names: Names, unknown: Collection[str] = ()) -> None:
        """`unknown` are sections that cannot be read, so any name may be in them."""
        self.names = {section: frozenset(found) for section, found in names.items()}
        self.names["models"] = self.names["adapters"] | self.names["base_models"]
        self._unknown = {*unknown, *(["models"] if {"adapters", "base_models"} & {*unknown} else [])}

    def leads(self, section: str, name: str) -> bool:
        """Whether the section may declare the name."""
        return section in self._unknown or name in self.names[section]

    def check(self, path: KeyPath, name: str, what: tuple[str, str], findings: Findings) -> bool:
        """Whether the section may declare the name; otherwise that is a finding."""
        section, word = what
        if self.leads(section, name):
            return True
        hint = did_you_mean(name, self.names[section])
        findings.error(path, f"no {word} is called `{name}`", hint, hides=True)
        return False

    def has_whole(self, pools: Mapping[str, PoolSection]) -> bool:
        """Whether these are all declared pools, and all their names may be declared."""
        whole = "pools" not in self._unknown and self.names["pools"] == {*pools}
        return whole and all(map(self.is_whole, pools.values()))

    def is_whole(self, pool: PoolSection) -> bool:
        """Whether every name in a pool is declared; else it may be meant to hold or serve others."""
        tenants = all(self.leads("tenants", name) for name in pool.tenants)
        return tenants and all(self.leads("base_models", name) for name in pool.base_models)


class Reach:
    """The pools of each tenant, looked up once for a file of thousands."""

    def __init__(self, file: FleetFile, known: Known) -> None:
        self.all_pools = known.has_whole(file.pools)  # whether there can be no others
        self._pools: dict[str, dict[str, None]] = {}
        for name, pool in file.pools.items():
            for tenant in pool.tenants:
                self._pools.setdefault(tenant, {})[name] = None

    def pools_of(self, tenant: str) -> list[str]:
        """List the pools that list the tenant."""
        return list(self._pools.get(tenant, ()))


def check_references(file: FleetFile, known: Known, findings: Findings) -> None:
    """Check every name."""
    _check_names_once(known, findings)
    _check_adapters(file, known, findings)
    _check_pools(file, known, findings)
    reach = Reach(file, known)
    for name, tenant in file.tenants.items():
        _check_tenant(file, name, tenant, known, reach, findings)
    proxies = file.gateway.trusted_proxies
    for name in proxies.tenants if proxies is not None else ():
        known.check(("gateway", "trusted_proxies", "tenants", name), name, ("tenants", "tenant"), findings)
    for name in file.gateway.guards:
        known.check(("gateway", "guards", name), name, ("tenants", "tenant"), findings)
    _check_unused(file, known, findings)


def check_left_out(texts: Iterable[tuple[KeyPath, str]], known: Known, findings: Findings) -> None:
    """Check the names in parts that are refused for other reasons."""
    for path, text in texts:
        match path:
            case ("adapters", _, "base_model") | ("pools", _, "base_models", int()):
                known.check(path, text, _BASE_MODELS, findings)
            case ("pools", _, "tenants", int()):
                known.check(path, text, ("tenants", "tenant"), findings)
            case ("tenants", _, "models", str()) | ("tenants", _, "models", str(), "model"):
                known.check(path, text, _MODELS, findings)


def base_model_of(file: FleetFile, model: str) -> str | None:
    """Return the base model a model needs: its adapter's, or itself; None when it is neither."""
    if model in file.adapters:
        return file.adapters[model].base_model
    return model if model in file.base_models else None


def _check_names_once(known: Known, findings: Findings) -> None:
    for name in sorted(known.names["base_models"] & known.names["adapters"]):
        findings.error(
            ("adapters", name), f"`{name}` is a base model as well: a request could mean either", "rename one"
        )


def _check_adapters(file: FleetFile, known: Known, findings: Findings) -> None:
    for name, adapter in file.adapters.items():
        path = ("adapters", name, "base_model")
        if not known.check(path, adapter.base_model, _BASE_MODELS, findings):
            continue
        if adapter.base_model in file.base_models and not file.base_models[adapter.base_model].max_loras:
            findings.error(
                path,
                f"base model `{adapter.base_model}` has no adapter slots",
                f"set base_models.{adapter.base_model}.max_loras to 1 or more",
            )


def _check_pools(file: FleetFile, known: Known, findings: Findings) -> None:
    for name, pool in file.pools.items():
        for key, what in (("base_models", _BASE_MODELS), ("tenants", ("tenants", "tenant"))):
            seen: set[str] = set()
            for index, wanted in enumerate(getattr(pool, key)):
                path = ("pools", name, key, index)
                if known.check(path, wanted, what, findings) and wanted in seen:
                    findings.error(path, f"`{wanted}` is listed twice", "remove one")
                seen.add(wanted)


def _check_tenant(
    file: FleetFile,
    name: str,
    tenant: TenantSection,
    known: Known,
    reach: Reach,
    findings: Findings,
) -> None:
    _check_default_model(name, tenant, findings)
    _check_fallbacks(name, tenant, findings)
    meanings = tenant.meanings
    for alias, model in meanings.items():
        path = ("tenants", name, "models", alias)
        found = known.check(path, model, _MODELS, findings)
        if found and base_model_of(file, model) in file.base_models:
            _check_reachable(file, name, alias, reach, findings)
        if alias != model and alias in meanings.values():
            findings.error(
                path,
                f"the alias `{alias}` is also the name of a model this tenant may use",
                f"rename the alias: a request for `{alias}` could mean either",
            )


def _check_default_model(name: str, tenant: TenantSection, findings: Findings) -> None:
    default = tenant.default_model
    if default is not None and default not in tenant.models:
        findings.error(
            ("tenants", name, "default_model"),
            f"`{default}` is not one of this tenant's models",
            did_you_mean(default, tenant.models) or "name an alias under `models`",
        )


def _check_fallbacks(name: str, tenant: TenantSection, findings: Findings) -> None:
    """A fallback is another of the tenant's models, which its own pools serve, and has none itself."""
    meanings = tenant.meanings
    with_fallback = {section.model for section in tenant.models.values() if section.fallback is not None}
    for alias, section in tenant.models.items():
        if section.fallback is None:
            continue
        path = ("tenants", name, "models", alias, "fallback")
        meant = meanings.get(section.fallback, section.fallback)
        if meant not in meanings.values():
            findings.error(
                path,
                f"`{section.fallback}` is not one of this tenant's models",
                did_you_mean(section.fallback, meanings) or "name an alias under `models`",
            )
        elif meant == section.model:
            findings.error(path, f"`{alias}` is its own fallback", "name another model, or remove it")
        elif meant in with_fallback:
            findings.error(
                path,
                f"`{section.fallback}` has a fallback itself; there are neither chains nor cycles",
                f"remove one of the two, or name the last model of the chain for `{alias}`",
            )


def _check_reachable(file: FleetFile, tenant: str, alias: str, reach: Reach, findings: Findings) -> None:
    """Check that exactly one pool serves this model to this tenant, and that it can."""
    path, model = ("tenants", tenant, "models", alias), file.tenants[tenant].models[alias].model
    base_model = base_model_of(file, model)
    listed = reach.pools_of(tenant)
    pools = [name for name in listed if base_model in file.pools[name].base_models]
    if not pools and not reach.all_pools:
        return  # a pool that was refused for another reason may serve it
    if not listed:
        findings.error(path, f"tenant `{tenant}` is on no pool", f"add `{tenant}` to `tenants` of a pool")
    elif not pools:
        findings.error(
            path,
            f"no pool of tenant `{tenant}` holds base model `{base_model}` (its pools: {', '.join(listed)})",
            f"add `{tenant}` to `tenants` of a pool that holds `{base_model}`",
        )
    elif len(pools) > 1:
        findings.error(
            path,
            f"pools {' and '.join(f'`{pool}`' for pool in pools)} both serve `{model}` to this tenant",
            f"keep `{tenant}` on one of them, or declare the base model twice under two names",
        )
    elif model in file.adapters and file.pools[pools[0]].strategy is Strategy.REPLICA_PER_MODEL:
        findings.error(
            path,
            f"`{model}` is an adapter, and pool `{pools[0]}` serves none (strategy replica-per-model)",
            "use strategy multi-lora for that pool",
        )


def _check_unused(file: FleetFile, known: Known, findings: Findings) -> None:
    used = {model for tenant in file.tenants.values() for model in tenant.meanings.values()}
    for name in file.adapters:
        if name not in used:
            findings.warn(("adapters", name), "no tenant uses this adapter", "add it to `models` of a tenant")
    held = {base_model for pool in file.pools.values() for base_model in pool.base_models}
    for name in file.base_models:
        if name not in held:
            findings.warn(
                ("base_models", name), "no pool holds this base model", "add it to a pool, or remove it"
            )
    _check_served(file, known, findings)


def _check_served(file: FleetFile, known: Known, findings: Findings) -> None:
    """A pool's tenants have models there, and its base models have tenants."""
    for name, pool in file.pools.items():
        needed = {
            tenant: {base_model_of(file, model) for model in file.tenants[tenant].meanings.values()}
            for tenant in pool.tenants
            if tenant in file.tenants
        }
        if known.is_whole(pool):
            _check_tenants_of(name, pool, needed, known, findings)
        if len(needed) == len(pool.tenants):
            _check_base_models_of(name, pool, needed, findings)


def _check_tenants_of(
    name: str, pool: PoolSection, needed: Mapping[str, set[str | None]], known: Known, findings: Findings
) -> None:
    for index, tenant in enumerate(pool.tenants):
        bases = needed.get(tenant, {None})
        certain = all(base is not None and known.leads("base_models", base) for base in bases)
        if certain and not bases & set(pool.base_models):
            findings.error(
                ("pools", name, "tenants", index),
                f"tenant `{tenant}` has no model on this pool",
                f"remove it here, or give it a model of {', '.join(pool.base_models)}",
            )


def _check_base_models_of(
    name: str, pool: PoolSection, needed: Mapping[str, set[str | None]], findings: Findings
) -> None:
    used = {base_model for bases in needed.values() for base_model in bases}
    for index, base_model in enumerate(pool.base_models):
        if base_model not in used:
            findings.warn(
                ("pools", name, "base_models", index),
                f"no tenant of this pool uses `{base_model}`",
                "remove it",
            )

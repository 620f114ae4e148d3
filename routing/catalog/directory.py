"""Who is calling, and which target does the request's model name for this caller? Pure lookups.

Another tenant's name and an unknown name get the same answer: none.
"""

from __future__ import annotations

import hmac
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from fleet.current import CurrentFleet
from fleet.key_hash import hash_key
from fleet.money import price_of
from fleet.types import Budget, Fleet, KeyLimits, Tenant
from routing.catalog.declared import Declared, Identity, declared_hashes
from routing.catalog.entries import AdapterEntry, AdapterKey, Alias, ApiKey, KeyRole, Version
from routing.catalog.refusals import retired, why_unavailable
from routing.errors import RequestError
from routing.types import FallbackReason, Target


class Directory:
    """Looks up callers by key and targets by name. Adapters, keys and the fleet may change."""

    def __init__(self, fleet: CurrentFleet, *, local_only: frozenset[str] = frozenset()) -> None:
        """`local_only` are hashes of keys that only callers on this machine may use."""
        self._fleet = fleet
        self._local_only = local_only
        self._declared = fleet.derive(Declared)
        self._has_local_only = fleet.derive(lambda now: not local_only.isdisjoint(declared_hashes(now)))
        self._keys: dict[str, ApiKey] = {}  # by hash; keys made at run time
        self._adapters: dict[AdapterKey, AdapterEntry] = {}
        self._answering: dict[tuple[str, str], Target] = {}  # by tenant and name, where no split decides
        self._aliases: defaultdict[str, dict[str, Alias]] = defaultdict(dict)  # tenants' own
        self.rollouts: set[AdapterKey] = set()  # adapters with a split
        self._own: defaultdict[str, dict[str, AdapterKey]] = defaultdict(dict)  # tenants' adapters, by name
        self._key_budgets: Mapping[str, Budget] = {}
        self._key_limits: Mapping[str, KeyLimits | None] = {}
        self._has_new_keys = True  # since that was made
        fleet.follow(self._forget_derived)

    def _forget_derived(self, _: Fleet) -> None:
        self._answering.clear()
        self._has_new_keys = True

    def under(self, fleet: Fleet) -> Directory:
        """Return one with the same adapters, keys and aliases under another fleet: only to look."""
        other = Directory(CurrentFleet(fleet), local_only=self._local_only)
        other._keys, other._adapters, other.rollouts = self._keys, self._adapters, self.rollouts
        other._aliases, other._own = self._aliases, self._own
        return other

    @property
    def local_only(self) -> bool:
        """Whether there are keys that only callers on this machine may use."""
        return self._has_local_only.now

    # -- callers -------------------------------------------------------------------------------------------

    def identify(self, key: str, now_s: float) -> Identity | None:
        """Return a key's owner and role if it is valid at this Unix time. Its duration reveals nothing."""
        digest = hash_key(key)
        declared = self._declared.now.keys.get(digest)
        if declared is not None:
            return declared
        made = self._keys.get(digest)
        if made is None or not hmac.compare_digest(digest, made.sha256) or not made.is_valid(now_s):
            return None
        if made.tenant is not None and made.tenant not in self._fleet.now.tenants:
            return None  # a tenant that is not in the fleet any more
        return Identity(made.role, made.tenant, key=made.id, limits=made.limits)

    def is_local_only(self, key: str) -> bool:
        """Whether only callers on this machine may use the key."""
        return hash_key(key) in self._local_only

    def authenticate(self, key: str, now_s: float) -> tuple[Tenant, Identity] | None:
        """Return the tenant that may call its models with this key at this Unix time, and the identity."""
        identity = self.identify(key, now_s)
        if identity is None or identity.role is not KeyRole.INFERENCE or identity.tenant is None:
            return None
        return self._fleet.now.tenants[identity.tenant], identity

    def tenant(self, name: str) -> Tenant | None:
        """Return a tenant of the fleet."""
        return self._fleet.now.tenants.get(name)

    def keys(self) -> list[ApiKey]:
        """List the keys made at run time."""
        return list(self._keys.values())

    def drop_key(self, key: ApiKey) -> None:
        """Forget a key made at run time."""
        self._keys.pop(key.sha256, None)
        self._has_new_keys = True

    def put_key(self, key: ApiKey) -> None:
        """Add or replace a key made at run time; it is valid at once."""
        self._keys[key.sha256] = key
        self._has_new_keys = True

    def key_limits(self, key_id: str) -> KeyLimits | None:
        """Return the limits of a key by its id; None where it has none, or does not count any more."""
        self.key_budgets()
        return self._key_limits.get(key_id)

    def key_budgets(self) -> Mapping[str, Budget]:
        """Return the budgets of keys that have one, by the key's id; the same object until one changes."""
        if self._has_new_keys:
            limits = {key.id: key.limits for key in self._keys.values() if key.revoked_s is None}
            limits |= {identity.key: identity.limits for identity in self._declared.now.keys.values()}
            budgets = {
                key: Budget(own.monthly_tokens)
                for key, own in limits.items()
                if own is not None and own.monthly_tokens is not None
            }
            self._key_limits = limits
            self._key_budgets = self._key_budgets if budgets == self._key_budgets else budgets
            self._has_new_keys = False
        return self._key_budgets

    # -- adapters ------------------------------------------------------------------------------------------

    def adapters(self) -> list[AdapterEntry]:
        """List every adapter."""
        return list(self._adapters.values())

    def adapters_of(self, tenant: str) -> list[AdapterEntry]:
        """List a tenant's own adapters."""
        return [self._adapters[key] for key in self._own.get(tenant, {}).values()]

    def adapter(self, key: AdapterKey) -> AdapterEntry | None:
        """Return one adapter."""
        return self._adapters.get(key)

    def put(self, entry: AdapterEntry) -> None:
        """Add or replace an adapter; the next request sees it."""
        self._adapters[entry.key] = entry
        self._answering.clear()
        self.rollouts.discard(entry.key)
        if entry.rollout is not None:
            self.rollouts.add(entry.key)
        if entry.key.tenant is not None:
            self._own[entry.key.tenant][entry.key.name] = entry.key

    def put_version(self, version: Version) -> AdapterEntry:
        """Add or replace one version of a known adapter. Returns the adapter."""
        entry = self._adapters[version.adapter]
        others = (other for other in entry.versions if other.number != version.number)
        entry = replace(entry, versions=tuple(sorted((*others, version), key=lambda v: v.number)))
        self.put(entry)
        return entry

    def remove(self, key: AdapterKey) -> None:
        """Remove an adapter."""
        self._adapters.pop(key, None)
        self._answering.clear()
        self.rollouts.discard(key)
        if key.tenant is not None:
            self._own[key.tenant].pop(key.name, None)

    def is_taken(self, tenant: str, name: str) -> bool:
        """Whether the fleet gives the tenant this name, so that it can give it to nothing of its own."""
        return name in self._declared.now.names_of(tenant)

    # -- aliases -------------------------------------------------------------------------------------------

    def aliases(self, tenant: str) -> list[Alias]:
        """List a tenant's own aliases by name."""
        return [alias for _, alias in sorted(self._aliases.get(tenant, {}).items())]

    def alias(self, tenant: str, name: str) -> Alias | None:
        """Return one of a tenant's own aliases."""
        return self._aliases.get(tenant, {}).get(name)

    def put_alias(self, alias: Alias) -> None:
        """Add or replace an alias; the next request sees it."""
        self._aliases[alias.tenant][alias.alias] = alias
        self._answering.clear()

    def remove_alias(self, alias: Alias) -> None:
        """Remove an alias."""
        self._aliases[alias.tenant].pop(alias.alias, None)
        self._answering.clear()

    def remove_aliases(self, tenant: str) -> None:
        """Remove all of a tenant's own aliases."""
        self._aliases.pop(tenant, None)
        self._answering.clear()

    def users_of(self, entry: AdapterEntry) -> list[tuple[str, str]]:
        """List (tenant, pool) for each tenant that may call the adapter, with the pool of its base model."""
        key = entry.key
        tenants = self._declared.now.users.get(key.name, ()) if key.tenant is None else (key.tenant,)
        places = ((tenant, self._declared.now.places.get((tenant, entry.base_model))) for tenant in tenants)
        return [(tenant, pool) for tenant, pool in places if pool is not None]

    def adapter_base_models(self, tenant: str) -> list[str]:
        """List base models with slots of the tenant's pools."""
        return [
            base_model
            for owner, base_model in self._declared.now.places
            if owner == tenant and self._fleet.now.base_models[base_model].serves_adapters
        ]

    # -- models --------------------------------------------------------------------------------------------

    def resolve(self, tenant: Tenant, name: str | None, sticky: str) -> Target | None:
        """Return the target of a model name for the tenant; no name means its default model.

        `name@2` means version 2. `sticky` decides the side of a split: the same text gets the same side.
        None if this tenant has no such model. Raises `Unavailable` if no version is ready yet, and
        `Quarantined` if all were refused.
        """
        name = (tenant.default_model if name is None else name) or ""
        known = self._answering.get((tenant.name, name))
        if known is not None:
            return known
        model, number = _split(name)
        target = self.describe(tenant, model)
        if target is None:
            self._refuse_if_retired(tenant, model)
            return None
        if target.adapter is None:
            if number is not None:
                return None
            target = self._answering[tenant.name, name] = replace(target, asked=name)
            return target
        entry = self._entry(tenant, model)
        version = None if entry is None else _pick(entry, number, sticky)
        if entry is None or version is None:
            if number is not None:
                return None
            raise why_unavailable(model, entry)
        target = replace(target, version=version.number, adapter_id=version.engine_id, asked=name)
        if number is not None:
            return replace(target, fallback=None)  # nothing but this version would do
        if entry.rollout is None:
            self._answering[tenant.name, name] = target
        return target

    def fallback(
        self, tenant: Tenant, name: str | None, sticky: str, reason: FallbackReason
    ) -> Target | None:
        """Return the target that answers in a model's place; None where none is declared, or it cannot."""
        name = (tenant.default_model if name is None else name) or ""
        meant = self.describe(tenant, name)
        if meant is None or meant.fallback is None:
            return None
        try:
            target = self.resolve(tenant, meant.fallback, sticky)
        except RequestError:
            return None
        return target and replace(
            target, asked=name, fallback=None, fallback_of=meant.model, fallback_reason=reason
        )

    def describe(self, tenant: Tenant, model: str) -> Target | None:
        """Return the target of a model for the tenant, without a version and whether it is ready or not."""
        model, found = self._meaning(tenant, model)
        if found is None:
            return None
        if isinstance(found, str):
            price = price_of(self._fleet.now.prices, tenant.prices, None, found)
            pool, fallback = self._declared.now.places[tenant.name, found], tenant.fallbacks.get(model)
            return Target(
                tenant.name,
                model,
                None,
                found,
                pool,
                generation=tenant.generation,
                price=price,
                fallback=fallback,
            )
        limit, priced = None, None
        if found.tenant is None:
            declared = self._fleet.now.adapters[found.name]
            base_model, limit, priced = declared.base_model, declared.max_concurrency, found.name
        else:
            entry = self._adapters[found]
            base_model = entry.base_model
            if entry.is_retired or (tenant.name, base_model) not in self._declared.now.places:
                return None
        pool = self._declared.now.places[tenant.name, base_model]
        price = price_of(self._fleet.now.prices, tenant.prices, priced, base_model)
        return Target(
            tenant.name,
            model,
            found.name,
            base_model,
            pool,
            adapter_limit=limit,
            generation=tenant.generation,
            price=price,
            fallback=tenant.fallbacks.get(model),
        )

    def _refuse_if_retired(self, tenant: Tenant, model: str) -> None:
        """Raise `ModelRetired` for an alias of the tenant's that leads nowhere."""
        alias = self.alias(tenant.name, model)
        if alias is not None:
            raise retired(alias)

    def find(self, tenant: Tenant, name: str) -> Target | None:
        """Return the target of a client's name for a model, ready or not; `name@2` only while it is ready."""
        model, number = _split(name)
        if number is not None:
            return self.resolve(tenant, name, sticky="")
        target = self.describe(tenant, model)
        return target and replace(target, asked=name)

    def models(self, tenant: Tenant) -> list[Target]:
        """List the targets of the tenant's models: fleet.yaml's in their order, then its own by name."""
        own = (
            name
            for name, key in sorted(self._own[tenant.name].items())
            if self._adapters[key].live is not None
        )
        aliases = [a for a in sorted(self._aliases.get(tenant.name, {})) if a not in tenant.models]
        described = (self.describe(tenant, model) for model in (*tenant.models, *own, *aliases))
        return [target for target in described if target is not None]

    def serves(self, target: Target) -> bool:
        """Whether the target's model still means its adapter and version."""
        tenant = self._fleet.now.tenants.get(target.tenant)
        found = self.describe(tenant, target.model) if tenant is not None else None
        if tenant is None or found is None or found.adapter != target.adapter:
            return False
        entry = self._entry(tenant, target.model)
        return entry is None or any(version.number == target.version for version in entry.serving)

    def _entry(self, tenant: Tenant, model: str) -> AdapterEntry | None:
        _, key = self._meaning(tenant, model)
        return self._adapters.get(key) if isinstance(key, AdapterKey) else None

    def _meaning(self, tenant: Tenant, model: str) -> tuple[str, AdapterKey | str | None]:
        """Return a model's alias, and its adapter's key or base model's name; None for an unknown model."""
        names = self._declared.now.names_of(tenant.name)
        declared = names.get(model)
        if declared is not None:
            return declared
        alias = self.alias(tenant.name, model)
        if alias is None:
            return model, self._own[tenant.name].get(model)
        meant = names.get(alias.model)
        return model, self._own[tenant.name].get(alias.model) if meant is None else meant[1]


def _pick(entry: AdapterEntry, number: int | None, sticky: str) -> Version | None:
    return entry.choose(sticky) if number is None else entry.ready(number)


def _split(name: str) -> tuple[str, int | None]:
    """Split `name@2`; unless a plain number follows the sign, the sign belongs to the name."""
    model, sign, number = name.rpartition("@")
    plain = sign and len(number) <= 9 and number.isascii() and number.isdigit()
    return (model, int(number)) if plain else (name, None)

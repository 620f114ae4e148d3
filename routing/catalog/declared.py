"""The owner of a key, and what one fleet says of keys, names and places. Pure lookups."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from fleet.key_hash import FINGERPRINT_CHARS
from fleet.types import Fleet, KeyLimits, Tenant
from routing.catalog.entries import AdapterKey, KeyRole

Names = dict[str, tuple[str, AdapterKey | str]]


@dataclass(frozen=True, slots=True)
class Identity:
    """The owner and the role of a key, or of a user whom a proxy has signed in."""

    role: KeyRole
    tenant: str | None  # None: an operator
    user: str | None = None  # the proxy's name for the user; None: there is a key
    key: str = field(default="", compare=False)  # which one, in a word that opens nothing
    limits: KeyLimits | None = None  # the key's own; None: it has none

    @property
    def shown(self) -> str:
        """Who it is, for events."""
        if self.user is not None:
            return f"user {self.user}"
        return f"key {self.key}" if self.key else "an admin key"


class Declared:
    """What one fleet says of keys, names and places, for lookups."""

    def __init__(self, fleet: Fleet) -> None:
        self.keys = (
            {  # by hash
                digest: Identity(
                    KeyRole.INFERENCE,
                    tenant.name,
                    key=digest[:FINGERPRINT_CHARS],
                    limits=tenant.key_limits.get(digest),
                )
                for tenant in fleet.tenants.values()
                for digest in tenant.key_hashes
            }
            | {
                digest: Identity(KeyRole.OPERATOR, None, key=digest[:FINGERPRINT_CHARS])
                for digest in fleet.gateway.operator_key_hashes
            }
        )
        self._fleet = fleet
        self._names: dict[str, Names] = {}  # of the tenants that were looked up
        self.users: defaultdict[str, list[str]] = defaultdict(list)  # of each declared adapter
        for tenant in fleet.tenants.values():
            for name in dict.fromkeys(tenant.models.values()):
                self.users[name].append(tenant.name)
        self.places = {  # (tenant, base model) -> pool
            (tenant, base_model): pool.name
            for pool in fleet.pools.values()
            for tenant in pool.tenants
            for base_model in pool.base_models
        }

    def names_of(self, tenant: str) -> Names:
        """Map what a tenant may call a model to (alias, meaning)."""
        names = self._names.get(tenant)
        if names is None:
            found = self._fleet.tenants.get(tenant)
            if found is None:
                return {}
            names = self._names[tenant] = _names(self._fleet, found)
        return names


def declared_hashes(fleet: Fleet) -> frozenset[str]:
    """Return the hashes of all declared keys."""
    tenants = (tenant.key_hashes for tenant in fleet.tenants.values())
    return fleet.gateway.operator_key_hashes.union(*tenants)


def _names(fleet: Fleet, tenant: Tenant) -> Names:
    """Map aliases, and the names of adapters and base models, to (alias, meaning); aliases win."""
    names: Names = {}
    for alias, name in tenant.models.items():
        names[alias] = alias, AdapterKey(None, name) if name in fleet.adapters else name
    for meaning in list(names.values()):
        names.setdefault(meaning[1].name if isinstance(meaning[1], AdapterKey) else meaning[1], meaning)
    return names

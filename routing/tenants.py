"""Who is calling, and what does the model name in the request mean for this caller? Pure lookups.

A name that exists for somebody else and a name that exists for nobody get the same answer: none.
"""

from __future__ import annotations

import hashlib
import hmac

from routing.types import Fleet, Pool, Target, Tenant


def hash_key(key: str) -> str:
    """Hash an API key for storage. Keys are random and long, so one round of SHA-256 is enough."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


class Directory:
    """Looks up callers by key and targets by name; built once from a fleet and never changed."""

    def __init__(self, fleet: Fleet) -> None:
        self._tenant_by_hash = {h: tenant for tenant in fleet.tenants.values() for h in tenant.key_hashes}
        self._operator_hashes = fleet.gateway.operator_key_hashes
        self._targets = {name: _targets(fleet, tenant) for name, tenant in fleet.tenants.items()}

    def authenticate(self, key: str) -> Tenant | None:
        """Return the tenant that owns the key, if any; the comparison reveals nothing by its time."""
        digest = hash_key(key)
        tenant = self._tenant_by_hash.get(digest)
        if tenant is None or not any(hmac.compare_digest(digest, h) for h in tenant.key_hashes):
            return None
        return tenant

    def is_operator(self, key: str) -> bool:
        """Whether the key is one of the operator's."""
        digest = hash_key(key)
        return any(hmac.compare_digest(digest, h) for h in self._operator_hashes)

    def resolve(self, tenant: Tenant, name: str | None) -> Target | None:
        """Return what the name means for the tenant; no name means its default model."""
        name = tenant.default_model if name is None else name
        return None if name is None else self._targets[tenant.name].get(name)

    def targets(self, tenant: Tenant) -> list[Target]:
        """List the tenant's models in the order it declared them."""
        targets = self._targets[tenant.name]
        return [targets[alias] for alias in tenant.models]


def _targets(fleet: Fleet, tenant: Tenant) -> dict[str, Target]:
    """Map each alias, and each adapter's or base model's own name, to its target; aliases win."""
    targets: dict[str, Target] = {}
    for alias, name in tenant.models.items():
        adapter = fleet.adapters.get(name)
        base_model = adapter.base_model if adapter else name
        pool = next(p for p in fleet.pools.values() if _serves(p, tenant, base_model))
        targets[alias] = Target(tenant.name, alias, adapter.name if adapter else None, base_model, pool.name)
    for target in list(targets.values()):
        targets.setdefault(target.engine_model, target)
    return targets


def _serves(pool: Pool, tenant: Tenant, base_model: str) -> bool:
    return tenant.name in pool.tenants and base_model in pool.base_models

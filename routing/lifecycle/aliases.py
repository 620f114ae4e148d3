"""Sets and removes tenants' own aliases while the gateway runs. Implements `AliasManagement`.

An alias stands for an adapter of the tenant's own, or for a model that the fleet gives it. It never hides a
name that the fleet gives the tenant.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from fleet.current import CurrentFleet
from fleet.wording import in_words
from routing.catalog.entries import AdapterKey, Alias
from routing.errors import Conflict, InvalidRequest, NotFound
from routing.lifecycle.changes import ACTOR, Changes, change
from routing.lifecycle.registry import Registry
from routing.state import Note

MAX_ALIASES = 1000  # of one tenant


class Aliases:
    """The aliases that tenants of one gateway have set."""

    def __init__(self, fleet: CurrentFleet, registry: Registry, changes: Changes) -> None:
        self._fleet = fleet
        self._registry = registry
        self._directory = registry.directory
        self.changes = changes

    def list(self, tenant: str) -> Sequence[Alias]:
        """List a tenant's own aliases by name."""
        return self._directory.aliases(tenant)

    @change
    async def put(self, tenant: str, alias: str, model: str) -> Alias:
        """Have an alias stand for a model that the tenant may call."""
        async with self.changes.of(("tenant", tenant)):
            self._check(tenant, alias, model)
            before = self._directory.alias(tenant, alias)
            wanted = Alias(tenant, alias, model, time.time(), ACTOR.get())
            was = None if before is None else before.model
            await self._registry.set_alias(wanted, self._note(wanted, was, model))
            return wanted

    @change
    async def remove(self, tenant: str, alias: str) -> Alias:
        """Remove an alias."""
        async with self.changes.of(("tenant", tenant)):
            found = self._directory.alias(tenant, alias)
            if found is None:
                raise NotFound(f"There is no alias `{alias}`.", code="alias_not_found")
            await self._registry.remove_alias(found, self._note(found, found.model, None))
            return found

    def _check(self, tenant: str, alias: str, model: str) -> None:
        if tenant not in self._fleet.now.tenants:
            raise NotFound(f"There is no tenant `{tenant}`.", code="tenant_not_found")
        own = self._directory.adapter(AdapterKey(tenant, alias))
        if self._directory.is_taken(tenant, alias) or (own is not None and not own.is_retired):
            raise Conflict(f"`{alias}` is a model of this tenant already.", code="name_taken")
        meant = self._directory.adapter(AdapterKey(tenant, model))
        is_own = meant is not None and not meant.is_retired
        if not is_own and not self._directory.is_taken(tenant, model):
            raise InvalidRequest(
                f"There is no model `{model}` that this tenant may call.",
                param="model",
                code="model_not_found",
            )
        if self._directory.alias(tenant, alias) is None and len(self.list(tenant)) >= MAX_ALIASES:
            raise Conflict(f"This tenant has {MAX_ALIASES} aliases, the most there may be.", code="too_many")

    def _note(self, alias: Alias, before: str | None, after: str | None) -> Note:
        found = self._directory.tenant(alias.tenant)
        account = alias.tenant if found is None else found.account
        changes = {f"aliases.{alias.alias}": (before, after)}
        text = "; ".join(in_words(changes))
        return Note(ACTOR.get(), f"tenant {alias.tenant}", text, account, changes)

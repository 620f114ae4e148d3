"""The calls behind the admin API's routes for tenants and their aliases.

Every change is in the state database, with its event, before it counts. Calls raise `RequestError` as those
of `routing.lifecycle.ports` do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from fleet.tenant_change import TenantChange
from fleet.types import Tenant, account_of
from routing.catalog.entries import Alias, ApiKey


class ValueSource(StrEnum):
    """What a value of a tenant comes from; the first of these wins."""

    RUN_TIME = "run time"
    DECLARED = "fleet.yaml"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class ToldValue:
    """One value of a tenant, and what it comes from."""

    path: str
    value: Any
    source: ValueSource
    at_s: float | None = None  # Unix time at which it was set at run time
    by: str | None = None
    declared: Any = None  # the value of fleet.yaml that it hides


@dataclass(frozen=True, slots=True)
class TenantView:
    """One tenant as it counts now, and as it came to be."""

    name: str
    tenant: Tenant | None  # None: it was removed, or is not applied
    declared: bool  # in the fleet file that counts
    change: TenantChange  # of revision 0: nothing was changed at run time
    values: Sequence[ToldValue]
    problems: Sequence[str]  # why its change is not applied
    aliases: Sequence[Alias]

    @property
    def account(self) -> str:
        """The name under which its usage is counted."""
        return account_of(self.name, self.change.generation)


@dataclass(frozen=True, slots=True)
class TenantChanged:
    """A change, done or as it would be."""

    view: TenantView
    differences: Mapping[str, tuple[Any, Any]]  # path -> before, after
    words: Sequence[str]
    key: tuple[str, ApiKey] | None = None  # the new tenant's first key, for the only time


class TenantManagement(Protocol):
    """Tenants, as the admin API works on them. `dry_run` changes nothing."""

    def is_suspended(self, name: str) -> bool:
        """Whether a tenant is suspended."""

    def account(self, name: str) -> str:
        """Return the name under which a tenant's usage is counted."""

    def show(self, name: str) -> TenantView:
        """Show one tenant; also one that was removed. Raises `NotFound`."""

    async def create(
        self, name: str, values: Mapping[str, Any], *, like: str | None, key: bool, dry_run: bool
    ) -> TenantChanged:
        """Admit a tenant. `like` names another one whose settings it gets where `values` has none."""

    async def set(
        self,
        name: str,
        values: Mapping[str, Any],
        *,
        reset: Sequence[str],
        revision: int | None,
        dry_run: bool,
    ) -> TenantChanged:
        """Set values at run time; those of `reset` become what fleet.yaml says. Raises `Conflict`.

        `revision` is the one that the caller has seen; None: it does not matter.
        """

    async def suspend(self, name: str, *, dry_run: bool) -> TenantChanged:
        """Refuse a tenant's keys and what waits of it; nothing is deleted."""

    async def resume(self, name: str, *, dry_run: bool) -> TenantChanged:
        """Take a tenant's keys again."""

    async def remove(self, name: str, *, revision: int | None, dry_run: bool) -> TenantChanged:
        """Remove a tenant with its keys and adapters; what it used stays in the ledger."""


class AliasManagement(Protocol):
    """Tenants' own aliases."""

    def list(self, tenant: str) -> Sequence[Alias]:
        """List a tenant's own aliases by name."""

    async def put(self, tenant: str, alias: str, model: str) -> Alias:
        """Have an alias stand for a model that the tenant may call. Raises `Conflict`, `InvalidRequest`."""

    async def remove(self, tenant: str, alias: str) -> Alias:
        """Remove an alias. Raises `NotFound`."""

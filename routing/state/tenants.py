"""Reads and writes tenants, aliases and the events of their changes, in a transaction of the store.

A change and its event are written together or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session

from fleet.tenant_change import SetValue, TenantChange
from routing.catalog.entries import Alias, ApiKey
from routing.errors import Conflict
from routing.state.rows import key_row
from routing.state.tables import (
    AdapterRow,
    AliasRow,
    ApiKeyRow,
    BatchRow,
    EventRow,
    FileRow,
    TenantRow,
    UsageDayRow,
)


@dataclass(frozen=True, slots=True)
class TenantWritten:
    """What a change of a tenant took along."""

    ended_keys: list[str]  # ids of keys that are revoked now, or deleted
    aliases_ended: bool


@dataclass(frozen=True, slots=True)
class Note:
    """An event that is not stored yet."""

    actor: str
    subject: str
    text: str
    tenant: str | None = None  # its account
    changes: Mapping[str, tuple[Any, Any]] | None = None  # path -> before, after


def read_tenants(session: Session) -> tuple[list[TenantChange], list[Alias]]:
    """Return every change of a tenant, the oldest admission first, and every alias."""
    changes = session.scalars(select(TenantRow).order_by(TenantRow.name))
    aliases = session.scalars(select(AliasRow).order_by(AliasRow.tenant, AliasRow.alias))
    return [_change(row) for row in changes], [_alias(row) for row in aliases]


def was_used(session: Session, name: str) -> bool:
    """Whether there is anything of a tenant of this name that another one must not see as its own."""
    columns = (
        *(UsageDayRow.tenant, ApiKeyRow.tenant, AdapterRow.tenant),
        *(AliasRow.tenant, EventRow.tenant, FileRow.account, BatchRow.account),
    )
    return any(session.scalar(select(exists().where(column == name))) for column in columns)


def write_tenant(session: Session, change: TenantChange, key: ApiKey | None) -> TenantWritten:
    """Write a change, and the tenant's first key.

    A removal revokes the tenant's keys, and its aliases go. When another tenant takes its name, the keys are
    deleted. Raises `Conflict` unless the change follows the one that is there.
    """
    row = session.get(TenantRow, change.tenant, with_for_update=True)
    if (0 if row is None else row.revision) != change.revision - 1:
        raise changed_meanwhile(change.tenant, row)
    begins = change.admitted and (row is None or row.generation != change.generation)
    if row is None:
        row = TenantRow(name=change.tenant)
        session.add(row)
    row.generation, row.revision, row.admitted = change.generation, change.revision, change.admitted
    row.apart, row.removed = change.apart, change.removed
    row.fields = {path: [each.value, each.at_s, each.by] for path, each in change.values.items()}
    row.changed_s, row.changed_by = change.changed_s, change.changed_by
    ended: list[str] = []
    its_key = ApiKeyRow.tenant == change.tenant
    if change.removed or begins:
        session.execute(delete(AliasRow).where(AliasRow.tenant == change.tenant))
    if change.removed:
        opening = its_key, ApiKeyRow.revoked_s.is_(None)
        ended = list(session.scalars(select(ApiKeyRow.id).where(*opening)))
        session.execute(update(ApiKeyRow).where(*opening).values(revoked_s=change.changed_s))
    elif begins:
        ended = list(session.scalars(select(ApiKeyRow.id).where(its_key)))
        session.execute(delete(ApiKeyRow).where(its_key))
    if key is not None:
        session.add(key_row(key))
    return TenantWritten(ended, change.removed or begins)


def changed_meanwhile(tenant: str, row: TenantRow | TenantChange | None) -> Conflict:
    """Tell of a change that came first."""
    if row is None:
        return Conflict(f"Tenant `{tenant}` was not changed as expected; look again.", code="tenant_changed")
    when = datetime.fromtimestamp(row.changed_s, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return Conflict(
        f"Tenant `{tenant}` was changed at {when} UTC by {row.changed_by} (revision {row.revision}); look at "
        "it again.",
        code="tenant_changed",
        param="revision",
    )


def write_alias(session: Session, alias: Alias) -> None:
    """Set an alias."""
    session.merge(
        AliasRow(
            tenant=alias.tenant,
            alias=alias.alias,
            model=alias.model,
            changed_s=alias.changed_s,
            changed_by=alias.changed_by,
        )
    )


def delete_alias(session: Session, alias: Alias) -> None:
    """Remove an alias."""
    session.execute(delete(AliasRow).where(AliasRow.tenant == alias.tenant, AliasRow.alias == alias.alias))


def _change(row: TenantRow) -> TenantChange:
    return TenantChange(
        tenant=row.name,
        generation=row.generation,
        revision=row.revision,
        admitted=row.admitted,
        apart=row.apart,
        removed=row.removed,
        values={path: SetValue(*stored) for path, stored in row.fields.items()},
        changed_s=row.changed_s,
        changed_by=row.changed_by,
    )


def _alias(row: AliasRow) -> Alias:
    return Alias(row.tenant, row.alias, row.model, row.changed_s, row.changed_by)


def event_filter(
    wanted: Any, before: int | None, tenant: str | None, since_s: float | None, *, former: bool
) -> Any:
    """Narrow a query for events. `tenant` is an account; `former`: and those of others of its name."""
    if before is not None:
        wanted = wanted.where(EventRow.id < before)
    if tenant is not None:
        is_meant: Any = EventRow.tenant == tenant
        if former:
            is_meant |= EventRow.tenant.startswith(f"{tenant}#", autoescape=True)
        wanted = wanted.where(is_meant)
    if since_s is not None:
        wanted = wanted.where(EventRow.at_s >= since_s)
    return wanted

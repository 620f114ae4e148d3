"""The tables of the state database. The migrations in `migrations` must lead to the same ones.

An adapter that belongs to no tenant has the tenant '': NULLs would not be unique.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

# SQLite numbers rows by itself in columns of type INTEGER only; AUTOINCREMENT, so that no number comes twice.
RowId = BigInteger().with_variant(Integer, "sqlite")
_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class Table(DeclarativeBase):
    """A table of the state database."""

    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map = {str: Text, float: Double, dict[str, Any]: JSON}  # noqa: RUF012 - SQLAlchemy's


class AdapterRow(Table):
    """An adapter and the versions that answer for it."""

    __tablename__ = "adapters"
    __table_args__ = (UniqueConstraint("tenant", "name"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    tenant: Mapped[str]
    name: Mapped[str]
    base_model: Mapped[str]
    declared: Mapped[bool]
    pinned: Mapped[bool]
    live: Mapped[int | None]
    previous: Mapped[int | None]
    candidate: Mapped[int | None]  # of a rollout
    plan: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # of that rollout

    versions: Mapped[list[VersionRow]] = relationship(order_by="VersionRow.number", passive_deletes=True)


class VersionRow(Table):
    """One version of an adapter."""

    __tablename__ = "versions"
    __table_args__ = (UniqueConstraint("adapter_id", "number"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    adapter_id: Mapped[int] = mapped_column(RowId, ForeignKey("adapters.id", ondelete="CASCADE"))
    number: Mapped[int]
    source: Mapped[str]
    state: Mapped[str]
    reason: Mapped[str]
    sha256: Mapped[str | None]
    digest: Mapped[str | None]
    rank: Mapped[int | None]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    strikes: Mapped[int]
    created_s: Mapped[float]


class ApiKeyRow(Table):
    """An API key made at run time, as its hash."""

    __tablename__ = "api_keys"
    __table_args__ = (UniqueConstraint("sha256"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    prefix: Mapped[str]
    sha256: Mapped[str]
    role: Mapped[str]
    tenant: Mapped[str | None]
    note: Mapped[str]
    created_s: Mapped[float]
    expires_s: Mapped[float | None]
    revoked_s: Mapped[float | None]
    limits: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # that are set


class EventRow(Table):
    """What happened."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_tenant", "tenant", "id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    at_s: Mapped[float]
    actor: Mapped[str]
    subject: Mapped[str]
    text: Mapped[str]
    tenant: Mapped[str | None]  # its account; None: it concerns no tenant
    changes: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # path -> [before, after]


class TenantRow(Table):
    """What was changed of a tenant at run time; `fleet.changes` explains the columns."""

    __tablename__ = "tenants"

    name: Mapped[str] = mapped_column(primary_key=True)
    generation: Mapped[int]
    revision: Mapped[int]
    admitted: Mapped[bool]
    apart: Mapped[bool]
    removed: Mapped[bool]
    fields: Mapped[dict[str, Any]]  # path -> [value, time, by]
    changed_s: Mapped[float]
    changed_by: Mapped[str]


class AliasRow(Table):
    """A tenant's name for a model, set at run time."""

    __tablename__ = "aliases"

    tenant: Mapped[str] = mapped_column(primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str]
    changed_s: Mapped[float]
    changed_by: Mapped[str]


class ModelRow(Table):
    """A whole model that the gateway fetches; `routing.catalog.models` explains the columns."""

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(primary_key=True)
    pool: Mapped[str | None]  # None: it is declared
    fields: Mapped[dict[str, Any]]
    live: Mapped[int | None]
    previous: Mapped[int | None]
    retiring: Mapped[bool]
    versions: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    revision: Mapped[int]


class FleetRow(Table):
    """A document that was applied as the fleet."""

    __tablename__ = "fleet_revisions"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at_s: Mapped[float]
    actor: Mapped[str]
    document: Mapped[str]
    file_sha256: Mapped[str]


class FileRow(Table):
    """A file of a tenant; its content lies elsewhere."""

    __tablename__ = "files"
    __table_args__ = (Index("ix_files_account", "account", "created_s"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    account: Mapped[str]
    purpose: Mapped[str]
    filename: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_s: Mapped[float]
    expires_s: Mapped[float]


class BatchRow(Table):
    """A batch of a tenant; `routing.batches.values` explains it."""

    __tablename__ = "batches"
    __table_args__ = (Index("ix_batches_account", "account", "created_s"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    account: Mapped[str]
    home: Mapped[str]
    status: Mapped[str]
    created_s: Mapped[float]
    details: Mapped[dict[str, Any]]


class UsageRow(Table):
    """One request that ended; kept for some weeks. `routing.usage.entries` explains the columns."""

    __tablename__ = "usage_records"

    id: Mapped[str] = mapped_column(primary_key=True)
    at_s: Mapped[float]
    day: Mapped[str]
    request_id: Mapped[str]
    tenant: Mapped[str]
    model: Mapped[str]
    adapter: Mapped[str]
    version: Mapped[int]
    pool: Mapped[str]
    replica: Mapped[str]
    outcome: Mapped[str]
    reason: Mapped[str]
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    cached_tokens: Mapped[int]
    estimated: Mapped[bool]
    queue_s: Mapped[float]
    run_s: Mapped[float]
    slot_s: Mapped[float]
    engine_s: Mapped[float]
    cost: Mapped[int | None] = mapped_column(BigInteger)
    fallback_of: Mapped[str | None]
    key: Mapped[str | None]
    switch_s: Mapped[float | None]
    first_s: Mapped[float | None]


class UsageDayRow(Table):
    """The sums of one day, UTC; each request is in it as soon as it is in `usage_records`."""

    __tablename__ = "usage_days"
    __table_args__ = (
        Index("ix_usage_days_tenant", "tenant", "day"),
        Index("ix_usage_days_key", "key", "day"),
    )

    day: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)  # empty: not known
    model: Mapped[str] = mapped_column(primary_key=True)
    adapter: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    pool: Mapped[str] = mapped_column(primary_key=True)
    outcome: Mapped[str] = mapped_column(primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
    estimated_requests: Mapped[int] = mapped_column(BigInteger)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger)
    completion_tokens: Mapped[int] = mapped_column(BigInteger)
    cached_tokens: Mapped[int] = mapped_column(BigInteger)
    queue_s: Mapped[float]
    run_s: Mapped[float]
    slot_s: Mapped[float]
    engine_s: Mapped[float]
    priced_requests: Mapped[int] = mapped_column(BigInteger, server_default="0")
    cost: Mapped[int] = mapped_column(BigInteger, server_default="0")
    switch_s: Mapped[float] = mapped_column(server_default="0")


class SwitchCostRow(Table):
    """What a switch took, as a running mean; `went` is the model that went for it, or empty.

    `way` is by which it came last, empty where an earlier release wrote the row.
    """

    __tablename__ = "switch_costs"

    host: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    went: Mapped[str] = mapped_column(primary_key=True)
    seconds: Mapped[float]
    way: Mapped[str] = mapped_column(server_default="")


class TurnPinRow(Table):
    """What an operator has said of a model that takes turns, over its fleet's word."""

    __tablename__ = "turn_pins"

    pool: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    pinned: Mapped[bool]


class PlanRow(Table):
    """The plan that was published last, or the last look at it: `routing.catalog.plans`."""

    __tablename__ = "plans"

    kind: Mapped[str] = mapped_column(primary_key=True)
    at_s: Mapped[float]
    actor: Mapped[str]
    document: Mapped[str]  # JSON

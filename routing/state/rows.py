"""Turns rows of adapters, versions and keys into values."""

from __future__ import annotations

from dataclasses import asdict, fields

from adapters.states import VersionState
from fleet.types import KeyLimits
from routing.catalog.entries import AdapterEntry, AdapterKey, ApiKey, KeyRole, Rollout, RolloutPlan, Version
from routing.catalog.sources import parse_source
from routing.state.tables import AdapterRow, ApiKeyRow, VersionRow

_PLAN_FIELDS = frozenset(field.name for field in fields(RolloutPlan))


def entry_of(row: AdapterRow) -> AdapterEntry:
    """Return the adapter of a row."""
    key = AdapterKey(row.tenant or None, row.name)
    rollout = None
    if row.candidate is not None:
        plan = {name: value for name, value in (row.plan or {}).items() if name in _PLAN_FIELDS}
        rollout = Rollout(row.candidate, RolloutPlan(**plan))
    return AdapterEntry(
        key=key,
        base_model=row.base_model,
        declared=row.declared,
        pinned=row.pinned,
        live=row.live,
        previous=row.previous,
        rollout=rollout,
        versions=tuple(version_of(key, version) for version in row.versions),
    )


def version_of(key: AdapterKey, row: VersionRow) -> Version:
    """Return the version of a row."""
    return Version(
        id=row.id,
        adapter=key,
        number=row.number,
        source=parse_source(row.source),
        state=VersionState(row.state),
        reason=row.reason,
        sha256=row.sha256,
        digest=row.digest,
        rank=row.rank,
        size_bytes=row.size_bytes,
        strikes=row.strikes,
        created_s=row.created_s,
    )


def api_key_of(row: ApiKeyRow) -> ApiKey:
    """Return the key of a row."""
    return ApiKey(
        id=row.id,
        prefix=row.prefix,
        sha256=row.sha256,
        role=KeyRole(row.role),
        tenant=row.tenant,
        note=row.note,
        created_s=row.created_s,
        expires_s=row.expires_s,
        revoked_s=row.revoked_s,
        limits=KeyLimits(**row.limits) if row.limits else None,
    )


def key_row(key: ApiKey) -> ApiKeyRow:
    """Return the row of a key."""
    return ApiKeyRow(
        id=key.id,
        prefix=key.prefix,
        sha256=key.sha256,
        role=key.role.value,
        tenant=key.tenant,
        note=key.note,
        created_s=key.created_s,
        expires_s=key.expires_s,
        revoked_s=key.revoked_s,
        limits=None if key.limits is None else set_limits(key.limits),
    )


def set_limits(limits: KeyLimits) -> dict[str, int] | None:
    """Return those limits that are set; None: none is."""
    return {name: limit for name, limit in asdict(limits).items() if limit is not None} or None

"""Finds the rows of adapters and versions, locked, and changes which version answers."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import select
from sqlalchemy.orm import Session

from adapters.states import VersionState
from routing.catalog.entries import AdapterKey, Rollout, Version
from routing.errors import Conflict, NotFound
from routing.state.tables import AdapterRow, VersionRow


def adapter_row(session: Session, key: AdapterKey) -> AdapterRow:
    """Return the row of an adapter, locked until the transaction ends. Raises `NotFound`."""
    wanted = select(AdapterRow).where(AdapterRow.tenant == (key.tenant or ""), AdapterRow.name == key.name)
    row = session.scalars(wanted.with_for_update()).one_or_none()
    if row is None:
        raise NotFound(f"There is no adapter `{key.name}`.")
    return row


def version_row(session: Session, version: Version) -> VersionRow:
    """Return the row of a version, locked until the transaction ends.

    Raises `Conflict` if it is no longer in the state of `version`, `NotFound` if it is gone.
    """
    row = session.get(VersionRow, version.id, with_for_update=True)
    if row is None:
        raise NotFound(f"Adapter `{version.adapter.name}` has no version {version.number}.")
    if row.state != version.state:
        raise Conflict(
            f"Version {version.number} of `{version.adapter.name}` is {row.state} by now, not "
            f"{version.state}; look again.",
            code="version_changed",
        )
    return row


def set_route(row: AdapterRow, live: int | None, previous: int | None, rollout: Rollout | None) -> None:
    """Say which versions answer. Raises `NotFound`."""
    candidate = rollout.candidate if rollout else None
    missing = {live, previous, candidate} - {None} - {version.number for version in row.versions}
    if missing:
        raise NotFound(f"Adapter `{row.name}` has no version {missing.pop()}.")
    row.live, row.previous, row.candidate = live, previous, candidate
    row.plan = asdict(rollout.plan) if rollout else None


def check_retired(row: AdapterRow, what: str) -> None:
    """Raise `Conflict` unless every version is retired."""
    for version in row.versions:
        if version.state != VersionState.RETIRED:
            raise Conflict(
                f"Version {version.number} of `{row.name}` is {version.state}; {what} once all are retired.",
                code="adapter_in_use",
            )

"""Keeps the documents that were applied as the fleet. The newest is the one that counts."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from routing.catalog.entries import FleetRevision
from routing.errors import Conflict
from routing.state.tables import FleetRow

KEPT_REVISIONS = 50  # some megabytes


def newest(session: Session) -> FleetRevision | None:
    """Return the newest document; None where none was ever applied."""
    row = session.scalars(select(FleetRow).order_by(FleetRow.number.desc()).limit(1)).one_or_none()
    if row is None:
        return None
    return FleetRevision(row.number, row.at_s, row.actor, row.document, row.file_sha256)


def add(session: Session, revision: FleetRevision) -> None:
    """Add the next document. Raises `Conflict` where another gateway was quicker."""
    session.add(
        FleetRow(
            number=revision.number,
            at_s=revision.at_s,
            actor=revision.actor,
            document=revision.document,
            file_sha256=revision.file_sha256,
        )
    )
    try:
        session.flush()
    except IntegrityError:
        raise Conflict(
            f"Another gateway on the same database has made revision {revision.number}; this one does not "
            "follow it. One gateway serves a fleet.",
            code="fleet_changed",
        ) from None
    session.execute(delete(FleetRow).where(FleetRow.number <= revision.number - KEPT_REVISIONS))


def remove(session: Session, number: int) -> None:
    """Take back a document that did not come to count."""
    session.execute(delete(FleetRow).where(FleetRow.number == number))

"""Reads and writes whole models and their versions, in a transaction of the store. One row for each model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from adapters.states import VersionState
from routing.catalog.models import ModelEntry, ModelVersion
from routing.catalog.sources import parse_source
from routing.errors import Conflict
from routing.state.tables import ModelRow


def read_models(session: Session) -> list[ModelEntry]:
    """Return every model by name."""
    return [_entry(row) for row in session.scalars(select(ModelRow).order_by(ModelRow.name))]


def write_model(session: Session, entry: ModelEntry) -> None:
    """Write a model. Raises `Conflict` unless the change follows the one that is there."""
    row = session.get(ModelRow, entry.name, with_for_update=True)
    if (0 if row is None else row.revision) != entry.revision - 1:
        raise Conflict(f"Model `{entry.name}` was changed meanwhile; look again.", code="model_changed")
    if row is None:
        row = ModelRow(name=entry.name)
        session.add(row)
    row.pool, row.fields = entry.pool, dict(entry.values)
    row.live, row.previous, row.retiring = entry.live, entry.previous, entry.retiring
    row.versions = [_stored(version) for version in entry.versions]
    row.revision = entry.revision


def delete_model(session: Session, name: str) -> None:
    """Delete a model; no effect if it is not there."""
    row = session.get(ModelRow, name)
    if row is not None:
        session.delete(row)


def _stored(version: ModelVersion) -> dict[str, Any]:
    return asdict(version) | {"source": str(version.source), "state": version.state.value}


def _entry(row: ModelRow) -> ModelEntry:
    versions = (
        ModelVersion(
            **{
                **stored,
                "source": parse_source(stored["source"]),
                "state": VersionState(stored["state"]),
            }
        )
        for stored in row.versions
    )
    return ModelEntry(
        row.name, row.pool, row.fields, row.live, row.previous, tuple(versions), row.revision, row.retiring
    )

"""Keeps adapters, versions, rollouts, keys and events across restarts. One transaction for each call.

Every method raises `StateUnavailable` while the database does not answer; nothing is changed then, and the
same call works once it answers again. `adapters.states` decides which move of a version is allowed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, selectinload

from adapters.states import VersionState, check_transition
from fleet.tenant_change import TenantChange
from fleet.types import KeyLimits
from routing.catalog.entries import (
    AdapterEntry,
    AdapterKey,
    Alias,
    ApiKey,
    Event,
    FleetRevision,
    KeyRole,
    Rollout,
    Version,
)
from routing.catalog.models import ModelEntry
from routing.catalog.sources import Source
from routing.errors import Conflict, NotFound
from routing.state import fleet_revisions
from routing.state.database import Database
from routing.state.locking import adapter_row, check_retired, set_route, version_row
from routing.state.models import delete_model, read_models, write_model
from routing.state.rows import api_key_of, entry_of, key_row, set_limits, version_of
from routing.state.tables import AdapterRow, ApiKeyRow, EventRow, VersionRow
from routing.state.tenants import (
    Note,
    TenantWritten,
    delete_alias,
    event_filter,
    read_tenants,
    was_used,
    write_alias,
    write_tenant,
)

LOCK_WAIT_S = 5.0  # for another process; longer than any transaction here takes
KEPT_EVENTS = 10_000  # some megabytes
MAX_TEXT = 2000  # characters of a reason or an event


class StateStore(Database):
    """The state database. Safe to use from several threads, and from several processes at once."""

    def __init__(self, url: str, *, lock_wait_s: float = LOCK_WAIT_S, kept_events: int = KEPT_EVENTS) -> None:
        super().__init__(url, lock_wait_s=lock_wait_s)
        self._kept_events = kept_events

    def __repr__(self) -> str:
        return f"StateStore({self._url.render_as_string(hide_password=True)})"

    def open(self) -> None:
        """Connect anew, and bring the tables up to date. Refuses a newer release's database."""
        self.close()
        super().open()

    def load(self) -> tuple[list[AdapterEntry], list[ApiKey]]:
        """Return everything but the events, by key and by time."""
        with self._transaction(reads=True) as session:
            adapters = session.scalars(
                select(AdapterRow)
                .options(selectinload(AdapterRow.versions))
                .order_by(AdapterRow.tenant, AdapterRow.name)
            )
            keys = session.scalars(select(ApiKeyRow).order_by(ApiKeyRow.created_s, ApiKeyRow.id))
            return [entry_of(row) for row in adapters], [api_key_of(row) for row in keys]

    # -- adapters ------------------------------------------------------------------------------------------

    def add_adapter(self, key: AdapterKey, base_model: str, *, declared: bool) -> AdapterEntry:
        """Add an adapter without versions. Raises `Conflict` if it exists."""
        row = AdapterRow(
            tenant=key.tenant or "",
            name=key.name,
            base_model=base_model,
            declared=declared,
            pinned=False,
            versions=[],
        )
        with self._transaction() as session:
            session.add(row)
            try:
                session.flush()
            except IntegrityError:
                raise Conflict(f"Adapter `{key.name}` exists already.", code="adapter_exists") from None
            return entry_of(row)

    def set_base_model(self, key: AdapterKey, base_model: str) -> AdapterEntry:
        """Change the base model. Raises `Conflict` unless all versions are retired, `NotFound`."""
        with self._transaction() as session:
            row = adapter_row(session, key)
            check_retired(row, "its base model can change only")
            row.base_model = base_model
            return entry_of(row)

    def set_pinned(self, key: AdapterKey, pinned: bool) -> AdapterEntry:
        """Pin or unpin an adapter. Raises `NotFound`."""
        with self._transaction() as session:
            row = adapter_row(session, key)
            row.pinned = pinned
            return entry_of(row)

    def route(
        self, key: AdapterKey, *, live: int | None, previous: int | None, rollout: Rollout | None
    ) -> AdapterEntry:
        """Say which versions answer. Raises `NotFound` where the adapter or one of them is not there."""
        with self._transaction() as session:
            row = adapter_row(session, key)
            set_route(row, live, previous, rollout)
            return entry_of(row)

    def remove(self, key: AdapterKey) -> None:
        """Delete an adapter and its versions. Raises `Conflict` unless all are retired, `NotFound`."""
        with self._transaction() as session:
            row = adapter_row(session, key)
            check_retired(row, "it can be removed only")
            session.execute(delete(AdapterRow).where(AdapterRow.id == row.id))

    # -- versions ------------------------------------------------------------------------------------------

    def add_version(self, key: AdapterKey, *, source: Source, sha256: str | None) -> Version:
        """Add a registered version under the next number, once for each call. Raises `NotFound`."""
        with self._transaction() as session:
            adapter_id = adapter_row(session, key).id  # locked, so that no other call takes the same number
            last = session.scalar(
                select(func.max(VersionRow.number)).where(VersionRow.adapter_id == adapter_id)
            )
            row = VersionRow(
                adapter_id=adapter_id,
                number=(last or 0) + 1,
                source=_storable(str(source), None),
                state=VersionState.REGISTERED.value,
                reason="",
                sha256=sha256,
                size_bytes=0,
                strikes=0,
                created_s=time.time(),
            )
            session.add(row)
            session.flush()
            return version_of(key, row)

    def move(
        self,
        version: Version,
        to: VersionState,
        *,
        reason: str = "",
        digest: str | None = None,
        rank: int | None = None,
        size_bytes: int | None = None,
    ) -> Version:
        """Move a version to another state. One that leaves quarantine begins without strikes.

        Raises `IllegalTransition` if the move is not allowed, `Conflict` if the version is no longer in
        the state of `version`, `NotFound` if it is gone; then nothing is changed.
        """
        check_transition(version.state, to)
        described = {"digest": digest, "rank": rank, "size_bytes": size_bytes}
        values: dict[str, Any] = {name: value for name, value in described.items() if value is not None}
        if version.state is VersionState.QUARANTINED:
            values["strikes"] = 0
        return self._change(version, state=to.value, reason=_storable(reason), **values)

    def make_ready(
        self, version: Version, *, live: int | None, previous: int | None, rollout: Rollout | None
    ) -> AdapterEntry:
        """Move a version to `ready` and say which versions answer, both or neither. Raises as `move` does."""
        check_transition(version.state, VersionState.READY)
        with self._transaction() as session:
            adapter = adapter_row(session, version.adapter)
            row = version_row(session, version)
            row.state, row.reason = VersionState.READY.value, ""
            set_route(adapter, live, previous, rollout)
            session.flush()
            session.expire(adapter, ["versions"])
            return entry_of(adapter)

    def describe(self, version: Version, *, digest: str, rank: int, size_bytes: int) -> Version:
        """Record the properties of a version's files. Raises `Conflict` and `NotFound` as `move` does."""
        return self._change(version, digest=digest, rank=rank, size_bytes=size_bytes)

    def note(self, version: Version, reason: str, *, strike: bool = False) -> Version:
        """Record an attempt's failure, and whether an engine died of it. Raises as `describe` does."""
        with self._transaction() as session:
            row = version_row(session, version)
            row.reason = _storable(reason)
            row.strikes += strike
            return version_of(version.adapter, row)

    def _change(self, version: Version, **values: Any) -> Version:
        with self._transaction() as session:
            row = version_row(session, version)
            for name, value in values.items():
                setattr(row, name, value)
            return version_of(version.adapter, row)

    # -- keys and events -----------------------------------------------------------------------------------

    def add_key(self, key: ApiKey) -> None:
        """Add a key. Raises `Conflict` if its id or its hash exists."""
        with self._transaction() as session:
            session.add(key_row(replace(key, note=_storable(key.note))))
            try:
                session.flush()
            except IntegrityError:
                raise Conflict("This key exists already.", code="key_exists") from None

    def revoke_key(self, key_id: str, now_s: float) -> ApiKey:
        """Revoke a key; a revoked one keeps its time. Raises `NotFound`."""
        with self._transaction() as session:
            row = session.get(ApiKeyRow, _storable(key_id), with_for_update=True)
            if row is None:
                raise NotFound("There is no such key.")
            row.revoked_s = now_s if row.revoked_s is None else row.revoked_s
            return api_key_of(row)

    def set_key_limits(self, key_id: str, limits: Mapping[str, int | None]) -> ApiKey:
        """Replace limits of a key, by their names; None takes one away. Raises `NotFound` and `Conflict`."""
        with self._transaction() as session:
            row = session.get(ApiKeyRow, _storable(key_id), with_for_update=True)
            if row is None:
                raise NotFound("There is no such key.")
            if row.role != KeyRole.INFERENCE or row.revoked_s is not None:
                raise Conflict(
                    "Only a key that calls models, and is not revoked, has limits.", code="key_without_limits"
                )
            row.limits = set_limits(KeyLimits(**{**(row.limits or {}), **limits}))
            return api_key_of(row)

    def record(self, actor: str, subject: str, text: str, tenant: str | None = None) -> None:
        """Store an event; the oldest ones are deleted for it."""
        with self._transaction() as session:
            self._record(session, Note(actor, subject, text, tenant))

    def _record(self, session: Session, *notes: Note) -> None:
        rows = [
            EventRow(
                at_s=time.time(),
                actor=_storable(note.actor),
                subject=_storable(note.subject),
                text=_storable(note.text),
                tenant=note.tenant,
                changes=None
                if note.changes is None
                else {path: [*two] for path, two in note.changes.items()},
            )
            for note in notes
        ]
        session.add_all(rows)
        session.flush()
        newest = max(row.id for row in rows)
        session.execute(delete(EventRow).where(EventRow.id <= newest - self._kept_events))

    def events(
        self,
        limit: int,
        before: int | None = None,
        *,
        tenant: str | None = None,
        since_s: float | None = None,
        former: bool = False,
    ) -> list[Event]:
        """List events, the newest first; `before` is the id of the last one seen, `tenant` the account meant.

        `former`: and the accounts of others that had its name.
        """
        wanted = event_filter(select(EventRow), before, tenant, since_s, former=former)
        with self._transaction(reads=True) as session:
            rows = session.scalars(wanted.order_by(EventRow.id.desc()).limit(limit))
            return [
                Event(row.id, row.at_s, row.actor, row.subject, row.text, row.tenant, row.changes or {})
                for row in rows
            ]

    # -- tenants -------------------------------------------------------------------------------------------

    def tenants(self) -> tuple[list[TenantChange], list[Alias]]:
        """Return what was changed of tenants at run time, and their aliases."""
        with self._transaction(reads=True) as session:
            return read_tenants(session)

    def tenant_was_used(self, name: str) -> bool:
        """Whether there is anything of a tenant of this name."""
        with self._transaction(reads=True) as session:
            return was_used(session, name)

    def change_tenant(self, change: TenantChange, key: ApiKey | None, note: Note) -> TenantWritten:
        """Write a change of a tenant with its event. Raises `Conflict` where another change came first."""
        with self._transaction() as session:
            written = write_tenant(session, change, key)
            self._record(session, note)
            return written

    def set_alias(self, alias: Alias, note: Note, *, removed: bool = False) -> None:
        """Set or remove a tenant's alias, with the event."""
        with self._transaction() as session:
            (delete_alias if removed else write_alias)(session, alias)
            self._record(session, note)

    # -- whole models --------------------------------------------------------------------------------------

    def models(self) -> list[ModelEntry]:
        """Return every whole model that the gateway fetches."""
        with self._transaction(reads=True) as session:
            return read_models(session)

    def put_model(self, entry: ModelEntry, note: Note | None) -> ModelEntry:
        """Write a model, with the event. Raises `Conflict` where another change came first."""
        with self._transaction() as session:
            write_model(session, entry)
            if note is not None:
                self._record(session, note)
        return entry

    def remove_model(self, name: str) -> None:
        """Delete a model."""
        with self._transaction() as session:
            delete_model(session, name)

    # -- the fleet -----------------------------------------------------------------------------------------

    def newest_fleet(self) -> FleetRevision | None:
        """Return the document that was applied last; None where none was."""
        with self._transaction(reads=True) as session:
            return fleet_revisions.newest(session)

    def add_fleet(self, revision: FleetRevision, notes: Sequence[Note]) -> None:
        """Add a document with its events. Raises `Conflict` where another was quicker."""
        with self._transaction() as session:
            fleet_revisions.add(session, revision)
            self._record(session, *notes)

    def remove_fleet(self, number: int, text: str) -> None:
        """Take a document back, with an event that says why."""
        with self._transaction() as session:
            fleet_revisions.remove(session, number)
            self._record(session, Note("tenantry", "fleet", text))

    @contextmanager
    def _transaction(self, *, reads: bool = False) -> Iterator[Session]:
        with self._using(reads=reads) as engine, Session(engine) as session, session.begin():
            yield session


def _storable(text: str, limit: int | None = MAX_TEXT) -> str:
    """Make text that every database takes: no NUL, no lone surrogates, at most `limit` characters."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()[:limit]

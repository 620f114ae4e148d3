"""Where do batches and names of files lie? Two tables of the state database; a transaction for each call.

Every call blocks, and raises `StateUnavailable` while the database does not answer; nothing is changed then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, select
from sqlalchemy.orm import Session

from engines.protocol import Kind
from routing.batches.values import ENDED, Batch, BatchStatus, Counts, Mistake, StoredFile
from routing.state.database import Database
from routing.state.tables import BatchRow, FileRow

LOCK_WAIT_S = 5.0
_ENDED = sorted(status.value for status in ENDED)


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for, the newest first unless `oldest_first`."""

    limit: int
    after: str | None = None  # id of the last one before it
    oldest_first: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """What a tenant has."""

    files: int
    size_bytes: int  # of them
    unfinished: int  # batches


class BatchStore(Database):
    """The tables of files and batches. Safe to use from several threads."""

    def __init__(self, url: str, *, lock_wait_s: float = LOCK_WAIT_S) -> None:
        super().__init__(url, lock_wait_s=lock_wait_s)

    def held(self, account: str) -> Held:
        """Say how much a tenant has."""
        with self._transaction(reads=True) as session:
            files = session.execute(
                select(func.count(), func.coalesce(func.sum(FileRow.size_bytes), 0)).where(
                    FileRow.account == account
                )
            ).one()
            unfinished = session.scalar(
                select(func.count()).where(BatchRow.account == account, BatchRow.status.not_in(_ENDED))
            )
            return Held(int(files[0]), int(files[1]), int(unfinished or 0))

    # -- files ---------------------------------------------------------------------------------------------

    def add_file(self, file: StoredFile) -> None:
        """Add a file whose content is there."""
        with self._transaction() as session:
            session.merge(FileRow(**asdict(file)))

    def file(self, account: str, file_id: str) -> StoredFile | None:
        """Return a file of a tenant."""
        with self._transaction(reads=True) as session:
            row = session.get(FileRow, _asked(file_id))
            return _file(row) if row is not None and row.account == account else None

    def files(self, account: str, page: Page, purpose: str | None = None) -> list[StoredFile]:
        """List a tenant's files; one more than the page's limit where there are more."""
        wanted = select(FileRow).where(FileRow.account == account)
        if purpose is not None:
            wanted = wanted.where(FileRow.purpose == _asked(purpose))
        with self._transaction(reads=True) as session:
            return [_file(row) for row in session.scalars(_paged(session, wanted, FileRow, page, account))]

    def remove_file(self, account: str, file_id: str) -> bool:
        """Forget a file; whether it was there."""
        with self._transaction() as session:
            found = session.execute(delete(FileRow).where(FileRow.id == file_id, FileRow.account == account))
            return bool(found.rowcount)  # type: ignore[attr-defined]

    def expired_files(self, now_s: float) -> list[StoredFile]:
        """List files of all tenants whose time is over, but for those that an unfinished batch reads."""
        with self._transaction(reads=True) as session:
            in_use = {batch.input_file for batch in _batches(session, BatchRow.status.not_in(_ENDED))}
            rows = session.scalars(select(FileRow).where(FileRow.expires_s <= now_s).limit(1000))
            return [_file(row) for row in rows if row.id not in in_use]

    def known_files(self) -> set[str]:
        """Return the ids of all files."""
        with self._transaction(reads=True) as session:
            return set(session.scalars(select(FileRow.id)))

    # -- batches -------------------------------------------------------------------------------------------

    def put(self, batch: Batch, files: Sequence[StoredFile] = ()) -> None:
        """Add or replace a batch, together with the files that came out of it."""
        with self._transaction() as session:
            session.merge(_row(batch))
            for file in files:
                session.merge(FileRow(**asdict(file)))

    def batch(self, account: str, batch_id: str) -> Batch | None:
        """Return a batch of a tenant."""
        with self._transaction(reads=True) as session:
            row = session.get(BatchRow, _asked(batch_id))
            return _batch(row) if row is not None and row.account == account else None

    def batches(self, account: str | None, page: Page) -> list[Batch]:
        """List a tenant's batches, or all; one more than the page's limit where there are more."""
        wanted = select(BatchRow)
        if account is not None:
            wanted = wanted.where(BatchRow.account == account)
        with self._transaction(reads=True) as session:
            return [_batch(row) for row in session.scalars(_paged(session, wanted, BatchRow, page, account))]

    def unfinished(self, home: str) -> list[Batch]:
        """List the batches of one state folder that have not ended, the oldest first."""
        with self._transaction(reads=True) as session:
            return _batches(session, BatchRow.status.not_in(_ENDED) & (BatchRow.home == home))

    def uses(self, account: str, file_id: str) -> bool:
        """Whether a batch of a tenant still reads a file."""
        with self._transaction(reads=True) as session:
            found = _batches(session, BatchRow.status.not_in(_ENDED) & (BatchRow.account == account))
            return any(batch.input_file == file_id for batch in found)

    def prune(self, ended_before_s: float) -> None:
        """Forget batches that ended and were made before a Unix time."""
        with self._transaction() as session:
            session.execute(
                delete(BatchRow).where(BatchRow.status.in_(_ENDED), BatchRow.created_s < ended_before_s)
            )

    @contextmanager
    def _transaction(self, *, reads: bool = False) -> Iterator[Session]:
        with self._using(reads=reads) as engine, Session(engine) as session, session.begin():
            yield session


def _asked(text: str) -> str:
    """Return what a client asks for as PostgreSQL takes it, which has no NUL in any text."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _paged(session: Session, wanted: Select[Any], table: Any, page: Page, account: str | None) -> Select[Any]:
    """Return what follows the one that a page comes after, which must be of the same tenant."""
    order = (table.created_s, table.id)
    if page.after is not None:
        last = session.get(table, _asked(page.after))
        if last is None or account not in (None, last.account):
            return wanted.where(table.id == "")
        newer = (table.created_s > last.created_s) | (
            (table.created_s == last.created_s) & (table.id > last.id)
        )
        wanted = wanted.where(newer if page.oldest_first else ~newer & (table.id != last.id))
    ordered = order if page.oldest_first else tuple(column.desc() for column in order)
    return wanted.order_by(*ordered).limit(page.limit + 1)


def _batches(session: Session, where: ColumnElement[bool]) -> list[Batch]:
    rows = session.scalars(select(BatchRow).where(where).order_by(BatchRow.created_s, BatchRow.id))
    return [_batch(row) for row in rows]


def _file(row: FileRow) -> StoredFile:
    return StoredFile(
        row.id, row.account, row.purpose, row.filename, row.size_bytes, row.created_s, row.expires_s
    )


def _row(batch: Batch) -> BatchRow:
    details = asdict(batch)
    own = {name: details.pop(name) for name in ("id", "account", "home", "created_s")}
    own["status"] = details.pop("status").value
    details["mistakes"] = list(details["mistakes"])
    return BatchRow(**own, details=details)


def _batch(row: BatchRow) -> Batch:
    told = dict(row.details)
    ending = told.pop("ending")
    return Batch(
        id=row.id,
        account=row.account,
        home=row.home,
        status=BatchStatus(row.status),
        created_s=row.created_s,
        endpoint=Kind(told.pop("endpoint")),
        ending=None if ending is None else BatchStatus(ending),
        counts=Counts(**told.pop("counts")),
        mistakes=tuple(Mistake(**mistake) for mistake in told.pop("mistakes")),
        **told,
    )

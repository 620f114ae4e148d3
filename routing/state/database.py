"""Opens the state database, brings it up to date, and reports its failures. SQLite or PostgreSQL.

Nothing here knows the contents. Every failure is `StateUnavailable`, whose text shows neither
a password nor a path; the log has the rest. A pooled connection that broke is replaced by the next call.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from routing.errors import StateUnavailable
from routing.state.guard import identities, is_guarded, journals

RETRY_AFTER_S = 5.0
_WAL_RETRY_S = 0.02
_CONNECT_S = 5  # libpq's connect_timeout takes whole seconds
_MIGRATION_LOCK = 7236841521  # any number, always the same; pg_advisory_xact_lock
_MIGRATIONS = Path(__file__).parent / "migrations"
_migrating = threading.Lock()  # alembic keeps what it migrates in globals
log = logging.getLogger("tenantry.state")


def connect(url: URL, *, wait_s: float) -> Engine:
    """Return an engine; it waits `wait_s` for a lock. A missing SQLite file is made, for its owner alone."""
    if url.get_backend_name() == "sqlite":
        return _sqlite(url, wait_s)
    return _postgresql(url, wait_s)


def reading(engine: Engine) -> Engine:
    """Return the engine for transactions that only read: they wait for no other and see one moment."""
    if engine.dialect.name == "sqlite":
        return engine.execution_options(tenantry_reads=True)
    return engine.execution_options(isolation_level="REPEATABLE READ")


def migrate(engine: Engine) -> None:
    """Bring the tables up to date; one of several processes does it and the others wait.

    Raises `StateUnavailable` if a newer release has written it.
    """
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    script = ScriptDirectory.from_config(config)
    with reading(engine).connect() as connection:
        if _is_current(connection, script):
            return
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
            connection.execute(text("SET LOCAL statement_timeout = 0"))  # a large table takes its time
        if not _is_current(connection, script):
            config.attributes["connection"] = connection
            with _migrating:
                command.upgrade(config, "head")


class Database:
    """A connection to the state database; the base of stores."""

    def __init__(self, url: str, *, lock_wait_s: float) -> None:
        self._url = make_url(url)
        self._lock_wait_s = lock_wait_s
        self._engine: Engine | None = None

    def open(self) -> None:
        """Connect, and bring the tables up to date; no effect if that was done.

        Raises `StateUnavailable`, also if a newer release has written it.
        """
        if self._engine is not None:
            return
        with told_as_unavailable(self._url):
            engine = connect(self._url, wait_s=self._lock_wait_s)
            try:
                migrate(engine)
            except BaseException:
                engine.dispose()
                raise
            self._engine = engine

    def is_guarded(self) -> bool:
        """Whether other programs are kept off the database; if not, the log names the remedy.

        Raises `StateUnavailable`.
        """
        if self._url.get_backend_name() != "sqlite":
            return True  # its server does that
        with self._using(reads=True) as engine, engine.begin() as connection:
            connection.exec_driver_sql("SELECT 1 FROM sqlite_master")
            return is_guarded(_path(self._url), connection.connection.info["files"])

    def close(self) -> None:
        """Close all connections; `open` may follow."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    @contextmanager
    def _using(self, *, reads: bool) -> Iterator[Engine]:
        """Yield the engine; a failure meanwhile, or a closed one, raises `StateUnavailable`."""
        if self._engine is None:
            raise StateUnavailable("The state database is not open yet.", retry_after_s=RETRY_AFTER_S)
        with told_as_unavailable(self._url):
            yield reading(self._engine) if reads else self._engine


@contextmanager
def told_as_unavailable(url: URL) -> Iterator[None]:
    """Turn failures of the database into `StateUnavailable`."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError, OSError) as error:
        _refuse(url, error)


def _is_current(connection: Connection, script: ScriptDirectory) -> bool:
    found = MigrationContext.configure(connection).get_current_heads()
    known = {revision.revision for revision in script.walk_revisions()}
    unknown = sorted(set(found) - known)
    if unknown:
        raise StateUnavailable(
            f"The state database was written by a newer release (revision {unknown[0]}, this one knows "
            f"up to {script.get_current_head()}); start that release, or restore the copy made before it."
        )
    return set(found) == set(script.get_heads())


def _refuse(url: URL, error: Exception) -> NoReturn:
    """Log a failure with its place; raise it without."""
    detail = str(error.orig if isinstance(error, DBAPIError) else error).strip() or type(error).__name__
    if url.password:
        for spelling in (str(url.password), quote(str(url.password), safe="")):
            detail = detail.replace(spelling, "***")
    where = url.render_as_string(hide_password=True)
    log.warning("the state database %s does not answer: %s", where, " ".join(detail.split()))
    raise StateUnavailable(
        f"The state database does not answer ({_reason(error)}); nothing was changed. Try again.",
        retry_after_s=RETRY_AFTER_S,
    ) from error


def _reason(error: Exception) -> str:
    """Return the reason in words without secrets."""
    if not isinstance(error, DBAPIError):
        return str(error.strerror) if isinstance(error, OSError) else "no free connection"
    if isinstance(error.orig, sqlite3.Error):
        return str(error.orig)  # SQLite's messages name no files
    # Connection failures name hosts and users, and have no diagnosis by the server.
    diagnosis = getattr(error.orig, "diag", None)
    return getattr(diagnosis, "message_primary", None) or "no connection to its server"


# -- SQLite ------------------------------------------------------------------------------------------------


def _sqlite(url: URL, wait_s: float) -> Engine:
    if not url.database or url.database == ":memory:":
        raise ValueError("the state database must be a file; in memory it would keep nothing")
    path = _path(url)
    _make_file(path)

    def open_file() -> sqlite3.Connection:
        # Never creates the file: an empty one in place of a lost one would be taken for the truth.
        return sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw",
            uri=True,
            timeout=wait_s,
            isolation_level=None,  # BEGIN is ours, below
            check_same_thread=False,
        )

    engine = create_engine(url, creator=open_file)

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, record: Any) -> None:
        record.info["files"] = identities(path)[:1]
        # WAL: readers do not wait for a writer. FULL: what was committed survives a loss of power.
        _use_wal(connection, wait_s)
        for pragma in ("synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()
        connection.execute("SELECT 1 FROM sqlite_master").close()  # the first read makes the journals
        record.info["files"] += identities(path)[1:]

    @event.listens_for(engine, "checkout")
    def look_for_file(connection: Any, record: Any, proxy: Any) -> None:
        files, now = record.info["files"], identities(path)
        if files[0] == now[0]:
            return
        # SQLite would go on writing to the lost file, or replay its journal into the one in its place.
        for journal, before, after in zip(journals(path), files[1:], now[1:], strict=True):
            if before == after:
                journal.unlink(missing_ok=True)
        raise DisconnectionError

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # IMMEDIATE: two writers wait for each other here, where waiting helps, not at their first write.
        reads = connection.get_execution_options().get("tenantry_reads")
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _path(url: URL) -> Path:
    return Path(url.database or "").absolute()


def _use_wal(connection: sqlite3.Connection, wait_s: float) -> None:
    """Switch a file to write-ahead logging; SQLite does not wait by itself while another process does it."""
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline_s:
                raise
        time.sleep(_WAL_RETRY_S)


def _make_file(path: Path) -> None:
    """Create the file, empty, if it is missing; only its owner may read it: it holds hashes of keys.

    It is made under another name and never opened under its own: see `routing.state.guard`.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        descriptor, made = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        os.close(descriptor)
        try:
            with suppress(FileExistsError):  # another process was quicker
                os.link(made, path)
        finally:
            os.unlink(made)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        with suppress(PermissionError):  # another user's, but readable for us
            path.chmod(0o600)


# -- PostgreSQL --------------------------------------------------------------------------------------------


def _postgresql(url: URL, wait_s: float) -> Engine:
    engine = create_engine(
        url,
        pool_size=1,
        max_overflow=4,
        pool_timeout=wait_s,
        pool_pre_ping=True,  # a server that was restarted is noticed before a transaction, not in it
        connect_args={
            "connect_timeout": _CONNECT_S,
            "tcp_user_timeout": int(wait_s * 1000),  # for a server whose machine is gone
            "application_name": "tenantry",
            "prepare_threshold": None,  # works behind PgBouncer too
        },
    )

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        wait = f"{int(wait_s * 1000)}ms"
        connection.exec_driver_sql(
            f"SELECT set_config('lock_timeout', '{wait}', true), "
            f"set_config('statement_timeout', '{wait}', true)"
        )

    return engine

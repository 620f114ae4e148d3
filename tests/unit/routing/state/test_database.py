"""A database that is locked, lost, full, broken or stopped: what is told, what is kept, how it goes on."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adapters.states import VersionState
from routing.catalog.entries import AdapterKey, ApiKey, KeyRole
from routing.catalog.sources import Upload
from routing.errors import StateUnavailable
from routing.state import StateStore
from tests.unit.routing.state.postgresql import Server

KEY = AdapterKey("acme", "support")
NEW = AdapterKey("acme", "sales")
ROOT = Path(__file__).parents[4]


@pytest.fixture
def path(sqlite_url: str) -> Path:
    return Path(sqlite_url.removeprefix("sqlite:///"))


@pytest.fixture
def impatient(sqlite_url: str) -> Iterator[StateStore]:
    """A store with one adapter, on SQLite, that hardly waits for locks."""
    store = StateStore(sqlite_url, lock_wait_s=0.05)
    store.open()
    store.add_adapter(KEY, "base", declared=False)
    yield store
    store.close()


def writes(store: StateStore) -> list[Callable[[], object]]:
    """One call of each kind that writes."""
    key = ApiKey("k", "tnt_", "a" * 64, KeyRole.INFERENCE, "acme")
    return [
        lambda: store.add_adapter(NEW, "base", declared=False),
        lambda: store.add_version(KEY, source=Upload("sent"), sha256=None),
        lambda: store.route(KEY, live=None, previous=None, rollout=None),
        lambda: store.set_pinned(KEY, True),
        lambda: store.set_base_model(KEY, "other"),
        lambda: store.remove(KEY),
        lambda: store.add_key(key),
        lambda: store.revoke_key("k", 1.0),
        lambda: store.record("a", "b", "c"),
    ]


def refused(call: Callable[[], object], why: str) -> StateUnavailable:
    with pytest.raises(StateUnavailable, match=why) as caught:
        call()
    assert caught.value.status == 503
    assert caught.value.retry_after_s
    return caught.value


# -- SQLite ------------------------------------------------------------------------------------------------


def test_while_another_process_writes_readers_go_on_and_writers_give_up(
    impatient: StateStore, path: Path
) -> None:
    before = impatient.load()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for call in writes(impatient):
        refused(call, "database is locked")
    assert impatient.load() == before
    other.execute("ROLLBACK")
    other.close()
    assert impatient.load() == before
    impatient.add_adapter(NEW, "base", declared=False)


def test_a_lock_that_is_soon_given_back_is_waited_for(sqlite_url: str, path: Path) -> None:
    store = StateStore(sqlite_url, lock_wait_s=30)
    store.open()
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('BEGIN IMMEDIATE'); print('locked', flush=True); sys.stdin.readline(); "
        "c.execute('ROLLBACK')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        other.stdin.write("\n")
        other.stdin.flush()
        store.add_adapter(KEY, "base", declared=False)
    assert len(store.load()[0]) == 1
    store.close()


def test_a_deleted_file_is_missed_at_once_and_never_replaced_by_an_empty_one(
    impatient: StateStore, path: Path, tmp_path: Path
) -> None:
    with sqlite3.connect(path) as source, sqlite3.connect(tmp_path / "copy.db") as copy:
        source.backup(copy)
    source.close()
    copy.close()
    before = impatient.load()
    path.unlink()
    for call in (*writes(impatient), impatient.load, lambda: impatient.events(1)):
        refused(call, "unable to open database file")
        assert not path.exists()
    shutil.copyfile(tmp_path / "copy.db", path)
    assert impatient.load() == before
    impatient.add_adapter(NEW, "base", declared=False)
    with sqlite3.connect(path) as direct:
        assert direct.execute("SELECT count(*) FROM adapters").fetchone() == (2,)
    direct.close()


def test_a_file_that_was_replaced_is_read_anew_and_nothing_of_the_old_one_with_it(
    impatient: StateStore, path: Path
) -> None:
    other = StateStore(f"sqlite:///{path.parent}/other.db")
    other.open()
    other.add_adapter(NEW, "base", declared=False)
    other.close()
    os.replace(path.parent / "other.db", path)
    assert [entry.key for entry in impatient.load()[0]] == [NEW]
    impatient.set_pinned(NEW, True)
    with sqlite3.connect(path) as direct:
        assert direct.execute("SELECT name, pinned FROM adapters").fetchall() == [(NEW.name, 1)]
        assert direct.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    direct.close()


@contextmanager
def no_file_larger_than(size_bytes: int) -> Iterator[None]:
    """Let writes beyond a size fail, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_refuses_changes_and_loses_none(impatient: StateStore, path: Path) -> None:
    before = impatient.load()
    with no_file_larger_than(1000):
        refused(lambda: impatient.add_adapter(NEW, "base", declared=False), "disk")
        assert impatient.load() == before
    impatient.add_adapter(NEW, "base", declared=False)
    with sqlite3.connect(path) as direct:
        assert direct.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    direct.close()


@contextmanager
def as_another_user() -> Iterator[None]:
    """Root may write to everything, so give that up for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_that_may_not_be_written_is_told(caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(tempfile.mkdtemp(prefix="tenantry-state-"))  # pytest's own folders are for one user
    folder.chmod(0o755)
    url = f"sqlite:///{folder}/state.db"
    store = StateStore(url, lock_wait_s=0.2)
    store.open()
    store.close()
    (folder / "state.db").chmod(0o444)
    folder.chmod(0o555)
    try:
        with as_another_user():
            error = refused(store.open, "readonly database|unable to open")
            assert str(folder) not in str(error)
            assert str(folder) in caplog.text
            blocked = StateStore(f"sqlite:///{folder}/below/state.db")
            refused(blocked.open, "Permission denied")
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_file_that_is_no_database_is_told(sqlite_url: str, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 1000)
    refused(StateStore(sqlite_url).open, "file is not a database")
    assert path.read_bytes().startswith(b"no database at all")


def test_nobody_else_may_read_the_file(sqlite_url: str, path: Path, impatient: StateStore) -> None:
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    assert len(list(path.parent.iterdir())) == 3, "and those beside it are there to be looked at"
    impatient.close()
    path.chmod(0o644)
    impatient.open()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_was_committed_is_on_disk(impatient: StateStore, path: Path) -> None:
    with impatient._transaction() as session:
        connection = session.connection()
        found = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert found == ["wal", 2, 1]


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must be a file"):
        StateStore(url).open()


def test_a_path_with_any_character_works(tmp_path: Path) -> None:
    from fleet.types import StateSettings

    folder = tmp_path / "a b?c#d%20é&e"
    store = StateStore(StateSettings(folder=str(folder)).database_url)
    store.open()
    store.close()
    assert (folder / "state.db").is_file()
    assert [entry.name for entry in tmp_path.iterdir()] == [folder.name]


WRITER = """
import sys
from adapters.states import VersionState as S
from routing.catalog.entries import AdapterKey
from routing.catalog.sources import Upload
from routing.state import StateStore

store = StateStore(sys.argv[1])
store.open()
key = AdapterKey("acme", "support")
while True:
    version = store.add_version(key, source=Upload("sent"), sha256=None)
    for state in (S.FETCHING, S.VERIFYING, S.READY):
        version = store.move(version, state)
    store.route(key, live=version.number, previous=None, rollout=None)
    print(version.number, flush=True)
"""


def test_a_process_that_is_killed_leaves_everything_it_was_told_is_kept(store: StateStore, url: str) -> None:
    store.add_adapter(KEY, "base", declared=False)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as writer:
        assert writer.stdout is not None
        told = 0
        while told < 20:
            told = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
    told = int(rest[-1]) if rest else told
    ((entry,), _) = store.load()
    assert entry.live in (told, told + 1)
    assert [version.number for version in entry.versions] == list(range(1, len(entry.versions) + 1))
    assert all(version.state is VersionState.READY for version in entry.versions[:told])
    assert store.add_version(KEY, source=Upload("sent"), sha256=None).number == len(entry.versions) + 1


def test_a_process_that_is_killed_inside_a_write_changes_nothing(impatient: StateStore, path: Path) -> None:
    before = impatient.load()
    script = (
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('PRAGMA cache_size=1'); c.execute('BEGIN IMMEDIATE'); "
        "insert = 'INSERT INTO events VALUES (NULL, 1, ?, ?, ?, NULL, NULL)'; "
        "[c.execute(insert, ('x' * 5000,) * 3) for _ in range(100)]; "
        "print('inside', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "inside\n"
        assert Path(f"{path}-wal").stat().st_size > 1_000_000, "half of it is on disk"
        refused(lambda: impatient.set_pinned(KEY, True), "database is locked")
        writer.send_signal(signal.SIGKILL)
    assert impatient.load() == before
    assert impatient.events(10) == []
    impatient.set_pinned(KEY, True)


# -- PostgreSQL --------------------------------------------------------------------------------------------


@pytest.fixture
def remote(server: Server) -> Iterator[StateStore]:
    """A store with one adapter, on PostgreSQL."""
    store = StateStore(server.url(server.new_database()))
    store.open()
    store.add_adapter(KEY, "base", declared=False)
    yield store
    store.close()


def test_a_locked_table_is_given_up_on(remote: StateStore, server: Server) -> None:
    before = remote.load()
    impatient = StateStore(remote._url.render_as_string(hide_password=False), lock_wait_s=0.1)
    impatient.open()
    with server.connect(str(remote._url.database)) as other:
        other.execute("BEGIN")
        other.execute("LOCK TABLE adapters, versions, api_keys, events IN ACCESS EXCLUSIVE MODE")
        for call in (*writes(impatient), impatient.load):
            refused(call, "lock timeout|statement timeout")
        other.execute("ROLLBACK")
    impatient.close()
    assert remote.load() == before
    remote.add_adapter(NEW, "base", declared=False)


def test_a_server_that_was_stopped_and_started_again_is_used_again(
    remote: StateStore, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    before = remote.load()
    server.stop()
    try:
        for call in (*writes(remote), remote.load):
            error = refused(call, r"does not answer \(no connection to its server\); nothing was changed")
            assert not {str(server.port), server.password, "127.0.0.1"} & set(str(error).split())
    finally:
        server.start()
    assert f"127.0.0.1:{server.port}" in caplog.text
    assert server.password not in caplog.text
    assert server.password.replace("@", "%40") not in caplog.text
    assert remote.load() == before
    remote.add_adapter(NEW, "base", declared=False)


def test_a_connection_that_was_cut_is_replaced(remote: StateStore, server: Server) -> None:
    with server.connect("postgres") as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tenantry'"
        )
    remote.add_adapter(NEW, "base", declared=False)


def test_a_server_that_goes_in_the_middle_of_a_change_leaves_nothing_of_it(
    remote: StateStore, server: Server
) -> None:
    def half() -> None:
        with remote._transaction() as session:
            session.connection().exec_driver_sql("DELETE FROM adapters")
            server.stop()
            session.connection().exec_driver_sql("DELETE FROM versions")

    try:
        refused(half, "does not answer")
    finally:
        server.start()
    assert [entry.key for entry in remote.load()[0]] == [KEY]


@pytest.mark.parametrize("password", ["wrong-w@rd", "hunter2"])
def test_a_wrong_password_is_neither_told_nor_logged(
    server: Server, password: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    store = StateStore(server.url("postgres", password))
    error = refused(store.open, "no connection to its server")
    assert password not in f"{error}{error!r}{store!r}{caplog.text}"
    assert "password authentication failed" in caplog.text


def test_a_database_that_is_not_there_is_told(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    refused(StateStore(server.url("nothing_here")).open, "does not answer")
    assert 'database "nothing_here" does not exist' in caplog.text

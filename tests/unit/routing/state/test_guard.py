"""Nothing takes SQLite's locks away from this process, and what took them would be noticed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adapters.states import VersionState
from routing.catalog.entries import AdapterKey
from routing.state import StateStore, guard
from routing.usage import UsageStore

ROOT = Path(__file__).parents[4]
OUTSIDER = """
import os, sqlite3, sys
with sqlite3.connect(sys.argv[1]) as source, sqlite3.connect(sys.argv[2]) as copy:
    source.backup(copy)
    source.execute("SELECT count(*) FROM adapters").fetchone()
source.close(), copy.close()
"""

pytestmark = pytest.mark.skipif(
    not guard.DESCRIPTORS.exists(), reason="the system does not say who has which lock"
)


@pytest.fixture
def path(sqlite_url: str) -> Path:
    return Path(sqlite_url.removeprefix("sqlite:///"))


@pytest.fixture
def stores(sqlite_url: str) -> Iterator[tuple[StateStore, UsageStore]]:
    both = StateStore(sqlite_url), UsageStore(sqlite_url)
    yield both
    for store in both:
        store.close()


def locks_on(path: Path) -> list[set[guard.Span]]:
    """First and last bytes of what this process has locked of the database, then of its shared memory."""
    files = [file.stat() for file in (path, Path(f"{path}-shm"))]
    return [guard.locks_on((file.st_dev, file.st_ino)) for file in files]


def visit(path: Path) -> None:
    """Do what an operator's backup does, in another process."""
    copy = path.with_name("copy.db")
    subprocess.run([sys.executable, "-c", OUTSIDER, path, copy], check=True)


HELD = [{(0x40000002, 0x40000002 + 509)}, {(128, 128)}]


@pytest.mark.parametrize("exists", [False, True], ids=["new file", "file that is there"])
@pytest.mark.parametrize("order", ["su", "us", "sus", "usu", "suss"])
def test_in_whatever_order_stores_are_opened_the_locks_stay(
    stores: tuple[StateStore, UsageStore], sqlite_url: str, path: Path, order: str, exists: bool
) -> None:
    if exists:
        earlier = StateStore(sqlite_url)
        earlier.open()
        earlier.close()
        path.chmod(0o644)  # which is put right, without opening it
    for store in order:
        stores["su".index(store)].open()
        assert locks_on(path) == HELD
    stores[1].close()
    assert locks_on(path) == HELD
    assert stores[0].is_guarded()


def test_a_visitor_leaves_the_journal_where_it_is(
    stores: tuple[StateStore, UsageStore], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for store in stores:
        store.open()
    before = guard.identities(path)
    visit(path)
    assert guard.identities(path) == before
    assert stores[0].is_guarded()
    assert not caplog.records


def lose(path: Path) -> None:
    """Close a descriptor of a file, as anything in this process might."""
    os.close(os.open(path, os.O_RDONLY))


@pytest.mark.parametrize("lost", ["", "-shm"])
def test_a_lost_lock_is_noticed_and_taken_again(
    stores: tuple[StateStore, UsageStore], path: Path, lost: str, caplog: pytest.LogCaptureFixture
) -> None:
    for store in stores:
        store.open()
    lose(Path(f"{path}{lost}"))
    assert locks_on(path) != HELD
    assert stores[0].is_guarded()
    assert locks_on(path) == HELD
    assert "was lost and has been taken again" in caplog.text
    before = guard.identities(path)
    visit(path)
    assert guard.identities(path) == before
    caplog.clear()
    assert stores[0].is_guarded()
    assert not caplog.records


@contextmanager
def locked_elsewhere(path: Path) -> Iterator[None]:
    """Have another process in the midst of closing the database for good."""
    script = (
        "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX, 510, 0x40000002); "
        "print('locked', flush=True); sys.stdin.readline()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        yield
        other.stdin.close()


def test_a_lock_that_cannot_be_taken_again_is_told(
    stores: tuple[StateStore, UsageStore], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stores[0].open()
    lose(path)
    with locked_elsewhere(path):
        assert not stores[0].is_guarded()
    assert "cannot be taken again" in caplog.text
    assert stores[0].is_guarded(), "and it is tried again"


@pytest.mark.parametrize("journal", ["-wal", "-shm"])
def test_a_journal_that_was_deleted_in_use_is_told(
    stores: tuple[StateStore, UsageStore], path: Path, journal: str, caplog: pytest.LogCaptureFixture
) -> None:
    stores[0].open()
    Path(f"{path}{journal}").unlink()
    assert not stores[0].is_guarded()
    assert "has deleted or replaced the journal" in caplog.text


@pytest.mark.parametrize(
    "page", [None, "", "pos:\t0\nflags:\t0100002\n", "lock:\t1: FLOCK 1 fe:00:1 0 EOF\n"]
)
def test_where_the_system_says_nothing_of_locks_nothing_is_claimed(
    stores: tuple[StateStore, UsageStore],
    path: Path,
    page: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = tmp_path / "fdinfo"
    monkeypatch.setattr(guard, "DESCRIPTORS", said)
    if page is not None:
        said.mkdir()
        for descriptor in range(256):
            (said / str(descriptor)).write_text(page)
    stores[0].open()
    lose(path)
    assert stores[0].is_guarded()
    assert not caplog.records
    assert sorted(file.name for file in path.parent.iterdir()) == ["state.db", "state.db-shm", "state.db-wal"]


def test_other_processes_that_lock_and_unlock_hide_nothing(
    stores: tuple[StateStore, UsageStore], path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for store in stores:
        store.open()
    script = (
        "import fcntl, sys\n"
        "files = [open(f'{sys.argv[1]}/{n}', 'w') for n in range(150)]\n"
        "print(flush=True)\n"
        "while True:\n"
        "    for file in files: fcntl.lockf(file, fcntl.LOCK_EX)\n"
        "    for file in files: fcntl.lockf(file, fcntl.LOCK_UN)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        seen = [locks_on(path) for _ in range(300)]
        other.kill()
    assert seen == [HELD] * len(seen)
    assert stores[0].is_guarded()
    assert not caplog.records


GATEWAY = """
import sys
from adapters.states import VersionState as S
from routing.catalog.entries import AdapterKey, ApiKey, KeyRole
from routing.catalog.sources import Upload
from routing.state import StateStore
from routing.usage import UsageStore
from tests.unit.routing.usage import made

state, usage = StateStore(sys.argv[1]), UsageStore(sys.argv[1])
state.open(), usage.open()
key = AdapterKey("acme", "support")
state.add_adapter(key, "base", declared=False)
state.add_key(ApiKey("old", "tnt_", "0" * 64, KeyRole.INFERENCE, "acme"))
print("open", flush=True)
for number in range(1, 1000):
    sys.stdin.readline()
    usage.write(made.rows(made.record(), start=f"{number:012x}"))
    version = state.add_version(key, source=Upload("sent"), sha256=None)
    for step in (S.FETCHING, S.VERIFYING, S.READY):
        version = state.move(version, step)
    state.add_key(ApiKey(f"k{number}", "tnt_", f"{number:064x}", KeyRole.INFERENCE, "acme"))
    state.revoke_key("old" if number == 1 else f"k{number - 1}", 1.0)
    print(number, flush=True)
"""


def test_nothing_is_lost_that_was_written_after_a_backup_when_the_process_is_killed(
    sqlite_url: str, path: Path
) -> None:
    told = 0
    with subprocess.Popen(
        [sys.executable, "-c", GATEWAY, sqlite_url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as gateway:
        assert gateway.stdin is not None
        assert gateway.stdout is not None
        assert gateway.stdout.readline() == "open\n"
        for _ in range(3):
            for _ in range(3):
                gateway.stdin.write("\n")
                gateway.stdin.flush()
                told = int(gateway.stdout.readline())
            visit(path)
        gateway.stdin.write("\n")
        gateway.stdin.flush()
        told = int(gateway.stdout.readline())
        gateway.send_signal(signal.SIGKILL)
    store = StateStore(sqlite_url)
    store.open()
    entries, keys = store.load()
    store.close()
    assert [entry.key for entry in entries] == [AdapterKey("acme", "support")]
    assert [version.state for version in entries[0].versions] == [VersionState.READY] * told
    assert {key.id for key in keys if key.revoked_s is None} == {f"k{told}"}
    assert len(keys) == told + 1
    with sqlite3.connect(path) as direct:
        assert direct.execute("SELECT count(*) FROM usage_records").fetchone() == (told,)
        assert direct.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    direct.close()


def test_nothing_but_sqlite_opens_the_files(sqlite_url: str) -> None:
    """Run all that this process does with the database, with an ear on what Python opens meanwhile."""
    script = (
        "import sys\n"
        "heard = []\n"
        "def hear(event, args):\n"
        "    if event == 'open' and 'state.db' in str(args[0]) and '/.state.db-' not in str(args[0]):\n"
        "        heard.append(args[0])\n"
        "sys.addaudithook(hear)\n"
        "from routing.state import StateStore\n"
        "from routing.usage import UsageStore\n"
        "state, usage = StateStore(sys.argv[1]), UsageStore(sys.argv[1])\n"
        "for _ in range(2):\n"
        "    state.open(), usage.open(), state.load(), state.record('a', 'b', 'c'), state.is_guarded()\n"
        "    state.close(), usage.close()\n"
        "print(heard)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, sqlite_url], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert run.stdout == "[]\n"

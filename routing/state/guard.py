"""Does this process still hold its locks on a SQLite file? Only they keep other programs off it.

POSIX drops every lock that a process has on a file as soon as the process closes *any* descriptor of it, so
only SQLite may open the file, or its `-shm`, here. Without the locks, a program that opens and closes the
database (`sqlite3 state.db .backup`) takes itself for the last one and deletes the journal that is being
written to: https://sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_
"""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# What the system says of a descriptor of this process, with the locks that were taken through it. /proc/locks
# has all processes' locks, but is read page by page: what others lock meanwhile hides or doubles lines.
DESCRIPTORS = Path("/proc/self/fdinfo")
log = logging.getLogger("tenantry.state")

Identity = tuple[int, int] | None
Span = tuple[int, int]  # first and last byte of a lock
_kept: list[int] = []  # descriptors of locks that were put back; closing one would drop the locks again


@dataclass(frozen=True, slots=True)
class _Lock:
    """Bytes of a file that every open connection in write-ahead mode has a shared lock on."""

    suffix: str
    start: int
    length: int

    @property
    def span(self) -> Span:
        return self.start, self.start + self.length - 1


_HELD = (
    _Lock("", 0x40000002, 510),  # SHARED_FIRST and SHARED_SIZE of SQLite's os.h
    _Lock("-shm", 128, 1),  # UNIX_SHM_DMS of os_unix.c
)


def journals(path: Path) -> list[Path]:
    """Return the files that SQLite keeps beside a database."""
    return [path.with_name(f"{path.name}-{kind}") for kind in ("wal", "shm")]


def identities(path: Path) -> list[Identity]:
    """Tell the file and its journals from others at the same place."""
    return [_identity(file) for file in (path, *journals(path))]


def is_guarded(path: Path, opened: Sequence[Identity]) -> bool:
    """Whether other programs are kept off a database; call it while a connection to it is open.

    `opened` are that connection's files. A lost lock is taken again. True too where it
    cannot be checked: everywhere but on Linux. Logs the fault.
    """
    if list(opened) != identities(path):
        log.error(
            "another program has deleted or replaced the journal of %s while it was in use: changes "
            "from now on may be lost. Stop the gateway (SIGTERM) and start it again",
            path,
        )
        return False
    held = [_is_held(path, lock) or _take_again(path, lock) for lock in _HELD]
    return all(held)


def _is_held(path: Path, lock: _Lock) -> bool:
    try:
        file = Path(f"{path}{lock.suffix}").stat()
        return lock.span in locks_on((file.st_dev, file.st_ino)) or not _is_told_of(path.parent, lock)
    except OSError:  # no such file here, or no room for a file
        return True


def _is_told_of(folder: Path, lock: _Lock) -> bool:
    """Whether the system shows our locks in this folder at all; some sandboxes show none."""
    with tempfile.TemporaryFile(dir=folder) as file:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, lock.length, lock.start)
        return lock.span in _locks_of(file.fileno())


def locks_on(file: Identity) -> set[Span]:
    """Return the first and last byte of each lock that this process has on a file."""
    found: set[Span] = set()
    with suppress(OSError):  # no such folder here
        for name in os.listdir(DESCRIPTORS):
            with suppress(OSError):  # closed since
                opened = os.fstat(int(name))
                if (opened.st_dev, opened.st_ino) == file:
                    found |= _locks_of(int(name))
    return found


def _locks_of(descriptor: int) -> set[Span]:
    """Read lines such as `lock: 1: POSIX ADVISORY READ 4242 fe:00:2146560 128 128`."""
    try:
        lines = (DESCRIPTORS / str(descriptor)).read_text().splitlines()
    except OSError:
        return set()
    locks = [line.split() for line in lines if line.startswith("lock:")]
    return {(int(first), int(last)) for *_, first, last in locks if last.isdecimal()}  # or EOF


def _take_again(path: Path, lock: _Lock) -> bool:
    file = f"{path}{lock.suffix}"
    with suppress(OSError):
        # Never closed, even if the lock cannot be taken: SQLite's other locks on it would go.
        _kept.append(os.open(file, os.O_RDWR | os.O_CLOEXEC))
        fcntl.lockf(_kept[-1], fcntl.LOCK_SH | fcntl.LOCK_NB, lock.length, lock.start)
        log.error("the lock on %s was lost and has been taken again; something here opened the file", file)
        return True
    log.error(
        "the lock on %s is lost and cannot be taken again: other programs may damage the database. Let none "
        "open it, stop the gateway (SIGTERM) and start it again",
        file,
    )
    return False


def _identity(path: Path) -> Identity:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino

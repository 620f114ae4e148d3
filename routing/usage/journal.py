"""Where do records wait while the database is away? In files of the state folder, one JSON row to a line.

A file has one writer, which holds a lock on it and never opens it again once it is closed. What was appended
is on disk when the call returns. A file that nobody writes is read back whole and removed once its rows are
in the database; where that is cut short it is read again, and the rows' ids keep them from counting twice.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson

from routing.usage.entries import Row, whole

MAX_BYTES = 256 * 2**20  # of all files; a record takes some 300, so that is about 900 000
SEGMENT_BYTES = 8 * 2**20  # of one; it is read back whole
log = logging.getLogger("tenantry.usage")


class Journal:
    """The files of one folder. Safe to use from several threads; other processes keep theirs there too."""

    def __init__(self, folder: Path, start: str, *, max_bytes: int = MAX_BYTES) -> None:
        """`start` names this process's files; nothing is touched yet."""
        self._folder = folder
        self._start = start
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._file: int | None = None
        self._size = 0  # of the open file
        self._number = 0

    def append(self, rows: Sequence[Row]) -> bool:
        """Put rows on disk; returns whether there was room. Raises `OSError` where the disk fails."""
        data = b"".join(orjson.dumps(row) + b"\n" for row in rows)
        with self._lock:
            if self._used_bytes() + len(data) > self._max_bytes:
                return False
            if self._file is None:
                self._begin()
            assert self._file is not None  # noqa: S101 - just begun
            before = self._size
            try:
                while data:
                    data = data[os.write(self._file, data) :]
                os.fsync(self._file)
            except OSError:
                # Half a row at the end would spoil the next one.
                with suppress(OSError):
                    os.ftruncate(self._file, before)
                raise
            self._size = os.fstat(self._file).st_size
            if self._size > SEGMENT_BYTES:
                self._close()
        return True

    def waiting(self) -> bool:
        """Whether any file is there to be read back, by whomever it was written."""
        return any(self._files())

    @contextmanager
    def oldest(self) -> Iterator[tuple[Path, list[Row]] | None]:
        """Give the rows of the oldest file that nobody writes, held against others; None: there is none."""
        with self._lock:
            self._close()
        for path in sorted(self._files()):
            held = _hold(path)
            if held is None:
                continue
            try:
                yield path, _read(path, held)
            finally:
                os.close(held)
            return
        yield None

    def remove(self, path: Path) -> None:
        """Remove a file whose rows are elsewhere by now."""
        path.unlink(missing_ok=True)
        self._sync_folder()

    def set_aside(self, path: Path) -> Path:
        """Keep a file, and read it no more; returns its new name."""
        return path.rename(path.with_suffix(".late"))

    def close(self) -> None:
        """Stop writing; what was written stays for the next start."""
        with self._lock:
            self._close()

    def _begin(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{self._start}-{self._number:06}.jsonl"
        self._number += 1
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            _lock(file)
        except OSError:  # whoever reads has taken it, and removes it
            os.close(file)
            raise
        self._file, self._size = file, 0
        self._sync_folder()

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _files(self) -> Iterator[Path]:
        return self._folder.glob("*.jsonl")

    def _used_bytes(self) -> int:
        used = 0
        for path in self._files():
            with suppress(OSError):
                used += path.stat().st_size
        return used

    def _sync_folder(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _hold(path: Path) -> int | None:
    """Open a file and lock it; None where somebody writes or reads it, or has removed it."""
    try:
        held = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        _lock(held)
    except (BlockingIOError, FileNotFoundError):
        os.close(held)
        return None
    return held


def _lock(file: int) -> None:
    """Lock an open file. Raises `BlockingIOError` where somebody has it, `FileNotFoundError` once it is gone."""
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if os.fstat(file).st_nlink == 0:
        raise FileNotFoundError(errno.ENOENT, "it was removed meanwhile")


def _read(path: Path, held: int) -> list[Row]:
    """Read the rows; one that was cut off by a crash is no row."""
    with os.fdopen(os.dup(held), "rb") as file:
        lines = file.read().split(b"\n")
    rows = []
    for line in filter(None, lines):
        try:
            read = orjson.loads(line)
        except orjson.JSONDecodeError:
            read = None
        row = whole(read) if isinstance(read, list) else None
        if row is not None:
            rows.append(row)
        else:
            log.warning("%s holds a line that is no record; a crash has cut it off", path.name)
    return rows

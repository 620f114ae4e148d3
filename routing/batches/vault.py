"""The files of all tenants, and what unfinished batches have on this machine. Everything here blocks.

FOLDER/files/          files, where they are kept in no bucket
FOLDER/incoming/       files while they are written
FOLDER/journals/       what the lines of unfinished batches were answered
FOLDER/home, lock      whose folder it is; which process uses it
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from routing.batches.journal import Journal
from routing.batches.sealing import FRAME_BYTES, DamagedFile, Sealer
from routing.batches.storage import Storage, storage_at, sync_folder


class FileWriter:
    """A file that is being written, in pieces of any size."""

    def __init__(self, path: Path, name: str, sealer: Sealer, storage: Storage) -> None:
        self.name, self.size_bytes = name, 0
        self._path = path
        self._sealer, self._storage = sealer, storage
        self._waiting = bytearray()
        self._frames = 0
        self._file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._path.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Add a piece. Raises `OSError`."""
        self.size_bytes += len(data)
        self._waiting += data
        while len(self._waiting) >= FRAME_BYTES:
            self._write_frame(bytes(self._waiting[:FRAME_BYTES]))
            del self._waiting[:FRAME_BYTES]

    def finish(self) -> None:
        """Give it its name and place; it is on disk then. Raises `OSError`."""
        if self._waiting:
            self._write_frame(bytes(self._waiting))
        os.fsync(self._file)
        os.close(self._file)
        self._file = -1
        self._storage.keep(self._path, self.name)

    def _write_frame(self, data: bytes) -> None:
        rest = memoryview(self._sealer.seal(data, self.name, self._frames))
        self._frames += 1
        while rest:
            rest = rest[os.write(self._file, rest) :]


class Vault:
    """The folder of one gateway, and where its files are kept."""

    def __init__(self, folder: Path, *, address: str | None = None, key: bytes | None = None) -> None:
        """`address` is a bucket for files, `key` seals all that is written. Nothing is touched yet."""
        self._folder = folder
        self._sealer = Sealer(key)
        self._storage = storage_at(folder / "files", address)
        self._is_local = address is None
        self._lock: int | None = None

    def take(self) -> None:
        """Take the folder for this process. Raises `OSError`, as while an earlier one still has it."""
        for name in ("incoming", "journals"):
            (self._folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise OSError("another gateway has not ended yet") from None
        self._lock = lock

    def release(self) -> None:
        """Let another process take the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def home(self) -> str:
        """Return the name of this folder, which no other one has. Raises `OSError`."""
        path = self._folder / "home"
        with suppress(FileNotFoundError):
            return path.read_text()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = path.with_name(f"home-{secrets.token_hex(8)}")
        made.write_text(secrets.token_hex(16))
        with suppress(FileExistsError):  # another process was quicker
            os.link(made, path)
        made.unlink()
        sync_folder(self._folder)
        return path.read_text()

    def sweep(self, known: set[str]) -> None:
        """Remove what a killed process has left: half-written files, and whole ones that nobody knows."""
        left = list((self._folder / "incoming").glob("*"))
        if self._is_local:
            left += [path for path in (self._folder / "files").glob("*") if path.name not in known]
        for path in left:
            path.unlink(missing_ok=True)

    def write(self, name: str) -> FileWriter:
        """Begin a file; used as a context, after which nothing is left but what was finished."""
        folder = self._folder / "incoming"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return FileWriter(folder / f"{name}-{secrets.token_hex(4)}", name, self._sealer, self._storage)

    def read(self, name: str, size_bytes: int) -> Iterator[bytes]:
        """Give the content of a file in pieces. Raises `OSError`, `DamagedFile`."""
        read_bytes = 0
        with self._storage.open(name) as file:
            for data in self._sealer.frames(file, name):
                read_bytes += len(data)
                yield data
        if read_bytes != size_bytes:
            raise DamagedFile(f"it has {read_bytes} bytes and not {size_bytes}")

    def remove(self, name: str) -> None:
        """Remove a file, if it is there. Raises `OSError`."""
        self._storage.remove(name)

    def journal(self, batch_id: str) -> Journal:
        """Return the journal of a batch."""
        return Journal(self._journal_path(batch_id), self._sealer)

    def drop_journal(self, batch_id: str) -> None:
        """Remove the journal of a batch that has ended."""
        self._journal_path(batch_id).unlink(missing_ok=True)

    def _journal_path(self, batch_id: str) -> Path:
        return self._folder / "journals" / batch_id

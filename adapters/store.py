"""Versions' files on this machine, and the choice of which to delete when room is short.

    <folder>/<digest[:2]>/<digest>/   one version, whole: nothing is written here, it is renamed to here
    <folder>/.staging/<key's hash>/   fetches in progress; continued after a restart
    <folder>/.trash/                  deletions in progress

A version appears and vanishes by one rename, so it is whole or absent even if this process is killed. One
process at a time owns the folder: the gateway for as long as it runs, an engine's host while it fetches.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import uuid4

from adapters.checkpoint import ADAPTER
from adapters.disk import writing
from adapters.errors import AdapterError, ChecksumMismatch, StoreFull
from adapters.kind import Kind, never

_DIGEST = re.compile(r"[0-9a-f]{64}")
_PRIVATE = 0o700
_READ_ONLY = 0o444


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A version in the store."""

    digest: str
    size_bytes: int
    last_used_s: float  # Unix time


class VersionStore:
    """Versions of adapters, or of whole models, addressed by content. Safe to call from several threads."""

    def __init__(self, folder: Path, *, budget_bytes: int | None = None, kind: Kind = ADAPTER) -> None:
        """`budget_bytes` bounds the total size of versions that `make_room` allows; None: no bound."""
        self._folder = folder
        self._staging = folder / ".staging"
        self._trash = folder / ".trash"
        self._budget_bytes = budget_bytes
        self._kind = kind
        self._lock = threading.RLock()
        self._lock_file: int | None = None

    def open(self, *, wait: bool = False) -> None:
        """Take the folder for this process. If another one has it, `wait`, or raise `AdapterError`."""
        for folder in (self._folder, self._staging, self._trash):
            folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
            folder.chmod(_PRIVATE)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock_file = os.open(self._folder / ".lock", flags, 0o600)
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(lock_file)
            raise AdapterError(
                f"the {self._kind.noun} store {self._folder} is in use by another process; stop that one, "
                "or give this one a state folder of its own"
            ) from None
        self._lock_file = lock_file

    def close(self) -> None:
        """Release the folder; may be called again."""
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def __enter__(self) -> Self:
        """Open, for `with`."""
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def sweep(self, wanted_keys: Collection[str]) -> None:
        """Clean up after a crash: broken versions, half deletions, and staging folders of unwanted keys."""
        with self._lock:
            staged = {self._staged(key) for key in wanted_keys}
            for path in self._staging.iterdir():
                if path not in staged:
                    self._delete(path)
            for path in self._trash.iterdir():
                _remove_tree(path)
            for folder in self._version_folders():
                if not self.has(folder.name):
                    self._delete(folder)

    def stage(self, key: str) -> Path:
        """Return the folder for a key's files; the same one until it is published or discarded."""
        staged = self._staged(key)
        with writing():
            staged.mkdir(mode=_PRIVATE, exist_ok=True)
        return staged

    def discard(self, key: str) -> None:
        """Remove a key's staging folder."""
        self._delete(self._staged(key))

    def publish(self, key: str, digest: str) -> Path:
        """Make a key's staged files a version, and return its folder.

        If the version is already there, the staged files are dropped. Raises `ChecksumMismatch` if the
        files are not those of the digest, and `StoreFull`.
        """
        staged, target = self._staged(key), self.folder_of(digest)
        if not staged.exists() and self.has(digest):
            return target
        with writing(), contextlib.suppress(AdapterError):  # the checks below report it
            self._kind.put_plainly(staged)
        names = self._check_staged(staged, digest)
        with writing():
            for path in staged.iterdir():
                if path.name not in names:
                    _remove_tree(path)
            for name in names:
                (staged / name).chmod(_READ_ONLY)
                _sync(staged / name)
            _sync(staged)
            with self._lock:
                self._put(staged, target)
        return target

    def folder_of(self, digest: str) -> Path:
        """Return a version's folder, present or not. Raises `AdapterError` if `digest` is not one."""
        if not is_digest(digest):
            raise AdapterError("a version's digest is 64 hexadecimal digits in lower case")
        return self._folder / digest[:2] / digest

    def has(self, digest: str) -> bool:
        """Whether a version is here; its content is not read."""
        if not is_digest(digest):
            return False
        folder = self.folder_of(digest)
        try:
            return all((folder / name).is_file() for name in self._kind.files_in(folder))
        except AdapterError:
            return False

    def check(self, digest: str, should_stop: Callable[[], bool] = never) -> bool:
        """Whether a version is here and its content still matches its digest; reads all of it."""
        try:
            found = self._kind.inspect(self.folder_of(digest), should_stop) if self.has(digest) else None
            return found is not None and found.digest == digest
        except AdapterError:
            return False

    def seems_whole(self, digest: str, size_bytes: int) -> bool:
        """Whether a version is here; all of it is read only where its size is another one."""
        try:
            if self.has(digest) and sum(self.sizes(digest).values()) == size_bytes:
                return True
        except (AdapterError, OSError):
            return False
        return self.check(digest)

    def sizes(self, digest: str) -> dict[str, int]:
        """Return the sizes of a version's files in bytes, by name. Raises `AdapterError` and `OSError`."""
        folder = self.folder_of(digest)
        return {name: (folder / name).stat().st_size for name in self._kind.files_in(folder)}

    def touch(self, digest: str) -> None:
        """Record that a version is used now; the least recently used one is deleted first."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.folder_of(digest))

    def remove(self, digest: str) -> None:
        """Delete a version; no effect if it is not here."""
        with self._lock:
            self._delete(self.folder_of(digest))

    def make_room(self, need_bytes: int, protected: Collection[str]) -> list[str]:
        """Delete versions, the least recently used first, until `need_bytes` fit into the budget.

        A protected version is never deleted. Returns the deleted digests. Raises `StoreFull`, with
        nothing deleted, if the others do not make enough room.
        """
        if self._budget_bytes is None:
            return []
        with self._lock:
            stored = self.usage()
            noun = self._kind.noun
            kept_bytes = sum(version.size_bytes for version in stored if version.digest in protected)
            if kept_bytes + need_bytes > self._budget_bytes:
                raise StoreFull(
                    f"the {noun} needs {need_bytes} bytes, and of the {self._budget_bytes} that the {noun} "
                    f"store may take {kept_bytes} are in use; retire {noun}s, or raise the store's budget"
                )
            used_bytes = sum(version.size_bytes for version in stored)
            gone = []
            for version in sorted(stored, key=lambda version: (version.last_used_s, version.digest)):
                if used_bytes + need_bytes <= self._budget_bytes:
                    break
                if version.digest not in protected:
                    self.remove(version.digest)
                    used_bytes -= version.size_bytes
                    gone.append(version.digest)
            return gone

    def usage(self) -> list[StoredVersion]:
        """List every version that is here."""
        found = []
        for folder in self._version_folders():
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                size = sum(path.stat().st_size for path in folder.iterdir())
                found.append(StoredVersion(folder.name, size, folder.stat().st_mtime))
        return found

    def _check_staged(self, staged: Path, digest: str) -> Sequence[str]:
        """Return the names of the files. Raises `ChecksumMismatch`."""
        noun = self._kind.noun
        try:
            if self._kind.inspect(staged).digest == digest:
                return self._kind.files_in(staged)
        except AdapterError:
            pass
        raise ChecksumMismatch(f"the {noun}'s files are not those that were checked; fetch them again")

    def _staged(self, key: str) -> Path:
        return self._staging / hashlib.sha256(key.encode()).hexdigest()[:32]

    def _version_folders(self) -> Iterator[Path]:
        for group in sorted(self._folder.glob("[0-9a-f][0-9a-f]")):
            for folder in sorted(group.iterdir()):
                if is_digest(folder.name):
                    yield folder

    def _put(self, staged: Path, target: Path) -> None:
        """Move checked files to their folder, unless they are there."""
        if target.exists():
            if self.check(target.name):
                self.touch(target.name)
                self._delete(staged)
                return
            self._delete(target)
        target.parent.mkdir(mode=_PRIVATE, exist_ok=True)
        _sync(self._folder)
        os.utime(staged)
        staged.rename(target)
        _sync(target.parent)
        _sync(self._staging)

    def _delete(self, folder: Path) -> None:
        """Move a folder away at once, then delete it; `sweep` finishes an interrupted deletion."""
        doomed = self._trash / uuid4().hex
        with contextlib.suppress(FileNotFoundError):
            folder.rename(doomed)
            _remove_tree(doomed)


def is_digest(name: str) -> bool:
    """Whether a version's folder may be called so."""
    return _DIGEST.fullmatch(name) is not None


def _remove_tree(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Flush a file, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

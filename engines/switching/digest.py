"""The digest of a whole model's content: sha256 over (name, sha256) of every file that an engine reads.

Two folders of one digest answer alike; a file that is changed, under whatever name, gives another. Reading
all weights takes a second for a GiB, so a file is read once, and again only where its size, time or inode is
another.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path

from adapters.tensors import CHUNK_BYTES
from engines.switching.reading import ModelUnreadable, files_of


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells, without reading it, that a file is the one that was read."""

    path: str
    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Look at a file. Raises `OSError`."""
        status = path.stat()
        return cls(str(path), status.st_size, status.st_mtime_ns, status.st_ino)


@dataclass(frozen=True, slots=True)
class Identity:
    """A model's content, and how its files looked when they were read."""

    folder: Path
    digest: str
    stamps: tuple[Stamp, ...]


class Digests:
    """Digests of the models of one process; for one thread at a time."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[Stamp, str]] = {}  # path -> stamp, sha256
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Break off what is being read, within a moment; from another thread."""
        self._stopped.set()

    def identify(self, folder: Path) -> Identity:
        """Return the digest of a model. Blocks; for a thread. Raises `ModelUnreadable`."""
        files = files_of(folder)
        try:
            known = [self._sha256(path) for path in files]
        except OSError as error:
            raise ModelUnreadable(f"its files cannot be read: {error.strerror or error}") from error
        lines = (f"{path.name}\0{sha256}\n" for path, (_, sha256) in zip(files, known, strict=True))
        digest = hashlib.sha256("".join(lines).encode()).hexdigest()
        return Identity(folder, digest, tuple(stamp for stamp, _ in known))

    def _sha256(self, path: Path) -> tuple[Stamp, str]:
        stamp = Stamp.of(path)
        known = self._files.get(stamp.path)
        if known is None or known[0] != stamp:
            known = stamp, hash_file(path, self._stopped)
            if Stamp.of(path) != stamp:
                raise ModelUnreadable(f"{path.name} is being written; nobody may write to a model in use")
            self._files[stamp.path] = known
        return known


def hash_file(path: Path, stopped: threading.Event) -> str:
    """Return a file's sha256 in hex. Raises `ModelUnreadable` once it is stopped, and `OSError`."""
    digest, buffer = hashlib.sha256(), bytearray(CHUNK_BYTES)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            if stopped.is_set():
                raise ModelUnreadable("the process ends")
            digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()


def changed_since(identity: Identity) -> str:
    """Return the name of a file that is no longer as it was, or "". Blocks for a moment."""
    for stamp in identity.stamps:
        try:
            if Stamp.of(Path(stamp.path)) != stamp:
                return Path(stamp.path).name
        except OSError:
            return Path(stamp.path).name
    return ""

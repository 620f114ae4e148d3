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
    """Digests of the models of one process."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[Stamp, str]] = {}  # path -> stamp, sha256
        self._lock = threading.Lock()  # one read at a time: they would only share the disk

    def identify(self, folder: Path) -> Identity:
        """Return the digest of a model. Blocks; for a thread. Raises `ModelUnreadable`."""
        files = files_of(folder)
        with self._lock:
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
            with path.open("rb") as file:
                known = stamp, hashlib.file_digest(file, "sha256").hexdigest()
            if Stamp.of(path) != stamp:
                raise ModelUnreadable(f"{path.name} is being written; nobody may write to a model in use")
            self._files[stamp.path] = known
        return known


def changed_since(identity: Identity) -> str:
    """Return the name of a file that is no longer as it was, or "". Blocks for a moment."""
    for stamp in identity.stamps:
        try:
            if Stamp.of(Path(stamp.path)) != stamp:
                return Path(stamp.path).name
        except OSError:
            return Path(stamp.path).name
    return ""

"""The fleet file that a service was started with: its bytes, and what other bytes in its place would mean."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fleet.document import MAX_FILE_BYTES
from fleet.loader import LoadedFleet, read_fleet
from fleet.projection import project
from fleet.types import Fleet


@dataclass(frozen=True, slots=True)
class FleetFile:
    """A fleet file, of which all is served or one pool."""

    path: Path
    pool: str | None = None

    def read(self) -> bytes:
        """Return what the file holds, at most a byte more than is taken. Raises `OSError`."""
        with self.path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)

    def load(self, raw: bytes | None = None, *, keys_needed: bool = True) -> tuple[Fleet, LoadedFleet]:
        """Return what is served of a document that stands in the file's place; of the file's own, without.

        Folders are relative to the file's, variables are those of this process. With `keys_needed=False`
        keys and a database whose variables are not set are stand-ins. Raises `FleetError`.
        """
        loaded = read_fleet(self.path, raw=raw, keys_needed=keys_needed)
        return (project(loaded.fleet, self.pool) if self.pool else loaded.fleet), loaded


def digest_of(raw: bytes) -> str:
    """Tell the bytes of a file from others."""
    return hashlib.sha256(raw).hexdigest()

"""The port of a remote for downloads, and the reasons why a remote may not deliver."""

from __future__ import annotations

from collections.abc import Collection, Generator
from dataclasses import dataclass
from typing import Protocol

PIECE_BYTES = 4 * 2**20  # of one range request


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as its remote describes it; two equal descriptions mean the same content."""

    name: str
    size_bytes: int | None  # None: the remote does not tell
    tag: str  # changes with the content (an ETag, a generation, a hash); empty: the remote does not tell
    sha256: str | None = None  # of the content, where the remote knows it


class Remote(Protocol):
    """A place with files. Every call may raise `RemoteFailure`."""

    def describe(self, name: str) -> RemoteFile:
        """Ask for a file's description; never from a cache."""
        ...

    def read(self, file: RemoteFile, start: int) -> Generator[bytes]:
        """Read a file from `start` on, in pieces of at most a few MiB; the caller closes it."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


class Listing(Remote, Protocol):
    """A place with files that can be listed."""

    def names(self) -> Collection[str]:
        """Name the files right there; at most as many as help. Raises `RemoteFailure`."""
        ...


class RemoteFailure(Exception):
    """A remote does not deliver. The text has the reason and the remedy, and no URL: that may be signed."""


class Unanswered(RemoteFailure):
    """The remote does not answer now, or has stopped answering."""


class Refused(RemoteFailure):
    """The remote has no such file, or denies access to it."""


class Changed(RemoteFailure):
    """The file is not the one that was described."""

"""What does a download need from wherever an adapter lies? The port, and why a remote may not deliver."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

PIECE_BYTES = 4 * 2**20  # of one range request
LAYOUT = (
    "adapter_config.json and adapter_model.safetensors must lie right under the source "
    "(adapter_model.bin is a pickle and never read: save the adapter again with safe_serialization=True)"
)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as its remote describes it; two equal descriptions mean the same content."""

    name: str
    size_bytes: int | None  # None: the remote does not tell
    tag: str  # changes with the content (an ETag, a generation, a hash); empty: the remote does not tell
    sha256: str | None = None  # of the content, where the remote knows it


class Remote(Protocol):
    """Where files come from. Every call may raise `RemoteFailure`."""

    def describe(self, name: str) -> RemoteFile:
        """Ask for a file's description; never from a cache."""
        ...

    def read(self, file: RemoteFile, start: int) -> Generator[bytes]:
        """Read a file from a byte on, in pieces of at most a few MiB; to be closed by the caller."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


class RemoteFailure(Exception):
    """A remote does not deliver. The text says why and what to do, and holds no URL: that may be signed."""


class Unanswered(RemoteFailure):
    """It does not answer now, or stopped answering."""


class Refused(RemoteFailure):
    """It answers that there is no such thing, or not for us."""


class Changed(RemoteFailure):
    """The file is not the one that was described."""

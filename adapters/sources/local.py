"""Copies a version from a folder of this machine: checked before and after the copy."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from adapters.disk import writing
from adapters.errors import AdapterError, ChecksumMismatch, SourceUnavailable
from adapters.kind import Inspected, Kind
from adapters.sources.download import FetchStopped, Watch, require_promised
from adapters.sources.files import CHUNK_BYTES, begin, check_room, finish, part_of, sha256_of


def copy_folder(
    folder: Path, into: Path, *, kind: Kind, source: str, sha256: str | None, watch: Watch
) -> None:
    """Copy the served files of a folder that passes the checks of its kind.

    `source` is the folder's name in messages. Raises `AdapterError`, `ChecksumMismatch`, `StoreFull`, and
    `SourceUnavailable` where the folder changes meanwhile.
    """
    names = _named(folder, kind, source)
    manifest = _inspect(folder, kind, source, watch)
    watch.check_size(manifest.size_bytes, source)
    begin(into)
    check_room(into, manifest.size_bytes)
    try:
        for name in names:
            _copy(folder.resolve(), into, name, source=source, total=manifest.size_bytes, watch=watch)
        require_promised(kind, names, sha256, source)
        if sha256 is not None and sha256_of(part_of(into, kind.promised)) != sha256.lower():
            raise ChecksumMismatch(
                f"{source}: the sha256 of {kind.promised} is not the one promised; "
                "correct the checksum, or the file"
            )
        finish(into, names)
        if _inspect(into, kind, source, watch).digest != manifest.digest:
            raise SourceUnavailable(f"{source} changed while it was copied; leave it alone and try again")
    except BaseException:
        begin(into)
        raise


def _inspect(folder: Path, kind: Kind, source: str, watch: Watch) -> Inspected:
    try:
        return kind.inspect(folder, watch.should_stop)
    except SourceUnavailable:
        raise
    except AdapterError as error:
        raise AdapterError(f"{source}: {error}") from None


def _named(folder: Path, kind: Kind, source: str) -> Sequence[str]:
    try:
        return kind.files_in(folder)
    except AdapterError as error:
        raise AdapterError(f"{source}: {error}") from None


def _copy(root: Path, into: Path, name: str, *, source: str, total: int, watch: Watch) -> None:
    before = sum(path.stat().st_size for path in into.glob(".*.part"))
    with _open(root, name, source) as file, writing(), part_of(into, name).open("wb") as out:
        done = before
        while piece := file.read(CHUNK_BYTES):
            done += len(piece)
            watch.check_size(done, source)
            out.write(piece)
            if watch.should_stop():
                raise FetchStopped(f"{source}: stopped before all of it had come")
            watch.progress(done, total)


def _open(root: Path, name: str, source: str) -> BinaryIO:
    """Open a file of the folder anew: it may have been replaced since it was checked."""
    try:
        path = Path(os.path.realpath(root / name, strict=True))
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not block us
        file = open(os.open(path, flags), "rb")  # noqa: SIM115 -- the caller closes it
    except OSError as error:
        raise SourceUnavailable(f"{source} changed while it was copied: {name}: {error.strerror}") from None
    if path.is_relative_to(root) and stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise SourceUnavailable(f"{source} changed while it was copied; leave it alone and try again")

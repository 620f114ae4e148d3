"""Takes the files that engines read out of an archive, if that is safe. Writes nothing else, nowhere else.

Members are read one by one and only served files are written, by names that are known or plain, so no name
in the archive ever becomes a path. Sizes are counted as bytes arrive; sizes in headers only help to refuse
earlier.
"""

from __future__ import annotations

import gzip
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from adapters.checkpoint import ADAPTER
from adapters.disk import writing
from adapters.errors import AdapterError, ChecksumMismatch
from adapters.kind import Kind, never
from adapters.layout import MAX_NAMED
from adapters.sources.download import FetchStopped
from adapters.sources.files import CHUNK_BYTES, begin, finish, part_of, sha256_of, size_text

MAX_ENTRIES = 10_000  # as many as an adapter's folder may hold

_ENCRYPTED = 0x1  # zip's general purpose flag 0, APPNOTE 4.4.4
_MAX_DIRECTORY_BYTES = 4 * 2**20  # of a zip; MAX_ENTRIES entries take about 1 MiB
_MAX_EXTENDED_BYTES = 2**14  # of one tar header beyond 512 bytes; tarfile's parser is quadratic in it
_MAX_ALL_EXTENDED_BYTES = 2**20
_MANY_DIGITS = re.compile(rb"[0-9]{40}")  # no number in a header is that long; see CVE-2024-6232
_DAMAGED = "the archive is damaged or cut short; pack and send it again"
_OVERSIZED = "the archive holds an oversized header; pack it with plain `tar`"
_DAMAGES = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    LookupError,  # zipfile's for a member without a name
    EOFError,
    ValueError,
    RuntimeError,  # zipfile's for an unknown flag, and RecursionError for nested headers
)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def unpack(
    archive: Path,
    into: Path,
    *,
    max_bytes: int,
    sha256: str | None = None,
    kind: Kind = ADAPTER,
    should_stop: Callable[[], bool] = never,
) -> None:
    """Unpack the served files of a tar, tar.gz or zip into a folder, which then holds nothing else.

    They lie in the archive's root or in one folder of it. `max_bytes` bounds the archive and all that it
    unpacks to, `sha256` is the archive's own. After an error none of them is there. Raises `AdapterError`,
    `ChecksumMismatch`, `StoreFull`, and `FetchStopped` when told to stop.
    """
    if archive.stat().st_size > max_bytes:
        raise AdapterError(f"the archive is larger than {size_text(max_bytes)}; pack the {kind.noun} alone")
    if sha256 is not None and sha256_of(archive) != sha256.lower():
        raise ChecksumMismatch(
            "the archive's sha256 is not the one promised; send the right one, or correct it"
        )
    begin(into)
    take_out(archive, into, max_bytes=max_bytes, kind=kind, should_stop=should_stop)


def take_out(
    archive: Path,
    into: Path,
    *,
    max_bytes: int,
    kind: Kind = ADAPTER,
    should_stop: Callable[[], bool] = never,
) -> None:
    """Unpack an archive whose checksum was checked; other files in the folder stay."""
    taking = _Taking(into, max_bytes, kind, should_stop)
    try:
        with archive.open("rb") as file, _damage_named():
            _reader_of(file)(file, taking)
        taking.finish()
    except BaseException:
        taking.undo()
        raise


@dataclass
class _Taking:
    """The served files of one archive, on their way out of it."""

    into: Path
    max_bytes: int
    kind: Kind
    should_stop: Callable[[], bool]
    folders: list[tuple[str, ...]] = field(default_factory=list)  # the topmost with served files, in order
    names: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    entries: int = 0
    seen_bytes: int = 0

    def check(self, name: str) -> tuple[str, ...]:
        """Check the name of a member, and the number of members. Returns the name's parts."""
        self.entries += 1
        if self.entries > MAX_ENTRIES:
            raise AdapterError(
                f"the archive holds more than {MAX_ENTRIES} entries; pack the {self.kind.noun} alone"
            )
        if name.startswith(("/", "\\")) or name[1:2] == ":":
            raise AdapterError(
                f"the archive holds the absolute path {_short(name)}; pack it with relative paths"
            )
        parts = tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
        if ".." in parts:
            raise AdapterError(
                f"the archive holds the path {_short(name)}, which leaves it; pack it without `..`"
            )
        return parts

    def served(self, name: str) -> str | None:
        """Check a file of the archive; returns its name if it is to be taken.

        The version lies in the topmost folder that has a served file; checkpoints may lie below it.
        """
        parts = self.check(name)
        self.names.append("/".join(parts))
        if not parts or not self.kind.serves(parts[-1]):
            return None
        folder, file = parts[:-1], parts[-1]
        if not self.folders or len(folder) < len(self.folders[0]):
            self.undo()
            self.folders, self.taken = [folder], []
        if folder != self.folders[0]:
            if len(folder) == len(self.folders[0]) and folder not in self.folders:
                self.folders.append(folder)
            return None
        if file in self.taken:
            raise AdapterError(f"the archive holds {_short(name)} twice; pack it again")
        self.taken.append(file)
        return file

    def count(self, size: int) -> None:
        """Count unpacked bytes. Raises `FetchStopped` when told to stop."""
        if self.should_stop():
            raise FetchStopped("stopped before all of the archive was unpacked")
        self.seen_bytes += size
        if self.seen_bytes > self.max_bytes:
            raise AdapterError(
                f"the archive unpacks to more than {size_text(self.max_bytes)}; "
                f"pack the {self.kind.noun} alone"
            )

    def write(self, name: str, member: _Readable) -> None:
        """Copy a member to its partial file."""
        with writing(), part_of(self.into, name).open("wb") as out:
            while chunk := member.read(CHUNK_BYTES):
                self.count(len(chunk))
                out.write(chunk)

    def finish(self) -> None:
        """Give the files their names. Raises `AdapterError` where one is missing."""
        if len(self.folders) > 1:
            listed = ", ".join(_short("/".join(folder)) for folder in self.folders[:MAX_NAMED])
            raise AdapterError(
                f"the archive holds several {self.kind.noun}s: {listed}; pack the folder of one"
            )
        if self.kind.why_not(self.taken) is not None:
            top = "/".join(self.folders[0]) if self.folders else os.path.commonpath(self.names or [""])
            below = (os.path.relpath(name, top or ".") for name in self.names)
            raise AdapterError(f"the archive: {self.kind.why_not(below) or f'it holds no {self.kind.noun}'}")
        finish(self.into, self.taken)

    def undo(self) -> None:
        """Remove the files written so far."""
        for name in self.taken:
            part_of(self.into, name).unlink(missing_ok=True)


def _reader_of(file: BinaryIO) -> Callable[[BinaryIO, _Taking], None]:
    """Choose the reader by an archive's first bytes; its name is not trusted."""
    head = file.read(512)
    file.seek(0)
    if head[:2] == b"\x1f\x8b":
        return _read_tar_gz
    if head[:2] == b"PK":
        return _read_zip
    if head[257:262] == b"ustar":
        return _read_tar
    raise AdapterError("the archive is neither tar nor tar.gz nor zip; pack it as one of them")


def _read_tar_gz(file: BinaryIO, taking: _Taking) -> None:
    with gzip.GzipFile(fileobj=file, mode="rb") as unzipped:
        _read_tar(cast(BinaryIO, unzipped), taking)


def _read_tar(file: BinaryIO, taking: _Taking) -> None:
    reader = _TarReader(file)
    with tarfile.open(fileobj=cast(BinaryIO, reader), mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # else it keeps every header
            if member.size < 0:
                raise AdapterError(_DAMAGED)
            if member.isdir():
                taking.check(member.name)
                continue
            name = taking.served(member.name)
            if name is None:
                taking.count(member.size)
            else:
                _check_tar_member(member)
                taking.write(name, reader.member(member.size))


def _check_tar_member(member: tarfile.TarInfo) -> None:
    if member.issym() or member.islnk():
        raise AdapterError(f"the archive holds the link {_short(member.name)}; pack its target (`tar -h`)")
    if member.issparse():
        raise AdapterError(
            f"the archive holds the sparse file {_short(member.name)}; pack it without `--sparse`"
        )
    if not member.isfile():
        raise AdapterError(f"the archive holds {_short(member.name)}, a device or pipe; pack it without")


def _read_zip(file: BinaryIO, taking: _Taking) -> None:
    with zipfile.ZipFile(cast(BinaryIO, _ZipReader(file))) as archive:
        wanted = {}
        for member in archive.infolist():
            if member.is_dir():
                taking.check(member.filename)
                continue
            name = taking.served(member.filename)
            if name is None:
                taking.count(member.file_size)
            else:
                wanted[name] = member
        for name in taking.taken:
            member = wanted[name]
            _check_zip_member(member)
            with archive.open(member) as content:
                taking.write(name, content)


def _check_zip_member(member: zipfile.ZipInfo) -> None:
    name = _short(member.filename)
    kind = stat.S_IFMT(member.external_attr >> 16)  # set by archivers on Unix
    if kind == stat.S_IFLNK:
        raise AdapterError(f"the archive holds the link {name}; pack its target (zip without `-y`)")
    if kind not in (0, stat.S_IFREG):
        raise AdapterError(f"the archive holds {name}, a device or pipe; pack it without")
    if member.flag_bits & _ENCRYPTED:
        raise AdapterError(f"the archive's {name} is encrypted; pack it without a password")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise AdapterError(f"the archive's {name} is compressed in an unusual way; pack it with deflate")


class _TarReader:
    """A tar's bytes for `tarfile`, which then reads headers only: forward, and in small bounded pieces."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = 0
        self._extended_bytes = 0
        self._reads = 0

    def read(self, size: int) -> bytes:
        """Read a header. Raises `AdapterError` where it is too large to be one."""
        self._reads += 1
        if not 0 <= size <= _MAX_EXTENDED_BYTES:
            raise AdapterError(_OVERSIZED)
        data = self._take(size)
        if size > tarfile.BLOCKSIZE:
            self._extended_bytes += size
            if _MANY_DIGITS.search(data):
                raise AdapterError(_OVERSIZED)
        if self._extended_bytes > _MAX_ALL_EXTENDED_BYTES or self._reads > 4 * MAX_ENTRIES:
            raise AdapterError(f"the archive's headers are too many; pack at most {MAX_ENTRIES} plain files")
        return data

    def seek(self, position: int) -> None:
        """Go forward, over content that has been counted. Raises `ValueError` for going back."""
        if position < self._position:
            raise ValueError("a tar is read forward")
        while self._position < position:
            if not self._take(min(position - self._position, CHUNK_BYTES)):
                raise EOFError

    def tell(self) -> int:
        """Return how many bytes have been read."""
        return self._position

    def member(self, size: int) -> _Readable:
        """Return the content of the member whose header was just read."""
        return _Member(self._take, size)

    def _take(self, size: int) -> bytes:
        data = self._file.read(size)
        self._position += len(data)
        return data


@dataclass
class _Member:
    """One member's content, of exactly the size its header says."""

    take: Callable[[int], bytes]
    left: int

    def read(self, size: int) -> bytes:
        """Read on. Raises `EOFError` where the archive ends early."""
        data = self.take(min(size, self.left))
        self.left -= len(data)
        if not data and self.left:
            raise EOFError
        return data


class _ZipReader:
    """A zip's bytes for `zipfile`, which reads the whole directory at once: bounded."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.tell, self.seekable = file.tell, file.seekable

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Go somewhere. Raises `ValueError` for a place before the file, which a false offset may name."""
        if whence == os.SEEK_SET and position < 0:
            raise ValueError("before the beginning of the file")
        return self._file.seek(position, whence)

    def read(self, size: int = -1) -> bytes:
        """Read on. Raises `AdapterError` for a larger read than the directory may need."""
        if size > _MAX_DIRECTORY_BYTES:
            raise AdapterError(f"the archive holds more than {MAX_ENTRIES} entries; pack the two files alone")
        return self._file.read(size)


@contextmanager
def _damage_named() -> Iterator[None]:
    try:
        yield
    except _DAMAGES as error:
        raise AdapterError(_DAMAGED) from error


def _short(name: str) -> str:
    """Show a name of somebody else's archive in one short line."""
    text = repr(name)
    return text if len(text) <= 80 else f"{text[:77]}..."

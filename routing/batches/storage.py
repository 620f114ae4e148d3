"""Where do tenants' files lie? In a folder, or below a prefix of an S3 bucket. Everything here blocks.

A file is written whole under another name first, so that one with its own name is complete. Names are ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

BLOCK_BYTES = 4 * 2**20  # read of an object at once


class Storage(Protocol):
    """Whole files by name. Every method raises `OSError` where the place does not answer."""

    def keep(self, written: Path, name: str) -> None:
        """Take over a file that was written elsewhere on this machine, in place of one of its name."""

    def open(self, name: str) -> BinaryIO:
        """Open a file to read it. Raises `FileNotFoundError`."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""


class FolderStorage:
    """A folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, written: Path, name: str) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.replace(written, self._folder / name)
        sync_folder(self._folder)

    def open(self, name: str) -> BinaryIO:
        return (self._folder / name).open("rb")

    def remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)


class BucketStorage:
    """A prefix of an S3 bucket, with the credentials and endpoint from AWS's variables and files."""

    def __init__(self, address: str) -> None:
        """`address` is `s3://bucket/prefix`."""
        self._prefix = address.removeprefix("s3://").rstrip("/")
        self._fs: Any = None

    def keep(self, written: Path, name: str) -> None:
        with self._failures_told():
            self._files().put_file(str(written), f"{self._prefix}/{name}")
        written.unlink(missing_ok=True)

    def open(self, name: str) -> BinaryIO:
        with self._failures_told():
            file: BinaryIO = self._files().open(f"{self._prefix}/{name}", "rb", block_size=BLOCK_BYTES)
            return file

    def remove(self, name: str) -> None:
        with self._failures_told(), suppress(FileNotFoundError):
            self._files().rm_file(f"{self._prefix}/{name}")

    def _files(self) -> Any:
        if self._fs is None:
            import s3fs  # type: ignore[import-untyped]

            self._fs = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
        return self._fs

    @contextmanager
    def _failures_told(self) -> Iterator[None]:
        import aiohttp
        from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

        try:
            yield
        except (BotoCoreError, aiohttp.ClientError) as error:
            raise OSError(f"the bucket does not answer ({type(error).__name__})") from None


def storage_at(folder: Path, address: str | None) -> Storage:
    """Return the place of files: a bucket where an address is set, else a folder."""
    return FolderStorage(folder) if address is None else BucketStorage(address)


def sync_folder(folder: Path) -> None:
    """Have the names of a folder's files on disk when this returns."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)

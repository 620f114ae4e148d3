"""Reads files from object stores through fsspec, a range at a time.

No file system is shared and none keeps listings: fsspec's caches could hide that a remote has changed.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

from adapters.kind import Kind
from adapters.layout import MAX_NAMES
from adapters.sources.address import Address
from adapters.sources.remote import PIECE_BYTES, Changed, Refused, RemoteFile, Unanswered

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60  # without a byte


class ObjectStore:
    """A prefix of an S3 or Google Cloud Storage bucket, or one archive in it."""

    def __init__(self, address: Address, kind: Kind) -> None:
        self._kind = kind
        self._is_archive = address.is_archive
        self._path = address.path
        self._scheme = address.scheme
        self._fs: Any = None
        self._close: Callable[[], None] = lambda: None

    def names(self) -> Collection[str]:
        """Name the objects right under the prefix."""
        with self._failures_named(""):
            return self._found(maxdepth=1)

    def describe(self, name: str) -> RemoteFile:
        """Ask for an object's size and ETag or generation."""
        with self._failures_named(name):
            info = self._files().info(self._object(name))
        if info["type"] != "file":
            raise Refused(f"there is no {name}; {self._kind.layout}")
        tags = [str(info.get(key) or "") for key in ("ETag", "etag", "generation", "VersionId", "md5Hash")]
        return RemoteFile(name, int(info["size"]), " ".join(filter(None, tags)))

    def read(self, file: RemoteFile, start: int) -> Generator[bytes]:
        """Read an object from `start` on."""
        size = file.size_bytes or 0
        for begin in range(start, size, PIECE_BYTES):
            end = min(begin + PIECE_BYTES, size)
            with self._failures_named(file.name):
                piece = self._files().cat_file(self._object(file.name), start=begin, end=end)
            if len(piece) != end - begin:
                raise Changed("it sent another size than was asked for")
            yield piece

    def close(self) -> None:
        """Close all connections."""
        self._close()

    def _files(self) -> Any:
        if self._fs is None:
            self._fs, self._close = _OPEN[self._scheme]()
        return self._fs

    def _object(self, name: str) -> str:
        return self._path if self._is_archive else f"{self._path}/{name}"

    def _why_not(self, name: str) -> str:
        """Return why an object is missing: the names there, if we may list them."""
        if self._is_archive:
            return "there is no such archive; correct the source"
        names: list[str] = []
        with suppress(FileNotFoundError, *_failures(self._scheme)):
            names = self._found(maxdepth=2)
        return (self._kind.why_not(names) if names else None) or f"there is no {name}; {self._kind.layout}"

    def _found(self, *, maxdepth: int) -> list[str]:
        found = self._files().find(self._path, maxdepth=maxdepth)
        return [path.removeprefix(f"{self._path}/") for path in islice(found, MAX_NAMES)]

    @contextmanager
    def _failures_named(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise Refused(self._why_not(name)) from None
        except _failures(self._scheme) as error:
            if _is_denied(error):
                raise Refused(_DENIED) from None
            raise Unanswered(f"it does not answer ({_kind_of(error)})") from None


_NO_CREDENTIALS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "DefaultCredentialsError"}
)
_DENIED = "it may not be read with the gateway's credentials; grant them read access, or correct the source"


def _open_s3() -> tuple[Any, Callable[[], None]]:
    """Open S3 with the credentials and endpoint from AWS's variables and files."""
    import s3fs  # type: ignore[import-untyped]

    config = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        "retries": {"max_attempts": 0},
    }
    files = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False, config_kwargs=config)
    files.retries = 1  # we try again ourselves
    return files, lambda: files._s3 and files.close_session(files.loop, files._s3creator)


def _open_gs() -> tuple[Any, Callable[[], None]]:
    """Open Google Cloud Storage with the application's default credentials.

    The class for the JSON API: gcsfs's default one asks for each bucket's layout first,
    which needs further rights.
    """
    from gcsfs.core import GCSFileSystem  # type: ignore[import-untyped]

    files = GCSFileSystem(
        skip_instance_cache=True,
        use_listings_cache=False,
        access="read_only",
        requests_timeout=READ_TIMEOUT_S,
    )
    return files, lambda: files.close_session(None, files._session)


_OPEN = {"s3": _open_s3, "gs": _open_gs}


def _failures(scheme: str) -> tuple[type[Exception], ...]:
    """Return the client library's errors for a remote that does not deliver."""
    import aiohttp

    common = (OSError, asyncio.TimeoutError, aiohttp.ClientError)
    if scheme == "s3":
        from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

        return (*common, BotoCoreError)
    from gcsfs.retry import HttpError  # type: ignore[import-untyped]
    from google.auth.exceptions import GoogleAuthError

    return (*common, HttpError, GoogleAuthError)


def _is_denied(error: Exception) -> bool:
    if isinstance(error, PermissionError) or type(error).__name__ in _NO_CREDENTIALS:
        return True
    return getattr(error, "code", None) in (401, 403) or str(error).startswith("Forbidden")  # gcsfs's


def _kind_of(error: Exception) -> str:
    """Name an error without its text, which may hold an address."""
    code = error.errno if isinstance(error, OSError) else None
    return (
        type(error).__name__ if code is None else f"{type(error).__name__} {errno.errorcode.get(code, code)}"
    )

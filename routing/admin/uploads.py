"""Uploads of archives: streamed to a file, bounded in size and time.

What is in it is looked at later, by the same checks as everything that was fetched.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from starlette.requests import Request

from adapters.states import PREPARING, VersionState
from routing.asgi import Headers
from routing.catalog.sources import Source, Upload
from routing.errors import BodyTimeout, BodyTooLarge, CapReached, InvalidRequest, Unavailable
from routing.lifecycle.threads import in_thread

MEDIA_TYPES = (
    "application/x-tar",
    "application/gzip",
    "application/x-gzip",
    "application/zip",
    "application/x-zip-compressed",
)
MAX_RUNNING = 2  # uploads of one tenant at once
READ_TIMEOUT_S = 30.0
MAX_DURATION_S = 3600.0  # of one upload; 2 GiB at 5 Mbit/s
_WRITE_BYTES = 2**20  # written at once, in a thread: a slow disk must not hold up other requests
_RETRY_AFTER_S = 5.0


def media_type(content_type: str | None) -> str:
    """Return the media type without its parameters; JSON where none is said."""
    return (content_type or "application/json").partition(";")[0].strip().lower()


def is_upload(path: str, content_type: str | None) -> bool:
    """Whether a POST to this path brings an archive."""
    return path.endswith("/versions") and media_type(content_type) in MEDIA_TYPES


def body_or_archive(schema: dict[str, Any], example: object) -> dict[str, Any]:
    """Describe the body of a route that takes JSON, or an archive, for its OpenAPI document."""
    archive = {"schema": {"type": "string", "format": "binary"}}
    described = {"application/json": {"schema": schema, "example": example}}
    return {"required": True, "content": described | dict.fromkeys(MEDIA_TYPES, archive)}


class Version(Protocol):
    """A version of an adapter or of a whole model."""

    @property
    def source(self) -> Source:
        """Where its files come from."""

    @property
    def state(self) -> VersionState:
        """How far it is."""


def require_few_waiting(
    versions: Iterable[Version], *, coming: int, most: int, whose: str, retry_after_s: float
) -> None:
    """Archives lie on disk until they are unpacked; `coming` are being sent now.

    Raises `CapReached` where too many are there.
    """
    waiting = coming + sum(isinstance(each.source, Upload) and each.state in PREPARING for each in versions)
    if waiting >= most:
        raise CapReached(
            f"{waiting} uploads of {whose} are being sent or wait to be checked; send more once they are.",
            code="max_waiting_uploads",
            retry_after_s=retry_after_s,
        )


class Uploads:
    """Receives archives into a folder."""

    def __init__(self, folder: Path, *, max_bytes: int, read_timeout_s: float = READ_TIMEOUT_S) -> None:
        """The folder is made when one comes; `read_timeout_s` bounds the wait for each next part."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._read_timeout_s = read_timeout_s
        self._running: Counter[str | None] = Counter()  # by tenant

    def running(self, tenant: str | None) -> int:
        """Return how many of a tenant are being received, or registered."""
        return self._running[tenant]

    @contextlib.asynccontextmanager
    async def received(self, request: Request, tenant: str | None) -> AsyncIterator[Path]:
        """Receive a body into a file, which is removed at the end unless it was moved away.

        Raises `BodyTooLarge`, `BodyTimeout`, `CapReached`, `InvalidRequest` for an empty body, `Unavailable`
        where the disk takes no more, and `ClientDisconnect`.
        """
        if self._running[tenant] >= MAX_RUNNING:
            raise CapReached(
                f"{MAX_RUNNING} uploads of this tenant are running already.",
                code="max_uploads",
                retry_after_s=_RETRY_AFTER_S,
            )
        declared_bytes = Headers.of(request.scope).content_length
        if declared_bytes is not None and declared_bytes > self._max_bytes:
            raise self._too_large()
        path = self._folder / f"incoming-{uuid.uuid4().hex}"
        self._running[tenant] += 1
        try:
            await self._receive(request, path)
            yield path
        finally:
            self._running[tenant] -= 1
            with contextlib.suppress(OSError):  # taken over, never made, or the disk is gone
                path.unlink()

    async def _receive(self, request: Request, path: Path) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with path.open("xb", buffering=0) as file:
                async with asyncio.timeout(MAX_DURATION_S):
                    await self._copy(request, file)
        except TimeoutError:
            raise BodyTimeout(
                f"Nothing of the upload came for {self._read_timeout_s:g} s, or all of it took longer than "
                f"{MAX_DURATION_S:g} s."
            ) from None
        except OSError:
            raise Unavailable(
                "The gateway cannot store the upload now.",
                code="storage_unavailable",
                retry_after_s=_RETRY_AFTER_S,
            ) from None

    async def _copy(self, request: Request, file: BinaryIO) -> None:
        stream = request.stream()
        total_bytes, waiting = 0, bytearray()
        while True:
            async with asyncio.timeout(self._read_timeout_s):
                chunk = await anext(stream, None)
            total_bytes += len(chunk or b"")
            if total_bytes > self._max_bytes:
                raise self._too_large()
            waiting += chunk or b""
            if len(waiting) >= _WRITE_BYTES or (chunk is None and waiting):
                await in_thread(_write_all, file, bytes(waiting))
                waiting.clear()
            if chunk is None:
                break
        if not total_bytes:
            raise InvalidRequest("The upload is empty; send the archive as the body.", code="empty_upload")

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            f"The upload is larger than {self._max_bytes} bytes, the most this service takes."
        )


def _write_all(file: BinaryIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]

"""Has adapters' files on this machine: those of the gateway's store, or a copy fetched from it by digest.

Where gateway and engine share a machine, and so a state folder, nothing is copied. Elsewhere the hosts of a
machine share one folder of copies, each of which is fetched once and checked against its digest.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from adapters.errors import AdapterError
from adapters.layout import SERVED_FILES
from adapters.store import VersionStore
from engines.protocol import FILES_PATH, TOKEN_HEADER
from engines.residency import EngineAdapter, FilesAway

CHUNK_BYTES = 2**20
CONNECT_TIMEOUT_S = 5.0
SILENCE_TIMEOUT_S = 30.0  # of a gateway in mid-answer
log = logging.getLogger("tenantry.engine")


class Folders(NamedTuple):
    """Where adapters' files are, or may be put."""

    own: Path  # the gateway's store, where it is on this machine
    copies: Path
    budget_bytes: int | None = None  # of all copies; None: no bound


class AdapterFiles:
    """The files of the adapters of one host's engines."""

    def __init__(self, folders: Folders, token: str) -> None:
        """`token` is what a gateway wants of its engines."""
        self._own = VersionStore(folders.own)
        self._copies = VersionStore(folders.copies, budget_bytes=folders.budget_bytes)
        self._token = token
        self._gateway = ""
        self._fetching = asyncio.Lock()

    def at(self, gateway: str, peer: str | None) -> None:
        """Note where the gateway is: its own word for it, and the address that its call came from."""
        self._gateway = reachable(gateway, peer)

    async def folder_of(self, adapter: EngineAdapter, registered: Collection[str]) -> Path:
        """Return the folder with an adapter's files, which are fetched where they are not here.

        A copy of a `registered` digest is not deleted for it. Raises `FilesAway`.
        """
        if self._own.has(adapter.digest):
            return self._own.folder_of(adapter.digest)
        if self._copies.has(adapter.digest):
            self._copies.touch(adapter.digest)
            return self._copies.folder_of(adapter.digest)
        async with self._fetching:
            try:
                await asyncio.to_thread(self._copies.open, wait=True)
                try:
                    return await self._fetch(adapter, registered)
                finally:
                    await asyncio.to_thread(self._copies.close)
            except (AdapterError, OSError, aiohttp.ClientError, TimeoutError) as error:
                raise FilesAway(f"{adapter.id} has no files on this machine: {_why(error)}") from error

    async def _fetch(self, adapter: EngineAdapter, registered: Collection[str]) -> Path:
        digest, copies = adapter.digest, self._copies
        if copies.has(digest):  # another host has fetched it meanwhile
            return copies.folder_of(digest)
        if not self._gateway:
            raise FilesAway("the gateway has not said where it is; set TENANTRY_GATEWAY_URL for it")
        await asyncio.to_thread(copies.make_room, adapter.size_bytes, [*registered, digest])
        staged = await asyncio.to_thread(copies.stage, digest)
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_TIMEOUT_S
        )
        async with aiohttp.ClientSession(timeout=timeout, headers={TOKEN_HEADER: self._token}) as session:
            for name in SERVED_FILES:
                await _download(session, f"{self._gateway}{FILES_PATH}{digest}/{name}", staged / name)
        try:
            folder = await asyncio.to_thread(copies.publish, digest, digest)
        except AdapterError:
            await asyncio.to_thread(copies.discard, digest)  # or the next try would go on from it
            raise
        log.info("adapter %s fetched from the gateway, %d bytes", adapter.id, adapter.size_bytes)
        return folder


async def nowhere(adapter: EngineAdapter, registered: Collection[str]) -> Path:
    """Have no files. Raises `FilesAway`."""
    raise FilesAway(f"this engine has no place for the files of {adapter.id}")


async def _download(session: aiohttp.ClientSession, url: str, path: Path) -> None:
    """Fetch a file, from where an earlier try was broken off. Raises `FilesAway`, and aiohttp's errors."""
    begun = await asyncio.to_thread(_size, path)
    async with session.get(url, headers={"range": f"bytes={begun}-"} if begun else {}) as answer:
        if answer.status == 416:  # it is whole
            return
        if answer.status not in (200, 206):
            raise FilesAway(f"{url} answered {answer.status}")
        with path.open("ab" if answer.status == 206 else "wb") as file:
            async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                await asyncio.to_thread(file.write, chunk)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def reachable(gateway: str, peer: str | None) -> str:
    """Return an address under which a gateway can be reached from here.

    `gateway` is its own word for it, a URL. One that is true on its own machine alone gets the host of
    `peer`, an IP address, instead.
    """
    parts = urlsplit(gateway)
    if not parts.hostname or peer is None or not _is_local(parts.hostname) or _is_local(peer):
        return gateway.rstrip("/")
    host = f"[{peer}]" if ":" in peer else peer
    return urlunsplit(parts._replace(netloc=f"{host}:{parts.port or 80}", path=""))


def _is_local(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__

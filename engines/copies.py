"""Has versions' files on this machine: those of the gateway's store, or a copy fetched from it by digest.

Where gateway and engine share a machine, and so a state folder, nothing is copied. Elsewhere the hosts of a
machine share one folder of copies, each of which is fetched once and checked against its digest.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import ipaddress
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import orjson

from adapters.checkpoint import ADAPTER
from adapters.errors import AdapterError
from adapters.kind import Kind
from adapters.store import VersionStore
from engines.protocol import FILES_PATH, TOKEN_HEADER
from engines.residency import FilesAway

CHUNK_BYTES = 2**20
CONNECT_TIMEOUT_S = 5.0
SILENCE_TIMEOUT_S = 30.0  # of a gateway in mid-answer
MAX_LIST_BYTES = 2**20  # a model has some dozens of files, 2000 at most
log = logging.getLogger("tenantry.engine")


class Folders(NamedTuple):
    """Where versions' files are, or may be put."""

    own: Path  # the gateway's store, where it is on this machine
    copies: Path
    budget_bytes: int | None = None  # of all copies; None: no bound


class Files(NamedTuple):
    """The files of a version."""

    names: Collection[str]
    size_bytes: int


class Copies:
    """The versions of one kind that one host's engines have on this machine."""

    def __init__(
        self, folders: Folders, token: str, *, kind: Kind = ADAPTER, files_path: str = FILES_PATH
    ) -> None:
        """`token` is what a gateway wants of its engines; it gives the files below `files_path`."""
        self.own = VersionStore(folders.own, kind=kind)
        self.copies = VersionStore(folders.copies, budget_bytes=folders.budget_bytes, kind=kind)
        self._kind = kind
        self._files_path = files_path
        self._token = token
        self._gateway = ""
        self._fetching = asyncio.Lock()
        self._stopped = threading.Event()
        self._kept: dict[str, int] = {}  # digest -> descriptor of its folder, locked

    def at(self, gateway: str, peer: str | None) -> None:
        """Note where the gateway is: its own word for it, and the address that its call came from."""
        self._gateway = reachable(gateway, peer)

    def here(self, digest: str) -> Path | None:
        """Return the folder of a version; None: it is not on this machine."""
        if self.own.has(digest):
            return self.own.folder_of(digest)
        if self.copies.has(digest):
            self.copies.touch(digest)
            return self.copies.folder_of(digest)
        return None

    async def folder_of(
        self, digest: str, what: str, needed: Callable[[], Collection[str]], files: Files | None = None
    ) -> Path:
        """Return the folder of a version, whose files are fetched where they are not here.

        `what` is its name in messages. No copy that is `needed`, by its digest, is deleted for it. Without
        `files` the gateway is asked for their names. Raises `FilesAway`.
        """
        folder = self.here(digest)
        if folder is not None:
            return folder
        async with self._fetching:
            try:
                async with self._opened():
                    return await self._fetch(digest, what, needed, files)
            except (AdapterError, OSError, aiohttp.ClientError, TimeoutError) as error:
                raise FilesAway(f"{what} has no files on this machine: {_why(error)}") from error

    async def drop_damaged(self, digest: str) -> bool:
        """Delete a copy whose files are not what its digest promises; return whether it was one."""
        copies = self.copies
        if self.own.has(digest) or not copies.has(digest):
            return False
        is_whole = await asyncio.to_thread(copies.check, digest, self._stopped.is_set)
        if is_whole or self._stopped.is_set():
            return False
        async with self._fetching, self._opened():
            await asyncio.to_thread(copies.remove, digest)
        log.error("the copy of %s on this machine was damaged, and is deleted", digest[:12])
        return True

    async def drop_if_cut_short(self, digest: str, size_bytes: int) -> None:
        """Delete a copy of another size than its own where its files are not what its digest promises."""
        if self.copies.has(digest) and sum(self.copies.sizes(digest).values()) != size_bytes:
            await self.drop_damaged(digest)

    def stop(self) -> None:
        """Break off what is being read, within a moment."""
        self._stopped.set()

    @contextlib.asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        """Have the folder of copies for this process alone."""
        opening = asyncio.ensure_future(asyncio.to_thread(self.copies.open, wait=True))
        try:
            await asyncio.shield(opening)
            yield
        finally:
            if opening.done():
                await asyncio.to_thread(self.copies.close)
            else:  # whoever waited has left; nobody else may wait for what nobody has
                opening.add_done_callback(lambda _: self.copies.close())

    async def _fetch(
        self, digest: str, what: str, needed: Callable[[], Collection[str]], files: Files | None
    ) -> Path:
        copies = self.copies
        if copies.has(digest):  # another host has fetched it meanwhile
            return copies.folder_of(digest)
        if not self._gateway:
            raise FilesAway("the gateway has not said where it is; set TENANTRY_GATEWAY_URL for it")
        url = f"{self._gateway}{self._files_path}{copies.folder_of(digest).name}"
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_TIMEOUT_S
        )
        async with aiohttp.ClientSession(timeout=timeout, headers={TOKEN_HEADER: self._token}) as session:
            if files is None:
                files = await self._listed(session, url)
            await asyncio.to_thread(self._make_room, files.size_bytes, {*needed(), digest})
            staged = await asyncio.to_thread(copies.stage, digest)
            for name in files.names:
                await _download(session, f"{url}/{name}", staged / name)
        try:
            folder = await asyncio.to_thread(copies.publish, digest, digest)
        except AdapterError:
            await asyncio.to_thread(copies.discard, digest)  # or the next try would go on from it
            raise
        log.info("%s fetched from the gateway, %d bytes", what, files.size_bytes)
        return folder

    async def _listed(self, session: aiohttp.ClientSession, url: str) -> Files:
        """Ask for the names of a version's files, and for their size. Raises `FilesAway`."""
        async with session.get(url) as answer:
            if answer.status != 200:
                raise FilesAway(f"{url} answered {answer.status}")
            body = await answer.content.read(MAX_LIST_BYTES + 1)
            while len(body) <= MAX_LIST_BYTES and (more := await answer.content.read(MAX_LIST_BYTES)):
                body += more
        try:
            sizes = orjson.loads(body)
            if not all(self._kind.serves(name) and 0 <= size < 2**50 for name, size in sizes.items()):
                raise ValueError("a name that no file may have, or a size that none has")
            return Files(tuple(sizes), sum(sizes.values()))
        except (AttributeError, TypeError, ValueError) as error:
            raise FilesAway(f"{url} answered with no list of files: {error}") from None

    def _make_room(self, size_bytes: int, needed: Collection[str]) -> None:
        """Delete copies that nobody needs, and what is left of fetches that nobody goes on with."""
        self.copies.sweep(needed)
        kept = {version.digest for version in self.copies.usage() if self._is_kept(version.digest)}
        self.copies.make_room(size_bytes, {*needed, *kept})

    # -- what must stay ------------------------------------------------------------------------------------

    def keep(self, digests: Collection[str]) -> None:
        """Let no host of this machine delete these copies until they are named no more."""
        for digest in self._kept.keys() - set(digests):
            descriptor = self._kept.pop(digest)
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked child may have it open, too
            os.close(descriptor)
        for digest in set(digests) - self._kept.keys():
            with contextlib.suppress(OSError):  # it is none of the copies
                descriptor = os.open(self.copies.folder_of(digest), os.O_RDONLY | os.O_CLOEXEC)
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                self._kept[digest] = descriptor

    def _is_kept(self, digest: str) -> bool:
        """Whether any host of this machine keeps a copy."""
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(self.copies.folder_of(digest), os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(descriptor)
        return False


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

"""Adds a version: packs it, sends it, and follows it through the states until it is ready."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from adapters.checkpoint import ADAPTER
from adapters.errors import ChecksumMismatch
from adapters.kind import Kind
from tenantry.client import Answer, Gateway, GatewayUnreachable, Params, WrongUse, in_path
from tenantry.running import Refused, printable

POLL_S = 0.5
_MISSES = 10  # polls in a row that may find no gateway; it may be restarting
_MEDIA_TYPES = {
    ".tar": "application/x-tar",
    ".tgz": "application/gzip",
    ".tar.gz": "application/gzip",
    ".zip": "application/zip",
}
_ENDED = ("ready", "quarantined", "retired")


@dataclass(frozen=True, slots=True)
class Wish:
    """The version to add."""

    name: str
    source: str
    tenant: str | None = None
    base_model: str | None = None
    sha256: str | None = None
    weight: float | None = None
    promote_after: int | None = None

    @property
    def path(self) -> str:
        """The API's path of the adapter's versions."""
        return f"/adapters/{in_path(self.name)}/versions"

    @property
    def plan(self) -> Params:
        """The rollout's parameters."""
        plan = {"weight": self.weight, "promote_after": self.promote_after}
        return {name: value for name, value in plan.items() if value is not None}


class Watcher(Protocol):
    """Observes the progress of an adapter."""

    def sending(self, total_bytes: int) -> Callable[[int], None]:
        """An upload begins; the returned function gets the bytes of each part."""

    def at(self, version: Answer) -> None:
        """A version's state now."""


@dataclass(frozen=True, slots=True)
class Archive:
    """The file to upload."""

    path: Path
    media_type: str
    sha256: str
    size_bytes: int


async def add(gateway: Gateway, wish: Wish, watcher: Watcher) -> Answer:
    """Register a version. Returns its first state. Raises `AdapterError` and `WrongUse`."""
    if "://" in wish.source:
        body: Params = {"source": wish.source, "base_model": wish.base_model, "sha256": wish.sha256}
        body["rollout"] = wish.plan or None
        given = {name: value for name, value in body.items() if value is not None}
        return await gateway.call("POST", wish.path, params={"tenant": wish.tenant}, body=given)
    with tempfile.TemporaryDirectory(prefix="tenantry-add-") as folder:
        archive = await asyncio.to_thread(archive_of, wish.source, wish.sha256, Path(folder))
        params = {"tenant": wish.tenant, "base_model": wish.base_model, "sha256": archive.sha256, **wish.plan}
        sent = watcher.sending(archive.size_bytes)
        return await gateway.upload(
            wish.path,
            archive.path,
            archive.media_type,
            size_bytes=archive.size_bytes,
            params=params,
            sent=sent,
        )


def archive_of(source: str, sha256: str | None, folder: Path, kind: Kind = ADAPTER) -> Archive:
    """Find the given archive, or pack one in `folder`. Raises `AdapterError` and `WrongUse`."""
    path = Path(source)
    if path.is_dir():
        _check_sha256(path / kind.promised, sha256)
        path = pack(path, folder / f"{kind.noun}.tar", kind)
    elif path.is_file():
        _check_sha256(path, sha256)
    else:
        raise WrongUse(f"{source!r} is no folder, no archive and no URL; name the {kind.noun}'s")
    media_type = next((t for suffix, t in _MEDIA_TYPES.items() if path.name.lower().endswith(suffix)), None)
    if media_type is None:
        raise WrongUse(f"{path.name!r} is no archive that is known here: {', '.join(_MEDIA_TYPES)}")
    return Archive(path, media_type, _sha256(path), path.stat().st_size)


async def wait(gateway: Gateway, version: Answer, watcher: Watcher, *, timeout_s: float) -> Answer:
    """Wait until an adapter's version is ready. Raises `Refused` if it never will be, or is late."""
    path = f"/adapters/{in_path(version['adapter'])}/versions/{int(version['number'])}"

    async def look() -> Answer:
        return await gateway.call("GET", path, params={"tenant": version["tenant"]})

    return await until_ready(version, look, watcher, timeout_s=timeout_s)


async def until_ready(
    version: Answer, look: Callable[[], Awaitable[Answer]], watcher: Watcher, *, timeout_s: float
) -> Answer:
    """Look until a version is ready. Raises `Refused` if it never will be, or is late."""
    deadline_s = time.monotonic() + timeout_s
    misses = 0
    while version["state"] not in _ENDED:
        watcher.at(version)
        if time.monotonic() > deadline_s:
            raise Refused(
                f"Version {version['number']} is still {version['state']} after {timeout_s:g} s; it goes on, "
                "and `show` says how far it is.",
                version,
            )
        await asyncio.sleep(POLL_S)
        try:
            version = await look()
            misses = 0
        except GatewayUnreachable:
            misses += 1
            if misses >= _MISSES:
                raise
    watcher.at(version)
    if version["state"] != "ready":
        raise Refused(f"Version {version['number']} is {version['state']}: {version['reason']}", version)
    return version


def pack(folder: Path, archive: Path, kind: Kind = ADAPTER) -> Path:
    """Pack the served files of a folder, and nothing else of it. Returns `archive`. Raises `AdapterError`."""
    names = kind.files_in(folder)
    with tarfile.open(archive, "w") as tar:
        for name in names:
            path = folder / name
            with path.open("rb") as file:
                member = tarfile.TarInfo(name)  # no owner, mode or time of this machine
                member.size = file.seek(0, io.SEEK_END)
                file.seek(0)
                tar.addfile(member, file)
    return archive


def _check_sha256(path: Path, promised: str | None) -> None:
    if promised is not None and path.is_file() and _sha256(path) != promised.lower():
        raise ChecksumMismatch(f"{path} does not have the sha256 that was promised; get it again")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Silent:
    """Shows nothing."""

    def sending(self, total_bytes: int) -> Callable[[int], None]:
        """Say nothing."""
        return lambda count: None

    def at(self, version: Answer) -> None:
        """Say nothing."""


class Lines:
    """A line for each state."""

    def __init__(self, console: Console) -> None:
        """Write to `console`."""
        self._console = console
        self._last = ""

    def sending(self, total_bytes: int) -> Callable[[int], None]:
        """Write a line at the upload's begin."""
        self._console.print(f"sending {total_bytes} bytes")
        return lambda count: None

    def at(self, version: Answer) -> None:
        """Write the state if it or its reason has changed."""
        line = f"version {version['number']}: {version['state']} {version['reason']}".rstrip()
        if line != self._last:
            self._console.print(printable(line))
            self._last = line


class Bars:
    """A bar for the upload, and one for the gateway's work."""

    def __init__(self, progress: Progress) -> None:
        """Show them in `progress`."""
        self._progress = progress
        self._work: TaskID | None = None

    def sending(self, total_bytes: int) -> Callable[[int], None]:
        """Begin the upload's bar."""
        task = self._progress.add_task("sending", total=total_bytes)
        return lambda count: self._progress.advance(task, count)

    def at(self, version: Answer) -> None:
        """Show the state, and the progress of a fetch."""
        if self._work is None:
            self._work = self._progress.add_task("", total=None)
        done = version["progress"] or {"done_bytes": 0, "total_bytes": None}
        text = f"{version['state']} {version['reason']}".rstrip()
        self._progress.update(
            self._work, description=printable(text), completed=done["done_bytes"], total=done["total_bytes"]
        )


@contextmanager
def watching(console: Console, *, silent: bool) -> Iterator[Watcher]:
    """Give a watcher that suits `console`."""
    if silent:
        yield Silent()
    elif not console.is_terminal:
        yield Lines(console)
    else:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            yield Bars(progress)

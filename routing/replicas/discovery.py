"""Where are the replicas, and when does that change? Names and URLs only.

Whether a replica answers is another question, the probe's; so discovery names every replica that should be
there, ready or not. Three sources have one shape:

- `StaticDiscovery`: known at start. Engines that BentoML starts here, and those of `TENANTRY_ENGINE_URLS`.
- `FileDiscovery`: a file that an operator or a sidecar rewrites (`TENANTRY_ENGINE_FILE`).
- `SliceDiscovery`: what Kubernetes knows of pools' Services (`TENANTRY_ENGINE_SERVICES`); in `kubernetes.py`.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import yaml

from fleet.role import RoleError

if TYPE_CHECKING:  # every process reads where replicas are, and few need what watches a cluster
    from routing.replicas.kubernetes import Cluster

URLS_VARIABLE = "TENANTRY_ENGINE_URLS"
FILE_VARIABLE = "TENANTRY_ENGINE_FILE"
SERVICES_VARIABLE = "TENANTRY_ENGINE_SERVICES"
POLL_S = 0.5  # one stat(2) each; inotify sees neither network file systems nor a ConfigMap's swapped links
MAX_FILE_BYTES = 128 * 2**10  # a thousand replicas take a quarter of it
log = logging.getLogger("tenantry.discovery")
_VARIABLES = (URLS_VARIABLE, FILE_VARIABLE, SERVICES_VARIABLE)
_SERVICE = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")

Addresses = Mapping[str, str]  # name of a host, its replica's where it has one -> URL
_Signature = tuple[int, int, int, int, int]


class Discovery(Protocol):
    """Says where the replicas are."""

    @property
    def is_static(self) -> bool:
        """Whether `watch` yields at once and once, so that a replica it does not name is nowhere."""

    def is_started_here(self, replica: str) -> bool:
        """Whether a replica's engine is started together with this gateway, which may stop it."""

    def watch(self) -> AsyncIterator[Addresses]:
        """Yield all replicas once they are known, and all of them again whenever anything has changed.

        Each value is complete: a replica that is missing from it is gone, one with another URL has moved. The
        iterator raises nothing; it ends where nothing can change any more.
        """


class StaticDiscovery:
    """Replicas that are known at start and stay where they are."""

    is_static = True

    def __init__(self, addresses: Callable[[], Addresses], elsewhere: Collection[str] = ()) -> None:
        """`addresses` is called once watching begins, since BentoML knows its sockets no earlier.

        The engines of replicas `elsewhere` are somebody else's.
        """
        self._addresses = addresses
        self._elsewhere = elsewhere

    def is_started_here(self, replica: str) -> bool:
        """Whether it does not run elsewhere."""
        return replica not in self._elsewhere

    async def watch(self) -> AsyncIterator[Addresses]:
        """Yield them, once."""
        yield dict(self._addresses())


class FileDiscovery:
    """Replicas named by a YAML or JSON file, `name: url` each, which is read again whenever it changes.

    A change counts once the file has been the same for two looks, so that one being written is not taken for
    a shorter one; best is to write another file and rename it. A file that is missing or cannot be understood
    changes nothing and is logged once. An empty one cannot be understood; `{}` says that there are none.
    """

    is_static = False

    def __init__(
        self,
        path: Path,
        *,
        check_url: Callable[[str], object],
        poll_s: float = POLL_S,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`check_url` raises `ValueError` for what is not the address of a replica."""
        self._path = path
        self._check_url = check_url
        self._poll_s = poll_s
        self._sleep = sleep
        self._problem = ""

    def is_started_here(self, replica: str) -> bool:
        """Never: the file names all of them."""
        return False

    async def watch(self) -> AsyncIterator[Addresses]:
        """Yield what the file says, whenever that has changed and can be understood."""
        known: Addresses | None = None
        seen: _Signature | None = None
        taken: _Signature | None = None
        while True:
            before, found = seen, None
            try:
                seen = await asyncio.to_thread(self._signature)
                if seen != taken and (known is None or seen == before):
                    found = await asyncio.to_thread(self._read)
                    taken = seen
            except OSError as error:
                taken = None  # so that it is read again as soon as it can be
                self._report(error.strerror or str(error))
            if found is not None and found != known:
                known = found
                yield known
            await self._sleep(self._poll_s)

    def _signature(self) -> _Signature:
        """Return what changes with the file, links followed. Raises `OSError`."""
        stat = self._path.stat()
        return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size

    def _read(self) -> Addresses | None:
        """Return what the file says; None, and a line in the log, for what is no answer. Raises `OSError`."""
        with self._path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        try:
            addresses = parse_addresses(content, self._check_url)
        except ValueError as error:
            self._report(str(error))
            return None
        self._report("")
        return addresses

    def _report(self, problem: str) -> None:
        """Log what is wrong, once, and that it no longer is."""
        if problem == self._problem:
            return
        self._problem = problem
        if problem:
            log.warning("%s: %s; the replicas stay where they were", self._path, problem)
        else:
            log.info("%s is good again", self._path)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Which replicas run elsewhere, as the environment says, so that no engine is started for them here."""

    urls: Addresses
    file: Path | None = None  # names all of them
    services: tuple[str, ...] = ()  # of Kubernetes; all of them are behind these
    cluster: Cluster | None = None  # where the services are

    @classmethod
    def read(cls, environ: Mapping[str, str], check_url: Callable[[str], object]) -> Elsewhere:
        """Read the environment. Raises `RoleError` with the variable that is wrong."""
        said = [name for name in _VARIABLES if environ.get(name, "").strip()]
        if len(said) > 1:
            raise RoleError(f"{' and '.join(said)} are set together; one of them can name all replicas")
        text = environ[said[0]] if said else ""
        try:
            match said:
                case ["TENANTRY_ENGINE_FILE"]:
                    return cls({}, Path(text))
                case ["TENANTRY_ENGINE_SERVICES"]:
                    from routing.replicas.kubernetes import Cluster

                    return cls({}, services=parse_services(text), cluster=Cluster.of_pod(environ))
                case _:
                    return cls(parse_urls(text, check_url))
        except ValueError as error:
            raise RoleError(f"{said[0]}: {error}") from None

    def has(self, replica: str) -> bool:
        """Whether a replica runs elsewhere."""
        return self.file is not None or bool(self.services) or replica in self.urls

    def discovery(self, here: Callable[[], Addresses], check_url: Callable[[str], object]) -> Discovery:
        """Watch for these replicas and those that run `here`, which is called once watching begins."""
        if self.file is not None:
            return FileDiscovery(self.file, check_url=check_url)
        if self.cluster is not None:
            from routing.replicas.kubernetes import SliceDiscovery

            return SliceDiscovery(self.cluster, self.services)
        return StaticDiscovery(lambda: {**here(), **self.urls}, elsewhere=self.urls.keys())


def parse_addresses(content: bytes, check_url: Callable[[str], object]) -> dict[str, str]:
    """Read `name: url` pairs from YAML or JSON. Raises `ValueError` for anything else.

    Nothing is built but text: the nodes are taken as they are, so that no tag and no alias does anything.
    """
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES // 1024} KiB")
    try:
        node = yaml.compose(content.decode(), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"not YAML or JSON: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(node, yaml.MappingNode):
        raise ValueError("not a mapping of replica names to URLs")
    return _addresses([(_text(name), _text(url)) for name, url in node.value], check_url)


def parse_urls(text: str, check_url: Callable[[str], object]) -> dict[str, str]:
    """Read `name=url name=url`, as in `TENANTRY_ENGINE_URLS`. Raises `ValueError` for anything else."""
    pairs = [item.partition("=") for item in text.split()]
    return _addresses([(name, url) for name, _, url in pairs], check_url)


def parse_services(text: str) -> tuple[str, ...]:
    """Read names of Kubernetes' Services, as in `TENANTRY_ENGINE_SERVICES`. Raises `ValueError`."""
    for name in text.split():
        if not _SERVICE.fullmatch(name):
            raise ValueError(
                f"{name!r} cannot be a Service of Kubernetes: 1 to 63 of a-z, 0-9 and `-`, the first a "
                "letter, the last none of `-`"
            )
    return tuple(sorted({*text.split()}))


def _text(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError(f"line {node.start_mark.line + 1}: a name and a URL are expected")
    return str(node.value)


def _addresses(pairs: list[tuple[str, str]], check_url: Callable[[str], object]) -> dict[str, str]:
    """Check every pair. Raises `ValueError`."""
    addresses: dict[str, str] = {}
    for name, url in pairs:
        if not name:
            raise ValueError(f"{url!r} belongs to no replica; write its name before it")
        if name in addresses:
            raise ValueError(f"the replica {name!r} is named twice")
        check_url(url)
        addresses[name] = url
    return addresses

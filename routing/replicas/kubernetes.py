"""Finds replicas by the EndpointSlices of pools' headless Services, in the gateway's own namespace.

All slices are listed, then watched from the list's version on. Whatever goes wrong, they are listed anew
after a pause: a list is complete, so that an event which was missed, a deletion above all, does no harm.
Until then the replicas stay where they were. Needs a Role with `list` and `watch` of `endpointslices`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import ValidationError

from routing.replicas.endpoint_slices import SERVICE_LABEL, Event, SliceList, Slices

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # where Kubernetes mounts it into a pod
WATCH_S = 30  # the API server ends a watch after this, and the next one goes on where it ended
SILENCE_S = 45.0  # a watch that is neither heard of nor ended for this long is dead
CONNECT_TIMEOUT_S = 5.0
FIRST_WAIT_S, MAX_WAIT_S = 1.0, 30.0  # before another try: doubled each time, and up to half of it less
LONGEST_PROBLEM = 300  # characters of a line of the log; an API server, or what answers for it, may say more
MAX_LINE_BYTES = 8 * 2**20  # a slice of a thousand endpoints, which is the most, takes half of one
_WORDS: dict[object, str] = {
    401: "the API server does not know the service account's token",
    403: "the service account may not list and watch endpointslices: give it the Role that "
    "`tenantry manifests` writes",
    410: "what was watched is too old to go on from, as after a compaction",
}
log = logging.getLogger("tenantry.discovery")


class _Fault(Exception):
    """The API server does not do what it was asked to; says why."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the API server is, and what lets us in."""

    url: str
    namespace: str
    token_file: Path  # read for each call, as Kubernetes replaces it
    ca_file: Path | None  # of the certificate that the API server shows; None: the system's

    @classmethod
    def of_pod(cls, environ: Mapping[str, str], account: Path = ACCOUNT) -> Cluster:
        """Return the cluster that this pod runs in. Raises `ValueError` where it runs in none."""
        host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise ValueError("this process runs in no pod: KUBERNETES_SERVICE_HOST is not set")
        try:
            namespace = (account / "namespace").read_text().strip()
        except OSError as error:
            raise ValueError(
                f"the pod has no service account ({account}: {error.strerror}): let it mount one, with "
                "automountServiceAccountToken"
            ) from error
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return cls(f"https://{authority}", namespace, account / "token", account / "ca.crt")


class SliceDiscovery:
    """Replicas whose addresses Kubernetes knows."""

    is_static = False

    def __init__(
        self,
        cluster: Cluster,
        services: Collection[str],
        *,
        silence_s: float = SILENCE_S,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`services` are headless Services, each called like the pool whose hosts are behind it."""
        self._cluster = cluster
        self._services = services
        self._silence_s = silence_s
        self._sleep = sleep
        self._chance = random.SystemRandom()
        self._wait_s = FIRST_WAIT_S
        self._problem = ""
        self._ignored: frozenset[str] = frozenset()

    def is_started_here(self, replica: str) -> bool:
        """Never: pods start them."""
        return False

    async def watch(self) -> AsyncIterator[Mapping[str, str]]:
        """Yield where all replicas are, whenever that has changed."""
        known: dict[str, str] | None = None
        while True:
            try:
                async with contextlib.aclosing(self._follow()) as changes:
                    async for slices in changes:
                        found = self._find(slices)
                        if found != known:
                            known = found
                            yield found
            except (_Fault, aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
                self._report(self._words(error))
            await self._pause(self._wait_s)
            self._wait_s = min(2 * self._wait_s, MAX_WAIT_S)

    async def _follow(self) -> AsyncGenerator[Slices]:
        """Yield the slices once listed and after each event, until something goes wrong; raises it."""
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=await self._tls()),
            timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S, sock_read=self._silence_s),
        ) as session:
            async with self._ask(session, {}) as answer:
                slices = Slices(SliceList.model_validate_json(await answer.read()))
            yield slices
            while True:
                since = {"watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_S)}
                async with self._ask(session, {**since, "resourceVersion": slices.version}) as answer:
                    while line := await answer.content.readline(max_line_length=MAX_LINE_BYTES):
                        slices.take(_event(line))
                        self._recover()
                        yield slices
                self._recover()
                await self._pause(FIRST_WAIT_S)

    @contextlib.asynccontextmanager
    async def _ask(
        self, session: aiohttp.ClientSession, query: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask for slices. Raises `_Fault`, `OSError` and aiohttp's errors."""
        where = self._cluster
        url = f"{where.url}/apis/discovery.k8s.io/v1/namespaces/{where.namespace}/endpointslices"
        chosen = {"labelSelector": f"{SERVICE_LABEL} in ({','.join(sorted(self._services))})"}
        token = (await asyncio.to_thread(where.token_file.read_text)).strip()
        headers = {"authorization": f"Bearer {token}"}
        async with session.get(
            url, params={**chosen, **query}, headers=headers, allow_redirects=False
        ) as answer:
            if answer.status != 200:
                words = _WORDS.get(answer.status, "the API server answers")
                raise _Fault(f"{words} ({answer.status}, namespace {where.namespace})")
            yield answer

    async def _tls(self) -> ssl.SSLContext | bool:
        """Return by what the API server is known, read anew as it may have another certificate by now."""
        ca_file = self._cluster.ca_file
        if ca_file is None:
            return True
        return await asyncio.to_thread(ssl.create_default_context, cafile=str(ca_file))

    def _find(self, slices: Slices) -> dict[str, str]:
        """Return where the hosts are; what is passed over is logged once."""
        addresses, ignored = slices.find(self._services)
        for why in sorted(ignored - self._ignored):
            log.warning("%s; it is ignored", why)
        self._ignored = ignored
        return addresses

    async def _pause(self, at_most_s: float) -> None:
        """Wait, for a time by chance, so that several gateways do not come back together."""
        await self._sleep(at_most_s * self._chance.uniform(0.5, 1))

    def _recover(self) -> None:
        """Note that a watch works."""
        self._wait_s = FIRST_WAIT_S
        self._report("")

    def _report(self, problem: str) -> None:
        """Log what is wrong, once and in one line, and that it no longer is."""
        problem = " ".join(problem.split())[:LONGEST_PROBLEM]
        if problem == self._problem:
            return
        self._problem = problem
        if problem:
            log.warning("Kubernetes: %s; the replicas stay where they were", problem)
        else:
            log.info("Kubernetes tells again where replicas are")

    def _words(self, error: Exception) -> str:
        """Say what is wrong."""
        match error:
            case TimeoutError():
                return f"the API server was silent for {self._silence_s:g} s"
            case ValidationError():
                return f"the API server sent what is no list and no event: {error.errors()[0]['msg']}"
            case FileNotFoundError() | PermissionError():
                return f"{error.filename}: {error.strerror}"
            case _:
                return str(error) or type(error).__name__


def _event(line: bytes) -> Event:
    """Read one line of a watch. Raises `_Fault` where it is an error, `ValueError` where it is no event."""
    event = Event.model_validate_json(line)
    if event.type == "ERROR":
        code, message = event.object.get("code"), event.object.get("message")
        words = _WORDS.get(code) if isinstance(code, int) else None
        raise _Fault(f"{words or 'the watch ended'} ({code}: {message})")
    return event

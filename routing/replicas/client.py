"""How is one replica reached? Its address, its readiness, and one upstream request. Decides nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from engines.health import EngineHealth, EngineState
from engines.protocol import ADAPTERS_PATH, METRICS_PATH, READY_PATH, TOKEN_HEADER, TRIAL_PATH
from engines.residency import DesiredAdapters, Residency, TrialReport

CONNECT_TIMEOUT_S = 5.0
CONTROL_TIMEOUT_S = 10.0
TRIAL_TIMEOUT_S = 120.0  # loading a large adapter from a cold disk, behind a full batch
PROBE_TIMEOUT_S = 2.0
# Below the engine server's own, so that a connection is never reused as it closes.
KEEP_ALIVE_S = 3.0
MAX_HEADER_BYTES = 4 * 2**20  # vLLM puts 100 bytes for each of many embeddings into one header


class ReplicaSilent(Exception):
    """A replica gave no usable answer to a control call."""


class ReplicaDied(ReplicaSilent):
    """It broke off, or said that its engine is dead; one that is only slow has not."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a replica listens: a Unix socket, or an HTTP origin."""

    base_url: str
    socket_path: str | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read `unix:///path`, `file:///path` (BentoML's spelling) or `http(s)://host:port`.

        Raises `ValueError` for anything else.
        """
        parts = urlsplit(url)
        if parts.scheme in ("unix", "file") and parts.path:
            return cls("http://engine", parts.path)
        if parts.scheme in ("http", "https") and parts.netloc:
            return cls(url.rstrip("/"))
        raise ValueError(f"{url!r} is not the address of a replica; use unix:///path or http://host:port")


class ReplicaClient:
    """Speaks to one replica at one address. Create it inside a running event loop; close it when done."""

    def __init__(self, name: str, url: str, token: str) -> None:
        """Raises `ValueError` where the URL is not the address of a replica."""
        self.name = name
        self.url = url
        self._users = 0  # requests and control calls that have not ended
        self._unused = asyncio.Event()
        self._unused.set()
        address = Address.parse(url)
        self._base_url = address.base_url
        connector: aiohttp.BaseConnector
        if address.socket_path:
            connector = aiohttp.UnixConnector(address.socket_path, limit=0, keepalive_timeout=KEEP_ALIVE_S)
        else:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            headers={TOKEN_HEADER: token, "content-type": "application/json"},
            skip_auto_headers=("user-agent", "accept-encoding"),
            cookie_jar=aiohttp.DummyCookieJar(),
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            auto_decompress=False,
        )

    @property
    def in_use(self) -> bool:
        """Whether a request or a control call has not ended; readiness and metrics do not count."""
        return self._users > 0

    async def unused(self) -> None:
        """Wait until it is not in use."""
        await self._unused.wait()

    async def post(self, path: str, body: bytes, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """Send a request; the caller reads the answer and must `end` it. Raises aiohttp's errors."""
        self._begin_use()
        try:
            return await self._session.post(self._base_url + path, data=body, headers=headers)
        except BaseException:
            self._end_use()
            raise

    def end(self, response: aiohttp.ClientResponse) -> None:
        """Be done with the answer to a `post`, once; where it has not ended, its connection is closed."""
        response.close()
        self._end_use()

    async def health(self) -> EngineHealth | None:
        """Ask the replica how its engine stands; None where it gives no usable answer."""
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        try:
            async with self._session.get(self._base_url + READY_PATH, timeout=timeout) as response:
                state = EngineState.READY if response.status == 200 else EngineState.STARTING
                # An engine of an older release says no more than its status does.
                return EngineHealth.from_json({"state": state, **orjson.loads(await response.read())})
        except (aiohttp.ClientError, OSError, TimeoutError, KeyError, TypeError, ValueError):
            return None

    async def is_ready(self) -> bool:
        """Ask the replica whether it answers requests; every failure is a no."""
        health = await self.health()
        return health is not None and health.state is EngineState.READY

    async def residency(self) -> Residency:
        """Ask what is in the engine. Raises `ReplicaSilent`."""
        return Residency.from_json(await self._control("GET", ADAPTERS_PATH, None, CONTROL_TIMEOUT_S))

    async def desire(self, desired: DesiredAdapters) -> Residency:
        """Tell the engine everything it may serve. Raises `ReplicaSilent`."""
        answer = await self._control("PUT", ADAPTERS_PATH, desired.to_json(), CONTROL_TIMEOUT_S)
        return Residency.from_json(answer)

    async def try_adapter(self, adapter_id: str) -> TrialReport:
        """Have a desired adapter tried. Raises `ReplicaSilent`, and `ReplicaDied` where that killed it."""
        answer = await self._control("POST", TRIAL_PATH, {"id": adapter_id}, TRIAL_TIMEOUT_S)
        return TrialReport.from_json(answer)

    async def _control(self, method: str, path: str, payload: object, timeout_s: float) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        body = None if payload is None else orjson.dumps(payload)
        self._begin_use()
        try:
            async with self._session.request(
                method, self._base_url + path, data=body, timeout=timeout
            ) as response:
                response.raise_for_status()
                answer: dict[str, Any] = orjson.loads(await response.read())
                return answer
        except (aiohttp.ClientError, OSError, TimeoutError, orjson.JSONDecodeError) as error:
            kind = ReplicaSilent if isinstance(error, TimeoutError) else ReplicaDied
            raise kind(f"{self.name}: {path}: {error!r}") from error
        finally:
            self._end_use()

    async def metrics(self) -> bytes:
        """Fetch the replica's own metrics page. Raises aiohttp's errors, or `TimeoutError`."""
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        async with self._session.get(self._base_url + METRICS_PATH, timeout=timeout) as response:
            response.raise_for_status()
            return await response.read()

    async def close(self) -> None:
        """Close its connections."""
        await self._session.close()

    def _begin_use(self) -> None:
        self._users += 1
        self._unused.clear()

    def _end_use(self) -> None:
        self._users -= 1
        if not self._users:
            self._unused.set()

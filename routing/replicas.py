"""How is one replica reached? Its address, its readiness, and one upstream request. Decides nothing."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp

from adapters.protocol import METRICS_PATH, READY_PATH, TOKEN_HEADER

CONNECT_TIMEOUT_S = 5.0
PROBE_TIMEOUT_S = 2.0
# Below the engine server's own keep-alive (uvicorn: 5 s), so that a connection is never reused as it closes.
KEEP_ALIVE_S = 3.0


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
    """Speaks to one replica. Create it inside a running event loop; close it when done."""

    def __init__(self, name: str, address: Address, token: str) -> None:
        self.name = name
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
            auto_decompress=False,
        )

    def post(
        self, path: str, body: bytes, headers: dict[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Send a request; the answer's body is read by the caller. Raises aiohttp's errors."""
        return self._session.post(self._base_url + path, data=body, headers=headers)

    async def is_ready(self) -> bool:
        """Ask the replica whether it answers requests; every failure is a no."""
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        try:
            async with self._session.get(self._base_url + READY_PATH, timeout=timeout) as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    async def metrics(self) -> bytes:
        """Fetch the replica's own metrics page. Raises aiohttp's errors, or `TimeoutError`."""
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        async with self._session.get(self._base_url + METRICS_PATH, timeout=timeout) as response:
            response.raise_for_status()
            return await response.read()

    async def close(self) -> None:
        """Close its connections."""
        await self._session.close()

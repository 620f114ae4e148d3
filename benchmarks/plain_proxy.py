"""What does a proxy cost that does nothing else? Raw ASGI and aiohttp, bytes in, bytes out.

It knows no tenant, no cap and no queue: the distance between it and the gateway is the price of those.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import aiohttp

from benchmarks.machine import ROOT
from routing import gc_tuning

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"transfer-encoding",
        b"te",
        b"trailer",
        b"upgrade",
        b"host",
        b"content-length",
    )
)


class PlainProxy:
    """An ASGI application that passes every request to one upstream."""

    def __init__(self, upstream: str) -> None:
        self.socket_path = (
            upstream.removeprefix("unix:").replace("//", "/", 1) if "unix:" in upstream else None
        )
        self.base = "http://localhost" if self.socket_path else upstream.rstrip("/")
        self.session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "lifespan":
            await self.run_lifespan(receive, send)
        elif scope["type"] == "http":
            await self.relay(scope, receive, send)

    async def run_lifespan(self, receive: Any, send: Any) -> None:
        """Open the client session with the server and close it with it."""
        await receive()
        connector: aiohttp.BaseConnector = aiohttp.TCPConnector(limit=0)
        if self.socket_path:
            connector = aiohttp.UnixConnector(self.socket_path, limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False
        ) as session:
            self.session = session
            gc_tuning.rest()  # as the gateway does: what is compared must not be who pauses less
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def relay(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass one request up and its answer down, a stream piece by piece."""
        if self.session is None:
            raise RuntimeError(
                "the proxy needs a server that runs the lifespan protocol: uvicorn --lifespan on"
            )
        message = await receive()
        body: bytes = message.get("body", b"")
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in scope["headers"]
            if name not in HOP_BY_HOP
        ]
        async with self.session.request(
            scope["method"], self.base + scope["path"], data=body or None, headers=headers
        ) as answer:
            kept = [
                (name.lower(), value) for name, value in answer.raw_headers if name.lower() not in HOP_BY_HOP
            ]
            stream = answer.content_type == "text/event-stream"
            whole = b"" if stream else await answer.read()
            if not stream:
                kept.append((b"content-length", str(len(whole)).encode()))
            await send({"type": "http.response.start", "status": answer.status, "headers": kept})
            if stream:
                async for piece in answer.content.iter_any():
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": whole})


def command(port: int) -> list[str]:
    """The command that serves it at a port of this machine, for PLAIN_PROXY_UPSTREAM."""
    return [
        *(sys.executable, "-m", "uvicorn", "--factory", "benchmarks.plain_proxy:create_app"),
        *("--app-dir", str(ROOT), "--host", "127.0.0.1", "--port", str(port), "--lifespan", "on"),
        *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"),
    ]


def create_app() -> PlainProxy:
    """For `uvicorn --factory`; the upstream is in PLAIN_PROXY_UPSTREAM."""
    return PlainProxy(os.environ["PLAIN_PROXY_UPSTREAM"])

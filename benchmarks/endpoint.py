"""How is something reached that answers chat completions? Its address, one request, the first answer."""

from __future__ import annotations

import http.client
import json
import socket
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.processes import Child
from benchmarks.tools import Endpoint, ToolError


@dataclass(frozen=True, slots=True)
class Target:
    """Something that answers chat completions."""

    name: str
    endpoint: Endpoint
    models: tuple[str, ...]
    pid: int | None = None  # whose CPU and memory count; None: they are not measured


def split_url(url: str) -> tuple[str, str]:
    """(address for the load generator, path in front of /v1) of a base URL. Raises ToolError."""
    if url.startswith("unix:"):
        return "unix:/" + url.removeprefix("unix:").lstrip("/"), ""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ToolError(f"{url!r} is no address: write http://host:port or unix:/path")
    return f"{parts.hostname}:{parts.port or 80}", parts.path.rstrip("/").removesuffix("/v1")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(endpoint: Endpoint, path: str, body: object = None, timeout_s: float = 10.0) -> tuple[int, bytes]:
    """Send one request; returns status and body. Raises OSError or http.client.HTTPException."""
    connection: http.client.HTTPConnection
    if endpoint.address.startswith("unix:"):
        connection = _UnixConnection(endpoint.address.removeprefix("unix:"), timeout_s)
    else:
        connection = http.client.HTTPConnection(endpoint.address, timeout=timeout_s)
    headers = dict(header.split(": ", 1) for header in endpoint.headers)
    try:
        if body is None:
            connection.request("GET", path, headers=headers)
        else:
            connection.request(
                "POST", path, json.dumps(body), {**headers, "Content-Type": "application/json"}
            )
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def wait_for_chat(target: Target, child: Child | None, timeout_s: float = 90.0) -> None:
    """Wait until a target answers a chat completion. Raises ToolError with the end of its log."""
    body = {"model": target.models[0], "messages": [{"role": "user", "content": "ping"}], "max_tokens": 4}
    end = time.monotonic() + timeout_s
    seen = "nothing listened"
    while time.monotonic() < end:
        if child is not None and child.process.poll() is not None:
            raise ToolError(f"{target.name} ended with {child.process.returncode}:\n{child.last_words()}")
        try:
            status, answer = ask(target.endpoint, target.endpoint.path, body, timeout_s=5.0)
        except (OSError, http.client.HTTPException) as error:
            seen = repr(error)
        else:
            if status == 200:
                return
            seen = f"{status} {answer[:300]!r}"
        time.sleep(0.1)
    words = f":\n{child.last_words()}" if child is not None else ""
    raise ToolError(f"{target.name} did not answer a chat within {timeout_s:g} s; last: {seen}{words}")

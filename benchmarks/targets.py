"""Who is measured? Starts the mock engine and the targets in front of it, and says how to reach each.

A target that runs already is taken as it is: it is neither started, pinned nor ended here.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.fleet import API_KEY, MODELS, POOL, write_fleet
from benchmarks.machine import ROOT
from benchmarks.processes import Child, free_port, start, stop
from benchmarks.tools import Endpoint, ToolError, build_tool


@dataclass(frozen=True, slots=True)
class Target:
    """Something that answers chat completions."""

    name: str
    endpoint: Endpoint
    models: tuple[str, ...]
    pid: int | None = None  # whose CPU and memory count; None: they are not measured


@dataclass(slots=True)
class Stage:
    """What one benchmark has started, and ends when it leaves."""

    folder: Path  # for logs, sockets and generated files
    target_cpu: int | None
    load_cpu: int | None
    children: list[Child] = field(default_factory=list)

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        for child in reversed(self.children):
            stop(child)

    @property
    def mock_socket(self) -> Path:
        """Where the mock engine listens."""
        return self.folder / "mock.sock"

    def start(
        self, name: str, command: list[str], *, on_load_cpu: bool = False, env: dict[str, str] | None = None
    ) -> Child:
        """Start a process on the targets' or on the load's CPU."""
        cpu = self.load_cpu if on_load_cpu else self.target_cpu
        child = start(command, self.folder / f"{name}.log", cpu=cpu, env=env)
        self.children.append(child)
        return child


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


def start_mock(stage: Stage, port: int | None = None) -> Target:
    """Start the mock engine on its Unix socket, and on a TCP port where one is given."""
    command = [str(build_tool("mock")), "--listen", f"unix:{stage.mock_socket}"]
    if port is not None:
        command += ["--listen", f"127.0.0.1:{port}"]
    child = stage.start("mock", command, on_load_cpu=True)
    target = Target("direct", Endpoint(f"unix:{stage.mock_socket}"), ("mock",), pid=child.pid)
    wait_for_chat(target, child, timeout_s=10.0)
    return target


def served_requests(mock: Target) -> int:
    """How many completions the mock engine has begun so far."""
    _, answer = ask(mock.endpoint, "/mock/stats")
    return int(json.loads(answer)["requests"])


def start_plain_proxy(stage: Stage) -> Target:
    """Start the proxy that does nothing but pass on."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "benchmarks.plain_proxy:create_app"]
    command += ["--app-dir", str(ROOT), "--host", "127.0.0.1", "--port", str(port), "--lifespan", "on"]
    command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    env = {"PLAIN_PROXY_UPSTREAM": f"unix:{stage.mock_socket}"}
    child = stage.start("plain-proxy", command, env=env)
    target = Target("plain proxy", Endpoint(f"127.0.0.1:{port}"), ("mock",), pid=child.pid)
    wait_for_chat(target, child)
    return target


def start_gateway(stage: Stage) -> Target:
    """Start the gateway as in production, through BentoML, with the mock in place of its engine."""
    port = free_port()
    home = stage.folder / "bentoml"  # of its own: BentoML keeps its metrics there and wipes them
    home.mkdir()
    env = {
        "TENANTRY_ENGINE_URLS": f"{POOL}-0=unix://{stage.mock_socket}",
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    command = [sys.executable, "-m", "bentoml", "serve", "service:Gateway"]
    command += ["--arg", f"fleet={write_fleet(stage.folder)}"]
    command += ["--working-dir", str(ROOT), "--host", "127.0.0.1", "--port", str(port)]
    child = stage.start("gateway", command, env=env)
    endpoint = Endpoint(f"127.0.0.1:{port}", (f"Authorization: Bearer {API_KEY}",))
    target = Target("gateway", endpoint, MODELS, pid=child.pid)
    wait_for_chat(target, child)
    return target


STARTERS: dict[str, Callable[[Stage], Target]] = {
    "plain proxy": start_plain_proxy,
    "gateway": start_gateway,
}


def external_targets(urls: list[str], headers: list[str], models: list[str], pids: list[str]) -> list[Target]:
    """Targets that run already, from `name=value` options. Raises ToolError on a malformed one."""
    header_of = _pairs(headers)
    model_of = _pairs(models)
    pid_of = _pairs(pids)
    targets = []
    for name, values in _pairs(urls).items():
        address, prefix = split_url(values[-1])
        endpoint = Endpoint(address, tuple(header_of.pop(name, [])), f"{prefix}/v1/chat/completions")
        pid = pid_of.pop(name, [""])[-1]
        targets.append(
            Target(name, endpoint, tuple(model_of.pop(name, ["mock"])), int(pid) if pid.isdigit() else None)
        )
    unknown = [*header_of, *model_of, *pid_of]
    if unknown:
        raise ToolError(f"no --target is named {unknown[0]!r}")
    return targets


def _pairs(options: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not (name and equals and value):
            raise ToolError(f"{option!r}: write name=value")
        found.setdefault(name, []).append(value)
    return found

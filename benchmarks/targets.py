"""Who is measured? Starts the mock engine and the targets in front of it, and says how to reach each."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import plain_proxy
from benchmarks.endpoint import Target, wait_for_chat
from benchmarks.fleet import MODELS, POOL, TENANT, api_key, mock_fleet, write
from benchmarks.processes import Child, free_port, start, stop
from benchmarks.service import serve_command, serve_environment
from benchmarks.tools import Endpoint, build_tool


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
    def cpus(self) -> set[int]:
        """Those it pins to; none where it pins to none."""
        return {cpu for cpu in (self.target_cpu, self.load_cpu) if cpu is not None}

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


def start_mock(stage: Stage, port: int) -> Target:
    """Start the mock engine on its Unix socket and on a TCP port."""
    listen = ["--listen", f"unix:{stage.mock_socket}", "--listen", f"127.0.0.1:{port}"]
    command = [str(build_tool("mock")), *listen]
    child = stage.start("mock", command, on_load_cpu=True)
    target = Target("direct", Endpoint(f"unix:{stage.mock_socket}"), ("mock",), pid=child.pid)
    wait_for_chat(target, child, timeout_s=10.0)
    return target


def start_plain_proxy(stage: Stage) -> Target:
    """Start the proxy that does nothing but pass on."""
    port = free_port()
    env = {"PLAIN_PROXY_UPSTREAM": f"unix:{stage.mock_socket}"}
    child = stage.start("plain-proxy", plain_proxy.command(port), env=env)
    target = Target("plain proxy", Endpoint(f"127.0.0.1:{port}"), ("mock",), pid=child.pid)
    wait_for_chat(target, child)
    return target


def start_gateway(stage: Stage, name: str = "gateway", service: str = "service:Gateway") -> Target:
    """Start the gateway as in production, through BentoML, with the mock in place of its engine."""
    port, folder = free_port(), stage.folder / name
    folder.mkdir()
    env = serve_environment(folder)
    env["TENANTRY_ENGINE_URLS"] = f"{POOL}-0=unix://{stage.mock_socket}"
    command = serve_command(port, write(folder, mock_fleet()), service=service)
    child = stage.start(name, command, env=env)
    endpoint = Endpoint(f"127.0.0.1:{port}", (f"Authorization: Bearer {api_key(TENANT)}",))
    target = Target(name, endpoint, MODELS, pid=child.pid)
    wait_for_chat(target, child)
    return target

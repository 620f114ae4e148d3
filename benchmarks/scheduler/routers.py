"""What stands between clients and engines for a baseline? A bare proxy in front of each engine.

A router costs CPU whatever it decides, and here clients, routers and engines share two cores. So a baseline
pays for the least that a router of the gateway's make can be: bytes in, bytes out, for each request and each
event of a stream. Clients reach it as they reach the gateway, over TCP, which costs more than a Unix socket.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import plain_proxy
from benchmarks.processes import free_port, start, stop
from benchmarks.service import Service


@dataclass(frozen=True, slots=True)
class Router:
    """A proxy that runs."""

    engine: str
    url: str
    pid: int


@contextmanager
def start_routers(folder: Path, service: Service, engines: Sequence[str]) -> Iterator[list[Router]]:
    """Put a proxy in front of each engine; ended on leaving. They may not listen yet."""
    with ExitStack() as stack:
        routers = []
        for engine in engines:
            port = free_port()
            environment = {"PLAIN_PROXY_UPSTREAM": service.engine_url(engine)}
            child = start(plain_proxy.command(port), folder / f"router-{engine}.log", env=environment)
            stack.callback(stop, child)
            routers.append(Router(engine, f"http://127.0.0.1:{port}", child.pid))
        yield routers

"""How is the whole service started for a benchmark, and where is the engine behind its gateway?

Starts it as in production, through BentoML, and reads the engines' addresses from its workers' environment,
where BentoML leaves them for the gateway.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.endpoint import Target, wait_for_chat
from benchmarks.machine import ROOT
from benchmarks.processes import PROC, Child, free_port, running_family, start, stop
from benchmarks.tools import ToolError
from engines.protocol import TOKEN_HEADER
from engines.secrets import internal_token

START_TIMEOUT_S = 600.0  # an engine may have gigabytes to load
ADDRESSES = "BENTOML_RUNNER_MAP"


@dataclass(frozen=True, slots=True)
class Service:
    """A running service."""

    child: Child
    port: int
    secret: str

    @property
    def url(self) -> str:
        """Of its gateway."""
        return f"http://127.0.0.1:{self.port}"

    def wait_until_ready(self, gateway: Target) -> None:
        """Wait until a chat is answered through the gateway. Raises ToolError."""
        wait_for_chat(gateway, self.child, START_TIMEOUT_S)

    def engine_headers(self) -> list[str]:
        """What the engine wants to see beside any request."""
        return [f"{TOKEN_HEADER}: {internal_token(self.secret.encode())}"]

    def engine_url(self, replica: str) -> str:
        """`unix:` address of one replica's engine. Raises ToolError where there is no such one."""
        addresses: dict[str, str] = {}
        for member in running_family(self.child.pid):
            addresses |= addresses_in(_environment(member.pid))
        if replica not in addresses:
            known = ", ".join(sorted(addresses)) or "none yet"
            raise ToolError(f"the service has no replica {replica!r}; it has: {known}")
        return addresses[replica].replace("file://", "unix:", 1)


def addresses_in(environment: dict[str, str]) -> dict[str, str]:
    """Replica -> address, as BentoML writes it for its workers; empty for any other process."""
    found = json.loads(environment.get(ADDRESSES, "{}"))
    return {str(name): str(url) for name, url in found.items()}


def _environment(pid: int) -> dict[str, str]:
    try:
        text = (PROC / str(pid) / "environ").read_text(errors="replace")
    except OSError:  # it ended meanwhile
        return {}
    return dict(item.split("=", 1) for item in text.split("\0") if "=" in item)


def serve_command(
    port: int, fleet: Path, pool: str | None = None, service: str = "service:Gateway"
) -> list[str]:
    """The command that serves a fleet, or one pool of it."""
    return [
        *(sys.executable, "-m", "bentoml", "serve", service),
        *("--working-dir", str(ROOT), "--arg", f"fleet={fleet}"),
        *(("--arg", f"pool={pool}") if pool else ()),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]


def serve_environment(folder: Path) -> dict[str, str]:
    """A BentoML home and a state of its own: a second service would wipe the one and has locked the other."""
    home = folder / "bentoml"
    home.mkdir()
    state = folder / "state"
    return {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True", "TENANTRY_STATE": str(state)}


@contextmanager
def start_service(folder: Path, fleet: Path, pool: str | None = None) -> Iterator[Service]:
    """Start the service with all its engines; it and they are ended on leaving."""
    port, secret = free_port(), secrets.token_hex(32)
    environment = {**serve_environment(folder), "TENANTRY_SECRET": secret}
    child = start(serve_command(port, fleet, pool), folder / "service.log", env=environment)
    try:
        yield Service(child, port, secret)
    finally:
        stop(child, grace_s=40.0)

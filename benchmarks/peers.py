"""How do other public gateways do on the same machine? Installs one from PyPI and starts it before the mock.

Each lives in its own environment under .cache/peers, with its default settings but for logging. One that does
not install or start is left out, with the reason.
"""

from __future__ import annotations

import subprocess
import venv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.endpoint import Target, wait_for_chat
from benchmarks.machine import ROOT
from benchmarks.processes import free_port
from benchmarks.targets import Stage
from benchmarks.tools import Endpoint, ToolError

FOLDER = ROOT / ".cache" / "peers"
INSTALL_TIMEOUT_S = 900.0
LITELLM_KEY = "sk-bench"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a peer listens and what it forwards to."""

    own: int
    metrics: int
    upstream: int

    @property
    def upstream_url(self) -> str:
        """Of the mock engine."""
        return f"http://127.0.0.1:{self.upstream}"


@dataclass(frozen=True, slots=True)
class Peer:
    """A public gateway: what to install and how to start it."""

    requirement: str
    command: Callable[[Path, Path, Ports], list[str]]  # (its programs, folder for its files, ports)
    headers: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)


def _litellm(programs: Path, folder: Path, ports: Ports) -> list[str]:
    config = folder / "litellm.yaml"
    config.write_text(
        "model_list:\n"
        "  - model_name: mock\n"
        f"    litellm_params: {{model: hosted_vllm/mock, api_base: {ports.upstream_url}/v1, api_key: none}}\n"
        "litellm_settings: {num_retries: 0, telemetry: false}\n"
        f"general_settings: {{master_key: {LITELLM_KEY}}}\n"
    )
    options = ["--config", str(config), "--host", "127.0.0.1", "--port", str(ports.own), "--num_workers", "1"]
    return [str(programs / "litellm"), *options]


def _router(*start: str) -> Callable[[Path, Path, Ports], list[str]]:
    """The Rust routers take the same options."""

    def command(programs: Path, _: Path, ports: Ports) -> list[str]:
        return [
            *(str(programs / start[0]), *start[1:]),
            *("--host", "127.0.0.1", "--port", str(ports.own), "--worker-urls", ports.upstream_url),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(ports.metrics)),
            *("--log-level", "warning" if start[0] == "vllm-router" else "warn"),
        ]

    return command


PEERS: dict[str, Peer] = {
    "litellm": Peer(
        "litellm[proxy]==1.106.2",
        _litellm,
        (f"Authorization: Bearer {LITELLM_KEY}",),
        {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"},
    ),
    "vllm-router": Peer("vllm-router==0.1.17", _router("vllm-router")),
    "sglang-router": Peer("sglang-router==0.3.2", _router("python", "-m", "sglang_router.launch_router")),
}


def check_names(names: list[str]) -> None:
    """Raises ToolError for a peer that is not known here."""
    for name in names:
        if name not in PEERS:
            raise ToolError(f"--peer {name!r}: choose from {', '.join(PEERS)}")


def install(name: str, folder: Path = FOLDER) -> Path:
    """Install a peer where it is missing; returns the folder of its programs. Raises ToolError."""
    home, requirement = folder / name, PEERS[name].requirement
    mark = home / "installed"
    if mark.exists() and mark.read_text() == requirement:
        return home / "bin"
    venv.create(home, with_pip=True, clear=True)
    command = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{requirement} did not install within {INSTALL_TIMEOUT_S:g} s") from error
    if done.returncode:
        raise ToolError(f"{requirement} does not install: {_last_error(done.stderr)}")
    mark.write_text(requirement)
    return home / "bin"


def start_peer(stage: Stage, name: str, upstream_port: int) -> Target:
    """Install and start a peer in front of the mock engine's TCP port. Raises ToolError."""
    peer, programs = PEERS[name], install(name)
    ports = Ports(own=free_port(), metrics=free_port(), upstream=upstream_port)
    child = stage.start(name, peer.command(programs, stage.folder, ports), env=peer.env)
    target = Target(name, Endpoint(f"127.0.0.1:{ports.own}", peer.headers), ("mock",), pid=child.pid)
    wait_for_chat(target, child)
    return target


def _last_error(output: str) -> str:
    lines = [line for line in output.splitlines() if line.startswith("ERROR")]
    return lines[-1] if lines else (output.strip().splitlines() or ["pip gave no reason"])[-1]

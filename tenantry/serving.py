"""The command `serve`: checks the fleet and the port, then replaces itself by `bentoml serve`."""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from fleet import FleetError, LoadedFleet, Problem, check_files, project, read_fleet
from fleet.demo_keys import uses_demo_keys
from fleet.problems import did_you_mean
from fleet.types import Fleet
from tenantry.fleet_tables import fleet_tables, print_problems
from tenantry.fleets import FleetPath, fail, refuse
from tenantry.running import console, print_whole

ROOT = Path(__file__).resolve().parent.parent
PORT = 3000
# engines run on other machines
ELSEWHERE = ("TENANTRY_ENGINE_URLS", "TENANTRY_ENGINE_FILE", "TENANTRY_ENGINE_SERVICES")
_NEAR = 50  # ports searched for a free one


def serve(
    fleet: FleetPath = Path("fleet.yaml"),
    port: Annotated[
        int, typer.Option(min=1, max=65535, envvar="BENTOML_PORT", help="Port to listen on.")
    ] = PORT,
    host: Annotated[
        str | None,
        typer.Option(
            envvar="BENTOML_HOST",
            help="Address to listen on.",
            show_default="0.0.0.0, or 127.0.0.1 for a fleet with the demo's keys",
        ),
    ] = None,
    pool: Annotated[str | None, typer.Option(help="Serve this pool alone.", show_default="all")] = None,
    replica: Annotated[
        str | None,
        typer.Option(help="Serve this host alone, for a gateway elsewhere.", show_default="none"),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Apply the fleet file whenever it is changed.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not show the fleet.")] = False,
) -> None:
    """Serve a fleet here: the gateway and its engines, until Ctrl-C or SIGTERM."""
    _check_installation()
    loaded, part = _checked(fleet, pool, replica)
    taken = why_not(host or _default_host(part), port)
    if taken is not None:
        fail(taken)
    print_problems(console(stderr=True), loaded.warnings, style="yellow", word="warning")
    if not quiet:
        print_whole(console(), fleet_tables(part))
    typer.echo(f"Starting on port {port}; engines take about a minute to load.")
    if watch:
        os.environ["TENANTRY_WATCH"] = "1"
    _become_bentoml(fleet, port, host, {"pool": pool, "replica": replica})


def why_not(host: str, port: int) -> str | None:
    """Return why nothing can listen there, with a remedy; None if it can."""
    error = _bind_error(host, port)
    if error is None:
        return None
    if error.errno != errno.EADDRINUSE:
        return f"nothing can listen on port {port} of {host}: {error.strerror or error}"
    near = range(port + 1, min(port + _NEAR, 65535) + 1)
    free = next((other for other in near if _bind_error(host, other) is None), None)
    example = f" with --port {free}" if free is not None else " with --port"
    return f"port {port} is taken by another program; choose another{example}"


def _bind_error(host: str, port: int) -> OSError | None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            probe.bind(address)
    except OSError as error:
        return error
    return None


def _check_installation() -> None:
    """Exit with 1 if only the command is installed, or BentoML or vLLM is missing."""
    if not (ROOT / "service.py").is_file():
        fail("this is the command alone, which cannot serve; use a checkout, or `bentoml serve` of a Bento")
    needed = ["bentoml"] if any(map(os.environ.get, ELSEWHERE)) else ["bentoml", "vllm"]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        fail(f"{' and '.join(missing)} not installed in {sys.prefix}; `make setup` installs it")


def _checked(path: Path, pool: str | None, replica: str | None) -> tuple[LoadedFleet, Fleet]:
    """Return the fleet and the part of it that is served, or print the problems and exit with 1."""
    try:
        loaded = read_fleet(path)
        part = loaded.fleet if pool is None else project(loaded.fleet, pool)
    except FleetError as error:
        refuse(error.problems, may_be_more=error.may_be_more)
        raise
    problems = check_files(part, file=str(path), lines=loaded.lines)
    names = [host.name for held in part.pools.values() for host in held.hosts]
    if replica is not None and replica not in names:
        hint = did_you_mean(replica, names)
        problems.append(Problem(str(path), None, "pools", f"no replica is called `{replica}`", hint))
    refuse(problems)
    return loaded, part


def _default_host(fleet: Fleet) -> str:
    """Return service.py's default address."""
    local = uses_demo_keys(fleet) and os.environ.get("TENANTRY_DEMO") != "1"
    return "127.0.0.1" if local else "0.0.0.0"  # noqa: S104  # a server


def _become_bentoml(fleet: Path, port: int, host: str | None, arguments: dict[str, str | None]) -> None:
    """Replace this process by `bentoml serve`, so that signals reach it."""
    command = [sys.executable, "-m", "bentoml", "serve", "service:Gateway", "--port", str(port)]
    command += ["--host", host] if host is not None else []
    given = {"fleet": os.path.abspath(fleet), **arguments}
    for name, value in given.items():
        command += ["--arg", f"{name}={value}"] if value is not None else []
    programs = str(Path(sys.executable).parent)  # vLLM calls some by name
    path = os.pathsep.join(filter(None, (programs, os.environ.get("PATH"))))
    sys.stdout.flush()
    os.chdir(ROOT)
    os.execve(sys.executable, command, {**os.environ, "PATH": path, "BENTOML_DO_NOT_TRACK": "True"})  # noqa: S606

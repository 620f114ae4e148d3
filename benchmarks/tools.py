"""Where are the mock engine and the load generator? Compiles them when needed and runs the load generator.

Refuses to time anything in Python: what is measured is measured in C.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from benchmarks.processes import pin_to
from benchmarks.results import LoadResult

SOURCES = Path(__file__).parent
COMPILE_FLAGS = ("-O2", "-Wall", "-Wextra")


class ToolError(Exception):
    """A tool could not be built or did not run; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go and what they carry."""

    address: str  # "host:port" or "unix:/path"
    headers: tuple[str, ...] = ()  # "Name: value"
    path: str = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Load:
    """How hard and how long to drive an endpoint."""

    connections: int
    seconds: float
    warmup_s: float = 0.5
    stagger_ms: float = 0.0  # spreads the first requests of a run over this time
    timeout_s: float = 30.0  # without a byte


def build_tool(name: str, folder: Path | None = None) -> Path:
    """Compile `name`.c where it is new or changed. Returns the program; raises ToolError."""
    folder = folder or SOURCES / "build"
    program = folder / name
    newest = max(path.stat().st_mtime for path in (SOURCES / f"{name}.c", *SOURCES.glob("*.h")))
    if program.exists() and program.stat().st_mtime >= newest:
        return program
    compiler = shutil.which("gcc")
    if compiler is None:
        raise ToolError("gcc is not on the PATH: install it, the benchmark tools are written in C")
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f"{name}.{os.getpid()}"
    command = [compiler, *COMPILE_FLAGS, "-o", str(fresh), str(SOURCES / f"{name}.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolError(f"gcc could not compile {name}.c:\n{done.stderr}")
    fresh.replace(program)
    return program


def load_command(endpoint: Endpoint, load: Load, bodies: Path) -> list[str]:
    """The arguments of the load generator, without the program itself."""
    words: list[str] = ["--connect", endpoint.address, "--path", endpoint.path, "--bodies", str(bodies)]
    for header in endpoint.headers:
        words += ["--header", header]
    numbers: Sequence[tuple[str, float]] = (
        ("--connections", load.connections),
        ("--seconds", load.seconds),
        ("--warmup", load.warmup_s),
        ("--stagger-ms", load.stagger_ms),
        ("--timeout", load.timeout_s),
    )
    for name, number in numbers:
        words += [name, f"{number:g}"]
    return words


def read_result(output: str) -> LoadResult:
    """Parse the load generator's line. Raises ToolError when it is none."""
    try:
        return LoadResult.model_validate_json(output)
    except ValidationError as error:
        raise ToolError(f"the load generator printed something unexpected: {output[:200]!r}") from error


def run_load(endpoint: Endpoint, load: Load, bodies: Path, cpu: int | None = None) -> LoadResult:
    """Drive the endpoint once, pinned to `cpu` where given. Raises ToolError when the tool itself fails."""
    program = build_tool("load")
    limit_s = load.warmup_s + load.seconds + load.timeout_s + 60
    command = [str(program), *load_command(endpoint, load, bodies)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=limit_s, preexec_fn=pin_to(cpu)
    )
    if done.returncode:
        raise ToolError(f"the load generator failed: {done.stderr.strip()}")
    return read_result(done.stdout)

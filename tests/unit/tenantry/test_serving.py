"""`tenantry serve`: what it checks before, and what it becomes."""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tenantry import serving
from tenantry.app import app
from tests.unit.fleet.files import adapter_folder, changed, declared, digest, write

Run = Callable[..., Result]


@dataclass
class Become:
    """What the process would have become."""

    command: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    folder: Path = Path()


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Become:
    """Stays this process and notes what it would become."""
    become = Become()

    def execve(program: str, command: list[str], env: dict[str, str]) -> None:
        assert program == sys.executable
        become.command, become.env = command, env

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(os, "chdir", lambda folder: setattr(become, "folder", folder))
    return become


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """A good fleet file, with its folders."""
    for name in "abc":
        adapter_folder(tmp_path / name)
    return write(tmp_path, declared())


@pytest.fixture
def run(become: Become, fleet: Path) -> Run:
    """Runs `tenantry serve` for the fleet, on a free port where none is named."""

    def run(*arguments: str, path: Path = fleet, **env: str) -> Result:
        port = () if "--port" in arguments else ("--port", str(free_port()))
        return CliRunner().invoke(app, ["serve", str(path), *port, *arguments], env=env)

    return run


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_a_good_fleet_is_shown_and_then_served(run: Run, become: Become, fleet: Path) -> None:
    port = str(free_port())
    result = run("--port", port)
    assert result.exit_code == 0, result.output
    assert "Base models" in result.stdout and port in result.stdout
    assert become.command[:5] == [sys.executable, "-m", "bentoml", "serve", "service:Gateway"]
    assert become.command[5:] == ["--port", port, "--arg", f"fleet={fleet}"]
    assert (become.folder / "service.py").is_file()
    assert become.env["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_quietly_it_shows_no_tables(run: Run, become: Become) -> None:
    result = run("-q")
    assert result.exit_code == 0
    assert "Base models" not in result.stdout
    assert become.command


def test_a_pool_a_replica_and_a_host_are_handed_on(run: Run, become: Become) -> None:
    result = run("--pool", "alone", "--replica", "alone-0", "--host", "127.0.0.1")
    assert result.exit_code == 0, result.output
    assert become.command[7:9] == ["--host", "127.0.0.1"]
    assert become.command[-4:] == ["--arg", "pool=alone", "--arg", "replica=alone-0"]
    assert "alpha" not in result.stdout, "tenants of other pools"


def test_a_relative_path_is_one_of_the_folder_it_was_said_in(run: Run, become: Become, fleet: Path) -> None:
    assert run(path=Path(os.path.relpath(fleet))).exit_code == 0
    assert f"fleet={fleet}" in become.command


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_taken_port_is_one_sentence_before_the_tables(
    run: Run, become: Become, taken: int, host: str
) -> None:
    result = run("--port", str(taken), "--host", host)
    assert result.exit_code == 1
    assert result.stdout == ""
    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith(f"port {taken} is taken by another program; choose another with --port ")
    assert serving.why_not(host, int(sentence.split()[-1])) is None, "the one it names is free"
    assert become.command == []


def test_a_port_is_free_again_as_soon_as_nobody_listens(taken: int) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        accepted.close()  # leaves a connection in TIME_WAIT
        client.close()
    assert serving.why_not("127.0.0.1", port) is None


@pytest.mark.parametrize(
    ("host", "said"), [("192.0.2.1", "192.0.2.1"), ("no-such-host.invalid", "no-such-host.invalid")]
)
def test_a_host_that_is_not_of_this_machine_is_named(run: Run, become: Become, host: str, said: str) -> None:
    result = run("--host", host)
    assert result.exit_code == 1
    assert said in result.stderr and "taken" not in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert become.command == []


def test_a_port_that_only_root_may_have_is_named_with_the_reason(
    run: Run, become: Become, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bind(self: socket.socket, address: Any) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(socket.socket, "bind", bind)
    result = run("--port", "80")
    assert (result.exit_code, become.command) == (1, [])
    assert "port 80" in result.stderr and "Permission denied" in result.stderr


def test_problems_of_the_fleet_come_before_anything_else(run: Run, become: Become, fleet: Path) -> None:
    write(fleet.parent, changed("adapters/a-support/base_model", "bas"))
    result = run()
    assert (result.exit_code, become.command, result.stdout) == (1, [], "")
    assert "no base model is called `bas`" in result.stderr


def test_folders_that_are_not_there_are_found_before_engines_are(
    run: Run, become: Become, fleet: Path
) -> None:
    (fleet.parent / "a" / "adapter_config.json").unlink()
    result = run()
    assert (result.exit_code, become.command) == (1, [])
    assert "a-support" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "hint"), [(("--pool", "alon"), "`alone`"), (("--replica", "alone-7"), "`alone-0`")]
)
def test_a_pool_or_replica_that_is_not_there_is_named(
    run: Run, become: Become, arguments: tuple[str, str], hint: str
) -> None:
    result = run(*arguments)
    assert (result.exit_code, become.command) == (1, [])
    assert arguments[1] in result.stderr and f"did you mean {hint}?" in result.stderr


@pytest.mark.parametrize(
    ("env", "missing"),
    [
        ({}, "bentoml and vllm"),
        ({"TENANTRY_ENGINE_URLS": "shared-0=http://host:1"}, "bentoml"),
        ({"TENANTRY_ENGINE_FILE": "engines.yaml"}, "bentoml"),
    ],
)
def test_what_is_not_installed_is_one_sentence(
    run: Run, become: Become, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], missing: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = run(**env)
    assert (result.exit_code, become.command, result.stdout) == (1, [], "")
    assert result.stderr.startswith(f"{missing} not installed") and "make setup" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_command_alone_says_that_it_cannot_serve(
    run: Run, become: Become, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "ROOT", tmp_path)
    result = run()
    assert (result.exit_code, become.command) == (1, [])
    assert "checkout" in result.stderr


def test_a_port_taken_elsewhere_does_not_hinder_the_demo_which_is_local(
    fleet: Path, run: Run, become: Become, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(serving, "why_not", lambda host, port: asked.append(host))
    run()
    data = declared()
    data["tenants"]["alpha"]["api_keys"] = [{"sha256": digest("acme-demo-key")}]
    write(fleet.parent, data)
    run()
    run(TENANTRY_DEMO="1")
    run("--host", "10.0.0.7")
    assert asked == ["0.0.0.0", "127.0.0.1", "0.0.0.0", "10.0.0.7"]
    assert "--host" in become.command

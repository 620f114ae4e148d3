"""Other public gateways: what starts them, and what happens where they do not install."""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path
from typing import Any

import pytest

from benchmarks import peers
from benchmarks.peers import PEERS, Ports, check_names, install
from benchmarks.tools import ToolError

PORTS = Ports(own=1001, metrics=1002, upstream=1003)


class FakeInstaller:
    """Stands in for venv and pip; counts what it is asked for."""

    def __init__(self, code: int = 0, stderr: str = "") -> None:
        self.code, self.stderr = code, stderr
        self.asked: list[str] = []

    def create(self, home: Path, **_: Any) -> None:
        home.mkdir(exist_ok=True)

    def run(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.asked.append(command[-1])
        return subprocess.CompletedProcess(command, self.code, "", self.stderr)

    def put_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(venv, "create", self.create)
        monkeypatch.setattr(subprocess, "run", self.run)


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_listens_here_and_forwards_to_the_mock(name: str, tmp_path: Path) -> None:
    words = PEERS[name].command(Path("/bin"), tmp_path, PORTS)
    config = "".join(path.read_text() for path in tmp_path.iterdir())
    assert words[words.index("--port") + 1] == "1001"
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert "http://127.0.0.1:1003" in " ".join(words) + config


def test_every_peer_is_pinned_to_a_version() -> None:
    assert all("==" in peer.requirement for peer in PEERS.values())


def test_an_unknown_peer_is_refused_with_the_known_ones() -> None:
    check_names(["litellm"])
    with pytest.raises(ToolError, match=r"choose from litellm"):
        check_names(["litellm", "nginx"])


def test_a_peer_is_installed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installer = FakeInstaller()
    installer.put_in(monkeypatch)
    assert install("litellm", tmp_path) == install("litellm", tmp_path) == tmp_path / "litellm" / "bin"
    assert installer.asked == [PEERS["litellm"].requirement]


def test_another_version_is_installed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installer = FakeInstaller()
    installer.put_in(monkeypatch)
    install("litellm", tmp_path)
    monkeypatch.setitem(peers.PEERS, "litellm", PEERS["vllm-router"])
    install("litellm", tmp_path)
    assert len(installer.asked) == 2


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("x\nERROR: No matching distribution\n", "No matching"),
        ("", "no reason"),
        ("killed", "killed"),
    ],
)
def test_a_peer_that_does_not_install_says_why_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stderr: str, reason: str
) -> None:
    installer = FakeInstaller(1, stderr)
    installer.put_in(monkeypatch)
    for _ in range(2):
        with pytest.raises(ToolError, match=reason):
            install("sglang-router", tmp_path)
    assert len(installer.asked) == 2

"""A network of its own for a process, joined to this one by one cable: another machine, for the kernel."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

HERE, THERE = "10.213.7.1", "10.213.7.2"


@dataclass(frozen=True, slots=True)
class Network:
    """A namespace of networks; nothing of it leads further than to this machine."""

    name: str
    here: str = HERE  # this machine's address, as seen from there
    there: str = THERE

    @property
    def inside(self) -> tuple[str, ...]:
        """What stands before a command that is to run there."""
        return ("ip", "netns", "exec", self.name)


def why_none() -> str:
    """Say why no namespace can be made, or ""."""
    if shutil.which("ip") is None:
        return "there is no `ip` (iproute2)"
    name = f"probe{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"this user may make none: {made.stderr.strip()}"
    _ip("netns", "del", name)
    return ""


@contextlib.contextmanager
def another_network() -> Iterator[Network]:
    """Make a network and a cable to it; nothing of them is left after the block."""
    number = os.getpid()
    network, near, far = Network(f"tenantry{number}"), f"tn{number}a", f"tn{number}b"
    _ip("netns", "add", network.name)
    try:
        _ip("link", "add", near, "type", "veth", "peer", "name", far)
        _ip("link", "set", far, "netns", network.name)
        _ip("addr", "add", f"{HERE}/24", "dev", near)
        _ip("link", "set", near, "up")
        _ip("-n", network.name, "addr", "add", f"{THERE}/24", "dev", far)
        _ip("-n", network.name, "link", "set", far, "up")
        _ip("-n", network.name, "link", "set", "lo", "up")
        yield network
    finally:
        _ip("netns", "del", network.name)  # and with it the cable
        subprocess.run(["ip", "link", "del", near], capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)

"""Run as a script: do a store's work in forked children, each killed at another step; print their number.

    python -m tests.unit.adapters.crashing publish|fetch|remove FOLDER SOURCE

Child N works in FOLDER/N and is killed at its Nth call that changes the file system, or at the Nth report of
progress. The last child gets through. What is left is for the test to judge.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path
from typing import Any

from adapters.checkpoint import inspect_adapter
from adapters.sources import fetch, web  # noqa: F401 -- imported here, or every child would have to
from adapters.store import VersionStore

CHANGING = ("mkdir", "open", "chmod", "fsync", "utime", "rename", "replace", "unlink", "rmdir", "close")
MAX_BYTES = 2**26
MAX_STEPS = 500


class Death:
    """Kills this process at the Nth step, before the step is done."""

    def __init__(self, at: int) -> None:
        self._left = at

    def step(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.step()
            return real(*args, **kwargs)

        setattr(owner, name, wrapped)


def work(kind: str, folder: Path, source: str, death: Death) -> None:
    """Bring an adapter into the store, or out of it; `publish` begins where its files have come."""
    with VersionStore(folder) as store:
        if kind == "remove":
            store.remove(store.usage()[0].digest)
            return
        staged = store.stage("key")
        if kind == "fetch" or not any(staged.iterdir()):
            fetch(
                source,
                staged,
                max_bytes=MAX_BYTES,
                progress=lambda *_: death.step(),
                should_stop=lambda: False,
            )
        store.publish("key", inspect_adapter(staged).digest)


def prepare(kind: str, folder: Path, source: str) -> None:
    if kind == "fetch":
        return
    with VersionStore(folder) as store:
        staged = store.stage("key")
        fetch(source, staged, max_bytes=MAX_BYTES, progress=lambda *_: None, should_stop=lambda: False)
        if kind == "remove":
            store.publish("key", inspect_adapter(staged).digest)


def main(kind: str, top: Path, source: str) -> int:
    """Returns how many children there were."""
    for number in range(1, MAX_STEPS):
        prepare(kind, top / str(number), source)
        child = os.fork()
        if child == 0:
            death = Death(number)
            for name in CHANGING:
                death.wrap(os, name)
            death.wrap(io, "open")
            work(kind, top / str(number), source, death)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            return number if os.WEXITSTATUS(status) == 0 else -1
    return -1


if __name__ == "__main__":
    print(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))  # noqa: T201

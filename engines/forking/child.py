"""What an engine's core does first when it was forked: it becomes a process of its own replica."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from typing import Any

from engines import logs
from engines.forking.dying import die_with_parent
from engines.forking.environ import Slot
from engines.orphans import REPLICA_MARK

Target = Callable[..., Any]
_slot: Slot | None = None  # of the replica's mark; in a fork server, and in what was forked from it


def find_mark() -> None:
    """Find where this process's mark lies, in the fork server. Raises `ValueError`."""
    global _slot
    _slot = Slot.find(REPLICA_MARK)
    _slot.write(os.environ[REPLICA_MARK].rstrip())


class Forked:
    """Stands for the function that a forked process runs; becomes it in that process.

    Pickled before the function's arguments, so that these find the environment there.
    """

    def __init__(self, run: Target, environment: Mapping[str, str], server: int) -> None:
        """`environment` is the one that the process is to have; `server` the pid that forks it."""
        self._run = run
        self._environment = dict(environment)
        self._server = server

    def __reduce__(self) -> tuple[Callable[..., Target], tuple[Any, ...]]:
        return become, (self._run, self._environment, self._server)

    def __call__(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("this runs in a process that a fork server has forked")


def become(run: Target, environment: Mapping[str, str], server: int) -> Target:
    """Take over an environment and its mark, and end with the server from now on; return `run`."""
    die_with_parent()
    if os.getppid() != server:  # it ended just now
        os._exit(1)
    if _slot is None:
        raise RuntimeError("this process was not forked from a fork server of ours")
    _slot.write(environment[REPLICA_MARK])
    os.environ.clear()
    os.environ.update(environment)
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"  # its workers find the modules there, too
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # which the server ignores
    logs.set_up()
    return run

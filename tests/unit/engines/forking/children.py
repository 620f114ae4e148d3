"""What the forked processes of these tests run, and a host that forks one; without vLLM."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def report(path: str, of_server: object = None) -> None:
    """Say how this process stands, and stay. `of_server` is what it was forked with."""
    Path(f"{path}.new").write_text(
        json.dumps({"pid": os.getpid(), "parent": os.getppid(), "environment": dict(os.environ)})
    )
    Path(f"{path}.new").replace(path)
    time.sleep(60)


def with_worker(path: str) -> None:
    """Fork a worker, which reports, as an engine's core does."""
    if os.fork() == 0:
        report(path)
    time.sleep(60)


def host(path: str) -> None:
    """Be a host with one forked process, and wait to be killed."""
    from engines import orphans
    from engines.forking.server import ForkServer

    server = ForkServer("mesh-0", ["json"])
    server.launch()
    context = server.context()
    os.environ.update(orphans.mark("mesh-0.even"))
    context.Process(target=server.target(report), args=(path,)).start()
    sys.stdin.read()


if __name__ == "__main__":
    host(sys.argv[1])

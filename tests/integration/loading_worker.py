"""An engine's worker under the server that BentoML uses. Its vLLM is a stand-in that never comes up.

`python -m tests.integration.loading_worker importing|starting`
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette

from engines import logs, vllm_engine
from engines.supervisor import Supervisor
from fleet.types import BaseModel

WITHHELD = ("ACME_KEY", "DATABASE_URL")
REPLICA = "shared-0"


def core() -> None:
    """Ignore every polite signal, as EngineCore does while it is made, and start a worker."""
    _ignore_signals()
    worker = multiprocessing.get_context("spawn").Process(target=work, name="Worker")
    worker.start()
    worker.join()


def work() -> None:
    """Ignore every polite signal."""
    _ignore_signals()
    _say_so()
    time.sleep(600)


def import_for_ever(argv: list[str], forks: None) -> Any:
    """Take every exception for a missing library, as imports do."""
    _say_so()
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0.01)


def start_for_ever(argv: list[str], forks: None) -> Any:
    """Wait for processes that do not come up."""
    engine = multiprocessing.get_context("spawn").Process(target=core, name="EngineCore")
    engine.start()
    engine.join()
    raise RuntimeError("Engine core initialization failed.")


def _say_so() -> None:
    sys.stdout.write("working\n")
    sys.stdout.flush()


def _ignore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def main(moment: str) -> None:
    """Serve until a signal comes."""
    logs.set_up(REPLICA)
    # By the name under which the children can import it, which is not that of a main module.
    from tests.integration import loading_worker as stand_in

    builds = {"importing": stand_in.import_for_ever, "starting": stand_in.start_for_ever}
    vars(vllm_engine)["build_engine"] = builds[moment]
    supervisor = Supervisor(
        REPLICA, BaseModel("base", "/models/base"), shutdown_grace_s=30.0, withheld=WITHHELD
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        supervisor.start()
        yield
        await supervisor.stop()

    uvicorn.run(Starlette(lifespan=lifespan), port=0, log_config=None)


if __name__ == "__main__":
    main(sys.argv[1])

"""A worker is told to end while its engine loads. vLLM is a stand-in; the processes are real."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from engines.engine_process import WITHHELD
from engines.orphans import WORKER_MARK
from tests.integration import loading_worker
from tests.processes import left_of

WORKS_WITHIN_S = 60.0  # on a loaded machine
ENDS_WITHIN_S = 10.0


def _of_worker(pid: int) -> list[psutil.Process]:
    """Every process that was started for the worker's engine."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(WORKER_MARK, "").startswith(f"{pid}:"):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("moment", "processes"), [("importing", 0), ("starting", 3)])
def test_a_worker_that_loads_ends_at_once_without_a_traceback_and_leaves_no_process(
    moment: str, processes: int, number: signal.Signals, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.integration.loading_worker", moment]
    secrets = dict.fromkeys((*WITHHELD, *loading_worker.WITHHELD), "made up")
    log = tmp_path / "log"
    with log.open("wb") as standard_error:
        worker = subprocess.Popen(
            command, stdout=-1, stderr=standard_error, env=os.environ | secrets | {"TENANTRY_LOG": "json"}
        )
    assert worker.stdout is not None
    try:
        assert select.select([worker.stdout], [], [], WORKS_WITHIN_S)[0], log.read_text()
        assert worker.stdout.readline() == b"working\n", log.read_text()
        engine = _of_worker(worker.pid)
        assert len(engine) == processes, "EngineCore, Worker, and Python's own that removes shared memory"
        assert not any(secrets.keys() & process.environ().keys() for process in engine)
        began_s = time.monotonic()
        worker.send_signal(number)
        worker.wait(ENDS_WITHIN_S)
        assert not left_of(engine, within_s=began_s + ENDS_WITHIN_S - time.monotonic())
        assert not _of_worker(worker.pid)
    finally:
        worker.kill()
        for process in _of_worker(worker.pid):  # they hold the worker's output open
            process.kill()
        worker.communicate()
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert [line["message"] for line in lines if line["logger"] == "tenantry.engine"] == [
        "shared-0: loading base"
    ]
    if number is signal.SIGTERM:  # Python itself tells of SIGINT when the server has ended on it
        assert "Traceback" not in log.read_text() and len(lines) == len(log.read_text().splitlines())

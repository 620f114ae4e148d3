"""Twelve clients ask four whole models on one host at random, real engines: no answer is another model's.

TENANTRY_MESH_S sets for how long (60 s each), TENANTRY_MESH_CLIENTS how many clients ask at once,
TENANTRY_MESH_TALK how many questions a client asks before it chooses another model.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.mesh_traffic import MeshTraffic, judged, meshed

pytestmark = pytest.mark.engine
log = logging.getLogger("tests.turning")
logging.getLogger("httpx").setLevel(logging.WARNING)
logging.getLogger("httpx2").setLevel(logging.WARNING)

FOR_S = float(os.environ.get("TENANTRY_MESH_S", "60"))
CLIENTS = int(os.environ.get("TENANTRY_MESH_CLIENTS", "12"))
TALK = int(os.environ.get("TENANTRY_MESH_TALK", "8"))
KILLS = 5


@pytest.mark.parametrize("adapters", [False, True], ids=["whole", "with adapters"])
def test_no_answer_is_another_models_and_nobody_is_refused(adapters: bool, tmp_path: Path) -> None:
    with meshed(tmp_path, adapters=adapters) as (service, models):
        traffic = MeshTraffic(service, models, TALK)
        traffic.run(CLIENTS, FOR_S)
        judged(service, traffic)
        assert service.metric("tenantry_model_switches_total", outcome="failed") == 0


def test_the_same_while_cores_are_killed(tmp_path: Path) -> None:
    with meshed(tmp_path) as (service, models):
        traffic, stop = MeshTraffic(service, models, TALK), threading.Event()
        killed: list[float] = []

        def kill() -> None:
            while len(killed) < KILLS and not stop.wait(FOR_S / (KILLS + 1)):
                for core in service.engine_cores():
                    with contextlib.suppress(psutil.Error):
                        core.kill()
                        killed.append(time.monotonic())

        killer = threading.Thread(target=kill)
        killer.start()
        traffic.run(CLIENTS, FOR_S)
        stop.set()
        killer.join()
        assert len(killed) >= 1
        log.info("%d cores were killed; %d requests were cut off", len(killed), len(traffic.failed))
        # What an engine had begun to answer ends with it; all else is answered by the next one.
        said = ("The engine failed while it was answering.", "The engine failed on this request.")
        cut_off = [failure for failure in traffic.failed if any(words in failure for words in said)]
        assert traffic.failed == cut_off
        traffic.failed.clear()
        judged(service, traffic)

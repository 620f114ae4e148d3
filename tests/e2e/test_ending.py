"""The service is stopped while its engines load: it ends at once, and nothing of it is left."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.serving import Service, serving, wait_until
from tests.processes import left_of

pytestmark = pytest.mark.engine

ENDS_WITHIN_S = 10.0
LOADS_WITHIN_S = 180.0  # on a loaded machine of two cores


def _of(folder: Path) -> list[psutil.Process]:
    """Every process of the service whose state is in the folder, orphans included."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TENANTRY_STATE") == str(folder / "state"):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _imports(service: Service) -> bool:
    return '"shared-0: loading ' in service.log.read_text()


def _starts_engines(service: Service) -> bool:
    return bool(service.engine_cores())


def _loads_weights(service: Service) -> bool:
    return "Starting to load model" in service.log.read_text()


def _stop(service: Service, number: signal.Signals) -> None:
    if number is signal.SIGINT:  # as a terminal sends it: to all of the group
        os.killpg(service.process.pid, number)
    else:
        service.process.send_signal(number)


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        (_imports, signal.SIGINT),
        (_starts_engines, signal.SIGTERM),
        (_loads_weights, signal.SIGINT),
    ],
    ids=["importing", "starting", "loading weights"],
)
def test_a_service_that_is_stopped_while_it_loads_is_gone_within_ten_seconds(
    moment: object, number: signal.Signals, tmp_path: Path
) -> None:
    assert callable(moment)
    with serving("service:Gateway", tmp_path, ready=False, env={"TENANTRY_LOG": "json"}) as service:
        wait_until(lambda: moment(service), f"the moment of {moment}", within_s=LOADS_WITHIN_S)
        family, began_s = _of(tmp_path), time.monotonic()
        _stop(service, number)
        assert service.process.wait(ENDS_WITHIN_S) == 0
        assert not left_of(family, within_s=began_s + ENDS_WITHIN_S - time.monotonic())
        assert not _of(tmp_path)
        assert "Traceback" not in service.log.read_text()

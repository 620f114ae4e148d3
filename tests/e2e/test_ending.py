"""The service is stopped in whatever state: it ends within its grace period and ten seconds, whole."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
import yaml

from tests.e2e.conftest import demo_fleet
from tests.e2e.serving import NOWHERE, Service, key_of, serving, wait_until
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


def _with_grace(folder: Path, grace_s: float) -> Path:
    """The demo fleet whose requests have so long to end."""
    path = demo_fleet(folder, {})
    data: dict[str, Any] = yaml.safe_load(path.read_text())
    data["gateway"]["shutdown_grace_s"] = grace_s
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def test_streams_that_outlast_the_grace_are_told_and_the_service_is_gone_ten_seconds_later(
    tmp_path: Path,
) -> None:
    grace_s, streams = 1.0, 24
    path = _with_grace(tmp_path, grace_s)
    with serving("service:Gateway", tmp_path, "--arg", f"fleet={path}", "--arg", "pool=shared") as service:
        begun, ends = threading.Barrier(streams + 1), []

        def read() -> None:
            stream = service.client("acme", max_retries=0).chat.completions.create(
                model="support",
                messages=[{"role": "user", "content": "Where is my order?"}],
                max_tokens=450,
                stream=True,
                extra_body={"ignore_eos": True},
            )
            try:
                next(stream)
                begun.wait(120)
                for _ in stream:
                    pass
                ends.append("whole")
            except openai.APIError as error:
                ends.append(error.code or type(error).__name__)

        readers = [threading.Thread(target=read) for _ in range(streams)]
        for reader in readers:
            reader.start()
        begun.wait(120)
        family, began_s = service.processes(), time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        for reader in readers:
            reader.join(grace_s + ENDS_WITHIN_S)
        assert service.process.wait(grace_s + ENDS_WITHIN_S) == 0
        # Those that began first may have their last token in time.
        assert "shutting_down" in ends and {*ends} <= {"shutting_down", "whole"}, ends
        assert not left_of(family, within_s=1)
        assert time.monotonic() - began_s < grace_s + ENDS_WITHIN_S


def _ends(service: Service, grace_s: float) -> None:
    """Stop it as an orchestrator does, and see that nothing of it is left in time."""
    family, began_s = service.processes(), time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    service.process.wait(grace_s + ENDS_WITHIN_S)
    assert not left_of(family, within_s=began_s + grace_s + ENDS_WITHIN_S - time.monotonic())


def test_an_engine_that_hangs_delays_nothing_beyond_that(tmp_path: Path) -> None:
    path = _with_grace(tmp_path, 1.0)
    with serving("service:Gateway", tmp_path, "--arg", f"fleet={path}", "--arg", "pool=shared") as service:
        for core in service.engine_cores():
            core.suspend()
        _ends(service, 1.0)


def test_a_client_in_mid_upload_delays_nothing_beyond_that(tmp_path: Path) -> None:
    path = _with_grace(tmp_path, 1.0)
    arguments = ("--arg", f"fleet={path}")
    with serving("service:Gateway", tmp_path, *arguments, ready=False, env=NOWHERE) as service:
        wait_until(lambda: _is_alive(service), "the gateway", within_s=LOADS_WITHIN_S)
        with socket.create_connection(("127.0.0.1", service.port)) as client:
            head = f"authorization: Bearer {key_of('acme')}\r\ncontent-length: 100000\r\n"
            client.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{head}\r\n{{".encode())
            _ends(service, 1.0)
            assert b"shutting_down" in client.recv(1000)
        assert "by force" not in service.log.read_text()


def _is_alive(service: Service) -> bool:
    try:
        return service.is_alive()
    except httpx.TransportError:
        return False

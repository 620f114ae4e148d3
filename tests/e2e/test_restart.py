"""The demo fleet's engine is restarted by an operator while it streams and while requests come."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import demo_fleet
from tests.e2e.serving import ROOT, Service, answers, key_of, serving, wait_until

pytestmark = pytest.mark.engine
QUESTION = "Where is my order?"
PATIENT = "caps: {max_concurrency: 256, queue_timeout_s: 300}"  # longer than an engine takes to start


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """The demo fleet; requests wait long enough for an engine to start."""
    fleet = demo_fleet(tmp_path, {"caps: {max_concurrency: 256}": PATIENT})
    with serving("service:Gateway", tmp_path, "--arg", f"fleet={fleet}") as service:
        yield service


def ask(service: Service, model: str, **options: Any) -> Any:
    """Ask one question of acme's models, greedily and once."""
    messages: Any = [{"role": "user", "content": QUESTION}]
    client = service.client("acme", max_retries=0)
    options = {"max_tokens": 64, **options}
    return client.chat.completions.create(model=model, messages=messages, temperature=0, **options)


def test_an_engine_restarts_while_a_stream_ends_and_requests_wait(service: Service) -> None:
    expected = answers()["acme-support"][QUESTION]
    assert ask(service, "support").choices[0].message.content == expected
    before, other = service.engine_core("shared-0"), service.engine_core("umbrella-0")
    ends: list[str] = []
    contents: list[str] = []
    begun = threading.Event()

    def stream() -> None:
        events = ask(service, "base", stream=True, max_tokens=400, extra_body={"ignore_eos": True})
        for event in events:
            begun.set()
            ends.extend(choice.finish_reason for choice in event.choices if choice.finish_reason)

    def ask_meanwhile() -> None:
        contents.append(ask(service, "support").choices[0].message.content)

    streaming = threading.Thread(target=stream)
    streaming.start()
    assert begun.wait(60)
    command = subprocess.Popen(
        [sys.executable, "-m", "tenantry", "restart", "shared", "--url", service.url],
        cwd=ROOT,
        env={**os.environ, "TENANTRY_ADMIN_KEY": key_of("operator")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    askers: list[threading.Thread] = []
    while command.poll() is None:
        if len(askers) < 20:
            askers.append(threading.Thread(target=ask_meanwhile))
            askers[-1].start()
        assert service.is_ready(), "so that requests come, and wait"
        streaming.join(1)
    for thread in (streaming, *askers):
        thread.join(120)
    out, error = command.communicate()
    assert command.returncode == 0, error
    assert out.splitlines()[-3:] == [
        "shared-0: restarting",
        "shared-0: ready again",
        "Pool shared is restarted.",
    ]
    assert ends == ["length"], "the stream was not cut"
    assert askers and contents == [expected] * len(askers)
    after = service.engine_core("shared-0")
    assert before is not None and after is not None and after.pid != before.pid
    assert other is not None and other.is_running(), "the other pool's engine was left alone"
    assert not before.is_running()
    assert service.metric("tenantry_replica_breaker_state", state="closed") == 2
    log = service.log.read_text(errors="replace")
    assert "Traceback" not in log and "the engine died" not in log
    wait_until(service.at_rest, "every counter at zero", within_s=5)

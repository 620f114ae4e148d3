"""The demo fleet's engines are restarted, stopped and started by an operator while requests come."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import demo_fleet
from tests.e2e.serving import ONE_THREAD, ROOT, Service, answers, key_of, serving, wait_until
from tests.processes import left_of, runs

pytestmark = pytest.mark.engine
QUESTION = "Where is my order?"
PATIENT = "caps: {max_concurrency: 256, queue_timeout_s: 300}"  # longer than an engine takes to start


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """The demo fleet; requests wait long enough for an engine to start."""
    fleet = demo_fleet(tmp_path, {"caps: {max_concurrency: 256}": PATIENT})
    with serving("service:Gateway", tmp_path, "--arg", f"fleet={fleet}") as service:
        yield service


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Service]:
    """The shared pool of the demo fleet alone, with two replicas."""
    text = demo_fleet(tmp_path, {"tenants: [acme, globex, initech]": "tenants: [acme]"}).read_text()
    fleet: dict[str, Any] = yaml.safe_load(text)
    fleet["tenants"] = {"acme": fleet["tenants"]["acme"]}
    fleet["adapters"] = {name: fleet["adapters"][name] for name in ("acme-support", "acme-sales")}
    fleet["pools"] = {"shared": fleet["pools"]["shared"] | {"replicas": 2}}
    path = tmp_path / "fleet.yaml"
    path.write_text(yaml.safe_dump(fleet))
    of_fleet = ("--arg", f"fleet={path}")
    with serving("service:Gateway", tmp_path, *of_fleet, env=ONE_THREAD) as service:
        wait_until(lambda: ready_replicas(service) == 2, "both replicas", within_s=120)
        yield service


def ready_replicas(service: Service) -> float:
    """Replicas that take part and are ready."""
    return service.metric("tenantry_replica_ready")


def with_replicas(folder: Path, replicas: int) -> str:
    """Another fleet file, with this number of replicas."""
    text = (folder / "fleet.yaml").read_text()
    assert "replicas: 2" in text
    path = folder / "other.yaml"
    path.write_text(text.replace("replicas: 2", f"replicas: {replicas}"))
    return str(path)


def tenantry(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as an operator does."""
    return subprocess.run(
        [sys.executable, "-m", "tenantry", *arguments, "--url", service.url],
        cwd=ROOT,
        env={**os.environ, "TENANTRY_ADMIN_KEY": key_of("operator")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def ask(service: Service, model: str, **options: Any) -> Any:
    """Ask one question of acme's models, greedily and once."""
    messages: Any = [{"role": "user", "content": QUESTION}]
    client = service.client("acme", max_retries=0).with_options(timeout=400)  # it may wait for a start
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
        thread.join(400)
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
    assert other is not None and runs(other), "the other pool's engine was left alone"
    assert left_of([before], within_s=10.0) == []
    assert service.metric("tenantry_replica_breaker_state", state="closed") == 2
    log = service.log.read_text(errors="replace")
    assert "Traceback" not in log and "the engine died" not in log
    wait_until(service.at_rest, "every counter at zero", within_s=5)


def test_an_engine_is_stopped_and_started_again_as_its_replica_leaves_and_joins(
    pair: Service, tmp_path: Path
) -> None:
    expected = answers()["acme-support"][QUESTION]
    before = pair.engine_core("shared-1")
    assert before is not None
    shown = tenantry(pair, "diff", with_replicas(tmp_path, 1))
    assert "replica shared-1 leaves" in shown.stdout and "needs no restart" in shown.stdout
    assert tenantry(pair, "apply", with_replicas(tmp_path, 1)).returncode == 0
    wait_until(lambda: pair.engine_core("shared-1") is None, "its memory is free", within_s=60)
    assert left_of([before], within_s=10.0) == []
    assert pair.is_ready()
    assert ask(pair, "support").choices[0].message.content == expected
    refused = tenantry(pair, "apply", with_replicas(tmp_path, 3))
    assert refused.returncode == 1 and "TENANTRY_ENGINE_FILE" in refused.stdout + refused.stderr
    assert tenantry(pair, "apply", with_replicas(tmp_path, 2)).returncode == 0
    wait_until(lambda: pair.engine_core("shared-1") is not None, "an engine again", within_s=120)
    assert ask(pair, "support").choices[0].message.content == expected
    wait_until(lambda: ready_replicas(pair) == 2, "both replicas again", within_s=180)
    assert ask(pair, "sales").choices[0].message.content == answers()["acme-sales"][QUESTION]
    log = pair.log.read_text(errors="replace")
    assert "Traceback" not in log and "the engine died" not in log
    wait_until(pair.at_rest, "every counter at zero", within_s=5)

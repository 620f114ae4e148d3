"""The fleet file is applied on SIGHUP to BentoML's parent, and when it is watched; nothing restarts."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import demo_fleet
from tests.e2e.serving import NOWHERE, Service, answers, key_of, serving, wait_until

pytestmark = pytest.mark.engine
QUESTION = "Where is my order?"


def written(path: Path, change: Any) -> None:
    """Change the fleet file as an editor does: another file takes its place."""
    data: dict[str, Any] = yaml.safe_load(path.read_text())
    change(data)
    fresh = path.with_suffix(".new")
    fresh.write_text(yaml.safe_dump(data, sort_keys=False))
    fresh.rename(path)


def cap(rate: int) -> Any:
    """Give acme a rate."""
    return lambda data: data["tenants"]["acme"].setdefault("caps", {}).update(requests_per_minute=rate)


def shown(service: Service) -> dict[str, Any]:
    """The fleet that counts, as an operator sees it."""
    answer = service.get("/admin/v1/fleet", headers={"authorization": f"Bearer {key_of('operator')}"})
    return dict(answer.json())


def family(service: Service) -> dict[int, str]:
    """Every process of the service by its number: a restarted one has another."""
    return {process.pid: process.name() for process in service.processes()}


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[tuple[Service, Path]]:
    """The shared pool of the demo fleet, with real engines, and its file."""
    path = demo_fleet(tmp_path, {})
    with serving("service:Gateway", tmp_path, "--arg", f"fleet={path}", "--arg", "pool=shared") as service:
        yield service, path


def test_sighup_to_the_parent_applies_the_file_while_a_stream_runs_and_restarts_nothing(
    alone: tuple[Service, Path],
) -> None:
    service, path = alone
    before = family(service)
    ends: list[str] = []
    acme: Any = service.client("acme", max_retries=0)
    ask: dict[str, Any] = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    begun = threading.Event()

    def stream() -> None:
        options = ask | {"max_tokens": 400, "extra_body": {"ignore_eos": True}}
        for event in acme.chat.completions.create(model="base", stream=True, **options):
            begun.set()
            ends.extend(choice.finish_reason for choice in event.choices if choice.finish_reason)

    streaming = threading.Thread(target=stream)
    streaming.start()
    assert begun.wait(60)
    written(path, lambda data: (cap(1000)(data), data["tenants"]["globex"].update(api_keys=[])))
    os.kill(service.process.pid, signal.SIGHUP)
    wait_until(lambda: shown(service)["revision"] == 1, "the file in force", within_s=10)
    assert shown(service)["actor"] == "fleet file"
    key = {"authorization": f"Bearer {key_of('globex')}"}
    assert service.get("/v1/models", headers=key).status_code == 401, "its key was taken out"
    answer = acme.chat.completions.create(model="support", max_tokens=64, **ask)
    assert answer.choices[0].message.content == answers()["acme-support"][QUESTION]
    streaming.join(120)
    assert ends == ["length"], "the stream was not cut"

    written(path, lambda data: data["tenants"]["acme"].update(weight="much"))
    os.kill(service.process.pid, signal.SIGHUP)
    refused = "the fleet file was not applied"
    wait_until(lambda: refused in service.log.read_text(errors="replace"), "the refusal", within_s=10)
    assert "tenants.acme.weight" in service.log.read_text(errors="replace")
    assert shown(service)["revision"] == 1
    assert family(service) == before, "no process was restarted"
    assert "Traceback" not in service.log.read_text(errors="replace")
    wait_until(service.at_rest, "every counter at zero", within_s=5)


@pytest.mark.parametrize("watched", [False, True], ids=["on SIGHUP", "watched"])
def test_a_changed_file_is_applied_or_refused_with_its_reason(tmp_path: Path, watched: bool) -> None:
    path = demo_fleet(tmp_path, {})
    env = {**NOWHERE, "TENANTRY_WATCH": "1" if watched else "0"}  # as `tenantry serve --watch` sets it
    with serving("service:Gateway", tmp_path, "--arg", f"fleet={path}", env=env, ready=False) as service:
        wait_until(service.is_alive, "life", within_s=120)
        wait_until(lambda: "revision" in shown(service), "the admin API", within_s=20)
        before = family(service)

        def change(how: Any) -> None:
            written(path, how)
            if not watched:
                os.kill(service.process.pid, signal.SIGHUP)

        change(cap(1001))
        wait_until(lambda: shown(service)["revision"] == 1, "the file in force", within_s=10)
        change(cap(1002))
        wait_until(lambda: shown(service)["revision"] == 2, "the next one", within_s=10)
        change(lambda data: data["gateway"].update(shutdown_grace_s=7))
        needs = "gateway: shutdown_grace_s 30 -> 7: this needs a restart of the service"
        wait_until(lambda: needs in service.log.read_text(errors="replace"), "the refusal", within_s=10)
        assert shown(service)["revision"] == 2
        assert family(service) == before, "no process was restarted"

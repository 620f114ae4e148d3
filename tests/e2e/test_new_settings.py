"""A real engine gets other settings while requests come, and its old ones where it does not start."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from tests.e2e.conftest import demo_fleet
from tests.e2e.operators import Operator
from tests.e2e.serving import ONE_THREAD, ROOT, Service, answers, key_of, serving, wait_until
from tests.processes import runs

pytestmark = pytest.mark.engine
QUESTION = "Where is my order?"
ASKED = (("acme", "support"), ("acme", "sales"), ("globex", "support"))  # three adapters
PATIENT_S = 300  # longer than an engine takes to start


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Two tenants of the demo fleet on one engine with four slots."""
    fleet: dict[str, Any] = yaml.safe_load(demo_fleet(tmp_path, {}).read_text())
    names = ("acme-support", "acme-sales", "globex-support")
    fleet["adapters"] = {name: fleet["adapters"][name] for name in names}
    fleet["tenants"] = {name: fleet["tenants"][name] for name in ("acme", "globex")}
    for tenant in fleet["tenants"].values():
        tenant["caps"]["queue_timeout_s"] = PATIENT_S
    fleet["pools"] = {"shared": fleet["pools"]["shared"] | {"tenants": ["acme", "globex"]}}
    path = tmp_path / "fleet.yaml"
    path.write_text(yaml.safe_dump(fleet))
    with serving("service:Gateway", tmp_path, "--arg", f"fleet={path}", env=ONE_THREAD) as service:
        yield service


def with_settings(folder: Path, **settings: Any) -> str:
    """Another fleet file, whose engines have other settings."""
    fleet = yaml.safe_load((folder / "fleet.yaml").read_text())
    fleet["base_models"]["tiny-llama"].update(settings)
    path = folder / "other.yaml"
    path.write_text(yaml.safe_dump(fleet))
    return str(path)


class Traffic:
    """Some clients that ask one question after the other; none tries anything twice."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._over = threading.Event()
        self.answers: list[tuple[str, str, str]] = []
        self.errors: list[Exception] = []
        self._threads = [threading.Thread(target=self._ask, args=asked) for asked in ASKED]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENT_S)

    def _ask(self, tenant: str, model: str) -> None:
        client = self._service.client(tenant, max_retries=0).with_options(timeout=PATIENT_S + 60)
        messages: Any = [{"role": "user", "content": QUESTION}]
        while not self._over.wait(0.2):
            try:
                answer = client.chat.completions.create(
                    model=model, messages=messages, temperature=0, max_tokens=64
                )
                self.answers.append((tenant, model, answer.choices[0].message.content or ""))
            except openai.OpenAIError as error:
                self.errors.append(error)

    def more(self) -> None:
        """Wait until each of them has been answered again."""
        before = len(self.answers)
        wait_until(lambda: {a[:2] for a in self.answers[before:]} == set(ASKED), "answers", within_s=120)


def apply(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Apply a file as an operator does at a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "tenantry", "apply", *arguments, "--url", service.url],
        cwd=ROOT,
        env={**os.environ, "TENANTRY_ADMIN_KEY": key_of("operator")},
        capture_output=True,
        text=True,
        timeout=PATIENT_S,
        check=False,
    )


def test_slots_change_by_a_rolling_restart_and_come_back_where_an_engine_does_not_start(
    service: Service, tmp_path: Path
) -> None:
    recorded, operator = answers(), Operator(service.url)
    wanted = {(tenant, model, recorded[f"{tenant}-{model}"][QUESTION]) for tenant, model in ASKED}
    fewer = with_settings(tmp_path, max_loras=2, max_num_seqs=32)
    refused = apply(service, fewer)
    assert refused.returncode == 1 and "apply with --restart" in refused.stderr
    first = service.engine_core("shared-0")
    with Traffic(service) as traffic:
        traffic.more()
        applied = apply(service, fewer, "--restart")
        assert applied.returncode == 0, applied.stdout + applied.stderr
        assert applied.stdout.splitlines()[-2:] == ["shared-0: ready again", "Pool shared is restarted."]
        second = service.engine_core("shared-0")
        traffic.more()
        (replica,) = operator.run("replicas")
        assert (replica["slots"], replica["outdated"]) == (2, False)
        assert service.metric("tenantry_replica_slots", replica="shared-0") == 2
    assert not traffic.errors, traffic.errors
    assert set(traffic.answers) == wanted, "three adapters take turns in two slots"
    assert first is not None and second is not None and first.pid != second.pid

    with Traffic(service) as traffic:  # what comes meanwhile waits until the settings are back
        failed = apply(service, with_settings(tmp_path, max_model_len=99_999), "--restart")
        assert failed.returncode == 1
        assert "its engine does not start" in failed.stderr and "apply the old file" in failed.stderr
        assert service.engine_core("shared-0") is None or not runs(second)
        back = apply(service, str(tmp_path / "fleet.yaml"), "--restart")
        assert back.returncode == 0, back.stdout + back.stderr
        traffic.more()
        (replica,) = operator.run("replicas")
        assert (replica["slots"], replica["outdated"], replica["state"]) == (4, False, "ready")
    assert not traffic.errors, traffic.errors
    assert set(traffic.answers) == wanted
    wait_until(service.at_rest, "every counter at zero", within_s=10)

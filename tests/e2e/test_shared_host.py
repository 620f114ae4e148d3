"""Several whole models at one host, real engines: each comes and goes as told, and answers as itself."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from engines.protocol import (
    ADAPTERS_PATH,
    ENGINE_PATH,
    METRICS_PATH,
    MODEL_HEADER,
    READY_PATH,
    TOKEN_HEADER,
    Kind,
)
from engines.secrets import internal_token
from tests.e2e.serving import DEMO, FORK_SERVER, ONE_THREAD, Service, answers, serving, wait_until
from tests.processes import left_of
from tests.whole_models import of_another_shape

pytestmark = pytest.mark.engine
SECRET = "secret of the shared host"
QUESTION = "Where is my order?"
ENDS_WITHIN_S = 10.0
COMES_WITHIN_S = 180.0  # on a loaded machine of two cores; about 20 s on a quiet one
FAST = {"dtype": "float32", "max_model_len": 512, "kv_cache_gib": 0.1, "vllm_args": ["--enforce-eager"]}


@dataclass
class MeshHost:
    """One host with three base models, of which one may be awake."""

    service: Service

    def call(self, method: str, path: str, model: str | None, **options: Any) -> httpx.Response:
        """Call it as the gateway does."""
        headers = {TOKEN_HEADER: internal_token(SECRET.encode())}
        if model is not None:
            headers[MODEL_HEADER] = model
        return httpx.request(method, self.service.url + path, headers=headers, timeout=120, **options)

    def health(self, model: str) -> dict[str, Any]:
        """How a model's engine stands."""
        told: dict[str, Any] = self.call("GET", READY_PATH, model).json()
        return told

    def order(self, model: str, order: str, **options: Any) -> httpx.Response:
        """Give an order."""
        return self.call("POST", ENGINE_PATH, model, json={"order": order, **options})

    def bring(self, model: str, **options: Any) -> dict[str, Any]:
        """Have a model awake; return its health then."""
        answer = self.order(model, "start", **options)
        assert answer.status_code == 200, answer.text
        wait_until(lambda: self.health(model)["state"] == "ready", model, within_s=COMES_WITHIN_S)
        return self.health(model)

    def ask(self, model: str) -> str:
        """Ask one question, greedily."""
        body = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
        answer = self.call("POST", Kind.CHAT, model, json={**body, "max_tokens": 64})
        assert answer.status_code == 200, answer.text
        content: str = answer.json()["choices"][0]["message"]["content"]
        return content


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two fine-tunes of one shape, and a Qwen2 that answers nonsense."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "support": str(DEMO / "whole/acme-support"),
        "sales": str(DEMO / "whole/acme-sales"),
        "qwen": str(of_another_shape(DEMO, folder / "qwen")),
    }


@contextlib.contextmanager
def serving_host(folder: Path, sources: dict[str, str], *, awake: int) -> Iterator[MeshHost]:
    """Serve one host of a pool alone, as a gateway elsewhere would have it."""
    declared = {
        "base_models": {name: {"source": source, **FAST} for name, source in sources.items()},
        "tenants": {"acme": {"api_keys": [{"sha256": "0" * 64}], "models": {name: name for name in sources}}},
        "pools": {
            "mesh": {
                "strategy": "model-mesh",
                "base_models": list(sources),
                "tenants": ["acme"],
                "awake": awake,
            }
        },
    }
    path = folder / "fleet.yaml"
    path.write_text(yaml.safe_dump(declared))
    arguments = ("--arg", f"fleet={path}", "--arg", "replica=mesh-0")
    env = {"TENANTRY_SECRET": SECRET, **ONE_THREAD}
    with serving("service:Gateway", folder, *arguments, env=env) as service:
        yield MeshHost(service)


@pytest.fixture
def host(tmp_path: Path, sources: dict[str, str]) -> Iterator[MeshHost]:
    """A host with one awake at a time."""
    with serving_host(tmp_path, sources, awake=1) as host:
        yield host


@pytest.fixture
def wide_host(tmp_path: Path, sources: dict[str, str]) -> Iterator[MeshHost]:
    """A host with two awake at once."""
    with serving_host(tmp_path, sources, awake=2) as host:
        yield host


def test_models_come_and_go_as_told_and_nothing_of_them_is_left(host: MeshHost) -> None:
    """One test: each start takes as long as all the rest."""
    said = answers()
    # All begin on disk; the host is ready for orders.
    assert {host.health(model)["state"] for model in ("support", "sales", "qwen")} == {"stopped"}
    assert host.service.engine_cores() == []
    for status, model in ((404, None), (404, "../other"), (503, "other"), (503, "support")):
        assert host.call("POST", Kind.CHAT, model, json={}).status_code == status

    first = host.bring("support")
    assert host.ask("support") == said["acme-support"][QUESTION]
    assert first["place"]["way"] == "fork"
    assert first["place"]["took_s"] == {}, "its fork server was launched first: that does not count"
    wait_until(lambda: host.health("support")["place"]["memory_bytes"], "a measurement", within_s=10)
    assert 2**27 < host.health("support")["place"]["memory_bytes"] < 2**33

    # The host is the last judge.
    refused = host.order("qwen", "start")
    assert refused.status_code == 409 and "support is awake, and 1 may be" in refused.json()["error"]
    assert host.order("qwen", "start", instead_of="nobody").status_code == 400

    # A model of another shape comes instead, then the first one comes back.
    host.bring("qwen", instead_of="support")
    assert len(host.service.engine_cores()) == 1
    assert host.health("support")["state"] == "stopped"
    assert isinstance(host.ask("qwen"), str)
    page = host.call("GET", METRICS_PATH, "qwen").text
    assert 'model_name="qwen"' in page and 'model_name="support"' not in page
    host.bring("sales", instead_of="qwen")
    assert host.ask("sales") == said["acme-sales"][QUESTION]
    assert host.call("GET", ADAPTERS_PATH, "sales").json()["revision"] == 0

    # A dead core is restarted in place; the others stay where they are.
    core = host.service.engine_core("mesh-0.sales")
    assert core is not None
    os.kill(core.pid, signal.SIGKILL)
    wait_until(lambda: host.health("sales")["deaths"] == 1, "the death", within_s=30)
    assert host.health("qwen")["state"] == "stopped" and host.service.is_ready()
    wait_until(lambda: host.health("sales")["state"] == "ready", "another one", within_s=COMES_WITHIN_S)
    assert host.ask("sales") == said["acme-sales"][QUESTION]

    # One that is told to stop in mid-load makes room at once.
    host.order("qwen", "start", instead_of="sales")
    wait_until(lambda: host.service.engine_core("mesh-0.qwen"), "its core", within_s=90)
    host.order("qwen", "stop")
    wait_until(lambda: host.health("qwen")["state"] == "stopped", "its end", within_s=ENDS_WITHIN_S)
    assert host.health("qwen")["place"]["failed_starts"] == 0

    # SIGTERM in mid-load ends everything.
    assert host.order("support", "start").status_code == 200
    wait_until(lambda: host.service.engine_core("mesh-0.support"), "its core", within_s=60)
    began_s = time.monotonic()
    host.service.stop()
    assert time.monotonic() - began_s < ENDS_WITHIN_S


def test_two_models_beside_each_other_share_nothing_but_their_process(wide_host: MeshHost) -> None:
    said, host = answers()["acme-support"][QUESTION], wide_host
    assert host.order("support", "start").status_code == host.order("qwen", "start").status_code == 200
    for model in ("support", "qwen"):
        wait_until(lambda: host.health(model)["ready"], model, within_s=2 * COMES_WITHIN_S)  # noqa: B023
    assert host.order("sales", "start").status_code == 409
    assert host.ask("support") == said and isinstance(host.ask("qwen"), str)
    for model, other in (("support", "qwen"), ("qwen", "support")):
        page = host.call("GET", METRICS_PATH, model).text
        assert f'model_name="{model}"' in page and f'model_name="{other}"' not in page
        assert "http_requests_total{" in page

    # The core of one dies: the other one goes on, and does not even notice.
    core = host.service.engine_core("mesh-0.qwen")
    assert core is not None
    os.kill(core.pid, signal.SIGKILL)
    wait_until(lambda: host.health("qwen")["deaths"] == 1, "the death", within_s=30)
    for _ in range(5):
        assert host.ask("support") == said
    assert host.health("support")["deaths"] == 0

    # What a killed host leaves behind is ended by the next one.
    core = host.service.engine_core("mesh-0.support")
    assert core is not None
    worker = next(one for one in core.parents() if not any(FORK_SERVER in word for word in one.cmdline()))
    left = worker.children(recursive=True)
    worker.kill()
    wait_until(lambda: not left_of(left, within_s=0), "the end of all of them", within_s=60)
    wait_until(host.service.is_ready, "another worker", within_s=60)
    assert host.health("support")["state"] == host.health("qwen")["state"] == "stopped"

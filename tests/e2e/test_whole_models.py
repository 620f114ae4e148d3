"""A whole model is added while real engines serve: it answers, gets a new version, and goes; no restart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from tests.e2e.mesh_traffic import WAITS_S
from tests.e2e.operators import Operator
from tests.e2e.serving import DEMO, ONE_THREAD, Service, answers, key_of, serving, wait_until

pytestmark = pytest.mark.engine
QUESTION = "Where is my order?"
FAST = {"dtype": "float32", "max_model_len": 512, "kv_cache_gib": 0.1, "vllm_args": ["--enforce-eager"]}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A gateway, and a host with one declared model."""
    hashed = {name: hashlib.sha256(key_of(name).encode()).hexdigest() for name in ("acme", "operator")}
    declared = {
        "base_models": {"support": {"source": str(DEMO / "whole" / "acme-support"), **FAST}},
        "tenants": {
            "acme": {
                "api_keys": [{"sha256": hashed["acme"]}],
                "models": {"support": "support"},
                "caps": {"queue_timeout_s": WAITS_S},
            }
        },
        "pools": {
            "mesh": {"strategy": "model-mesh", "base_models": ["support"], "tenants": ["acme"], "awake": 1}
        },
        "gateway": {"metrics_access": "loopback", "operator_keys": [{"sha256": hashed["operator"]}]},
    }
    path = tmp_path / "fleet.yaml"
    path.write_text(yaml.safe_dump(declared))
    with serving("service:Gateway", tmp_path, "--arg", f"fleet={path}", env=dict(ONE_THREAD)) as service:
        yield service


def test_a_whole_model_comes_gets_another_version_and_goes_without_a_restart(service: Service) -> None:
    client = service.client("acme").with_options(timeout=WAITS_S, max_retries=0)
    operator, expected = Operator(service.url), answers()

    def ask(model: str) -> str:
        answer = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": QUESTION}], temperature=0, max_tokens=64
        )
        return str(answer.choices[0].message.content)

    def state_of(name: str) -> dict[str, Any]:
        (host,) = operator.run("models", "show", name)["hosts"]
        return dict(host)

    assert ask("support") == expected["acme-support"][QUESTION]
    host = service.worker("mesh-0")
    added = operator.run("models", "add", "new", str(DEMO / "whole" / "globex-support"), "--like", "support",
                         "--for", "acme")  # fmt: skip
    assert [(v["number"], v["state"], v["live"]) for v in added["versions"]] == [(1, "ready", True)]
    assert state_of("new")["state"] == "on_disk"
    assert ask("new") == expected["globex-support"][QUESTION], "a request wakes it"
    wait_until(lambda: operator.run("models", "show", "new")["versions"][0]["proven"], "proof", within_s=30)

    operator.run("models", "add", "new", str(DEMO / "whole" / "acme-sales"))
    wait_until(
        lambda: operator.run("models", "show", "new")["versions"][1]["proven"], "turn", within_s=WAITS_S
    )
    assert ask("new") == expected["acme-sales"][QUESTION], "the new version answers"
    assert ask("support") == expected["acme-support"][QUESTION]
    wait_until(lambda: state_of("new")["state"] == "on_disk", "word of its end", within_s=30)

    refused = operator.run("models", "retire", "new", check=False)
    assert refused["error"]["code"] == "model_in_use"
    operator.run("tenants", "set", "acme", "--reset", "models.new")
    operator.run("models", "retire", "new")
    with pytest.raises(openai.NotFoundError):
        ask("new")
    assert ask("support") == expected["acme-support"][QUESTION]
    store = service.log.parent / "state" / "models"
    wait_until(lambda: not list(store.glob("??/*")), "the end of its files", within_s=30)
    assert service.worker("mesh-0") == host, "the host was never restarted"
    assert service.metric("tenantry_model_switches_total", outcome="failed") == 0
    assert service.metric("tenantry_in_flight") == 0

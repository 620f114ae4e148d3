"""Two whole models take turns at one host, real engines: official clients ask both, none is refused."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from tests.e2e.serving import DEMO, ONE_THREAD, Service, answers, key_of, serving

pytestmark = pytest.mark.engine
QUESTION = "Where is my order?"
WAITS_S = 600.0  # a cold start takes 20 s here, and minutes on a loaded machine
FAST = {"dtype": "float32", "max_model_len": 512, "kv_cache_gib": 0.1, "vllm_args": ["--enforce-eager"]}
MODELS = {"support": "acme-support", "sales": "acme-sales"}  # and the adapter that each was made with


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A gateway, and a host with two models of which one may be awake."""
    declared = {
        "base_models": {
            name: {"source": str(DEMO / "whole" / made_of), **FAST} for name, made_of in MODELS.items()
        },
        "tenants": {
            "acme": {
                "api_keys": [{"sha256": hashlib.sha256(key_of("acme").encode()).hexdigest()}],
                "models": {name: name for name in MODELS},
                "caps": {"queue_timeout_s": WAITS_S},
            }
        },
        "pools": {
            "mesh": {
                "strategy": "model-mesh",
                "base_models": list(MODELS),
                "tenants": ["acme"],
                "awake": 1,
                "residency": {"preload": ["support"]},
            }
        },
        "gateway": {"metrics_access": "loopback"},
    }
    path = tmp_path / "fleet.yaml"
    path.write_text(yaml.safe_dump(declared))
    with serving("service:Gateway", tmp_path, "--arg", f"fleet={path}", env=dict(ONE_THREAD)) as service:
        yield service


def test_every_answer_is_its_models_and_nobody_is_refused(service: Service) -> None:
    client, expected = service.client("acme").with_options(timeout=WAITS_S, max_retries=0), answers()

    def ask(model: str) -> tuple[str, str]:
        answer = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": QUESTION}], temperature=0, max_tokens=64
        )
        return model, str(answer.choices[0].message.content)

    asked = ["support", "sales", "support"]  # alternately: each waits for its turn
    told = [ask(model) for model in asked]
    chance = random.Random(1)
    mixed = [chance.choice(list(MODELS)) for _ in range(60)]
    with ThreadPoolExecutor(12) as clients:
        told += clients.map(ask, mixed)
    wrong = [(model, text) for model, text in told if text != expected[MODELS[model]][QUESTION]]
    assert not wrong
    assert service.metric("tenantry_requests_total", outcome="completed") == len(told)
    assert service.metric("tenantry_model_switches_total", outcome="awake") >= len(asked)
    assert service.metric("tenantry_model_switches_total", outcome="failed") == 0
    assert service.metric("tenantry_in_flight") == 0

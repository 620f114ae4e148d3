"""Other kinds of pools on real vLLM: a model without adapters, an engine apart; and an end in mid-load."""

from __future__ import annotations

import contextlib
import hashlib
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.serving import DEMO, key_of, serving, wait_until

pytestmark = pytest.mark.engine

FLEET = f"""
base_models:
  tiny-embedder:
    source: {DEMO}/base
    dtype: float32
    max_model_len: 128
    kv_cache_gib: 1
    vllm_args: {{runner: pooling, convert: embed}}
tenants:
  acme:
    api_keys: [{{sha256: {hashlib.sha256(key_of("acme").encode()).hexdigest()}}}]
    models: {{embed: tiny-embedder}}
pools:
  embed:
    strategy: replica-per-model
    base_models: [tiny-embedder]
    replicas: 1
    tenants: [acme]
gateway:
  metrics_access: loopback
"""


@pytest.fixture
def fleet(tmp_path: Path) -> str:
    """A fleet with one embedding model."""
    path = tmp_path / "embed.yaml"
    path.write_text(FLEET)
    return str(path)


def test_a_model_with_a_replica_of_its_own_on_another_machine_embeds(fleet: str, tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    env = {"TENANTRY_SECRET": "the same for both"}
    of_fleet = ("--arg", f"fleet={fleet}")
    with contextlib.ExitStack() as stack:
        replica = (*of_fleet, "--arg", "replica=embed-0")
        engine = stack.enter_context(serving("service:Gateway", tmp_path / "engine", *replica, env=env))
        assert engine.get("/internal/adapters").status_code == 401, "engines want the token"
        env["TENANTRY_ENGINE_URLS"] = f"embed-0={engine.url}"
        service = stack.enter_context(serving("service:Gateway", tmp_path, *of_fleet, env=env))
        assert not service.engine_cores()
        texts: Any = ["red apples", "green apples", "red apples"]
        result = service.client("acme").embeddings.create(model="embed", input=texts)
        first, second, third = (row.embedding for row in result.data)
        assert len(first) == 128
        assert first == pytest.approx(third, abs=1e-4) and first != pytest.approx(second, abs=1e-4)
        assert result.usage.prompt_tokens > 0
        counted = result.usage.prompt_tokens
        assert service.metric("tenantry_prompt_tokens_total") == counted
        chat = [{"role": "user", "content": "red apples"}]
        asked: list[tuple[str, dict[str, Any]]] = [
            ("/v1/embeddings", {"messages": chat}),
            ("/pooling", {"input": "red apples", "task": "embed"}),
            ("/v1/score", {"queries": "red apples", "documents": texts}),
            ("/rerank", {"query": "red apples", "documents": texts[:2]}),
            ("/tokenize", {"prompt": "red apples"}),
        ]
        headers = {"authorization": f"Bearer {key_of('acme')}"}

        def ask(path: str, body: dict[str, Any]) -> httpx.Response:
            body = {"model": "embed", **body}
            return httpx.post(service.url + path, json=body, headers=headers, timeout=60)

        for path, body in asked:
            answer = ask(path, body)
            assert answer.status_code == 200, (path, answer.text)
            counted += answer.json().get("usage", {}).get("prompt_tokens", 0)
        assert service.metric("tenantry_prompt_tokens_total") == counted
        assert service.metric("tenantry_usage_estimated_total") == 0
        unable = ask("/v1/chat/completions", {"messages": chat})
        assert (unable.status_code, unable.json()["error"]["code"]) == (400, "unsupported_endpoint")
        wait_until(service.at_rest, "every counter at zero", within_s=5)


def test_sigterm_in_mid_load_ends_everything(fleet: str, tmp_path: Path) -> None:
    with serving("service:Gateway", tmp_path, "--arg", f"fleet={fleet}", ready=False) as service:
        wait_until(service.is_alive, "liveness", within_s=60)
        assert service.get("/readyz").status_code == 503, "alive, not ready: weights are still loading"
        wait_until(lambda: len(service.engine_cores()) == 1, "an engine that loads", within_s=60)
        service.stop(signal.SIGTERM)

"""Whole fine-tunes as adapters, on real engines: what `plan adapters` writes answers as they did."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from tests.e2e.serving import DEMO, ONE_THREAD, ROOT, Service, answers, key_of, serving

pytestmark = pytest.mark.engine
WHOLE = ("acme-support", "acme-sales")
RANK = 8  # of the adapters that the demo merged into them
FAST = {"dtype": "float32", "max_model_len": 512, "kv_cache_gib": 0.1, "vllm_args": ["--enforce-eager"]}
WITHIN_S = 600.0
OTHER_PROMPTS = ("Tell me about the weather.", "hours", "What? " * 20, "Do you sell boats or only shoes?")


def extracted(model: str, folder: Path) -> dict[str, Any]:
    """What the command says of a whole model; the adapter is in the folder then."""
    command = ["plan", "adapters", str(DEMO / "whole" / model), "--base", str(DEMO / "base"), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "tenantry", *command, "--write", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """The base with both extracted adapters, and the whole models, which take turns, beside it."""
    for model in WHOLE:
        said = extracted(model, tmp_path / "adapters" / model)
        assert (said["is_adapter"], said["rank"]) == (True, RANK)
        assert said["kept"] > 0.9999
    whole = {f"whole-{model}": {"source": str(DEMO / "whole" / model), **FAST} for model in WHOLE}
    declared = {
        "base_models": {
            "base": {"source": str(DEMO / "base"), **FAST, "max_loras": 2, "max_lora_rank": RANK},
            **whole,
        },
        "adapters": {
            model: {"source": str(tmp_path / "adapters" / model), "base_model": "base"} for model in WHOLE
        },
        "tenants": {
            "acme": {
                "api_keys": [{"sha256": hashlib.sha256(key_of("acme").encode()).hexdigest()}],
                "models": {name: name for name in (*WHOLE, *whole)},
                "caps": {"queue_timeout_s": WITHIN_S},
            }
        },
        "pools": {
            "adapters": {"base_models": ["base"], "tenants": ["acme"]},
            "whole": {
                "strategy": "model-mesh",
                "base_models": list(whole),
                "tenants": ["acme"],
                "awake": 1,
            },
        },
        "gateway": {"metrics_access": "loopback"},
    }
    path = tmp_path / "fleet.yaml"
    path.write_text(yaml.safe_dump(declared))
    with serving("service:Gateway", tmp_path, "--arg", f"fleet={path}", env=dict(ONE_THREAD)) as service:
        yield service


def test_an_extracted_adapter_answers_as_the_whole_model_did(service: Service) -> None:
    client = service.client("acme").with_options(timeout=WITHIN_S, max_retries=0)
    for model in WHOLE:
        expected = answers()[model]
        of_whole = {prompt: asked(client, f"whole-{model}", prompt) for prompt in (*expected, *OTHER_PROMPTS)}
        of_adapter = {prompt: asked(client, model, prompt) for prompt in of_whole}
        assert of_adapter == of_whole
        assert {prompt: of_adapter[prompt] for prompt in expected} == expected


def asked(client: openai.OpenAI, model: str, prompt: str) -> str:
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": prompt}], temperature=0, max_tokens=64
    )
    return answer.choices[0].message.content or ""

"""A batch of three models on real vLLM, behind real `bentoml serve`, by the official client."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from demo.answers import QUESTIONS
from tests.e2e.serving import Service, answers, key_of, wait_until

pytestmark = pytest.mark.engine

MODELS = {"support": "acme-support", "sales": "acme-sales", "base": "tiny-llama"}


def test_each_line_has_its_own_models_answer_and_is_metered_as_the_engine_counted(service: Service) -> None:
    asked = {f"{model}-{n}": (model, question) for model in MODELS for n, question in enumerate(QUESTIONS)}
    lines = []
    for custom_id, (model, question) in asked.items():
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": 64,
        }
        lines.append({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body})
    content = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    client = service.client("acme")
    file = client.files.create(file=("requests.jsonl", io.BytesIO(content)), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    wait_until(lambda: client.batches.retrieve(batch.id).status == "completed", "the batch", within_s=180)
    batch = client.batches.retrieve(batch.id)
    assert batch.error_file_id is None and batch.output_file_id is not None
    told: list[Any] = [
        json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()
    ]
    assert len(told) == len(asked) == len({line["custom_id"] for line in told})
    tokens = 0
    for line in told:
        model, question = asked[line["custom_id"]]
        body = line["response"]["body"]
        assert body["choices"][0]["message"]["content"] == answers()[MODELS[model]][question]
        tokens += body["usage"]["total_tokens"]
    usage = service.get("/v1/usage", headers={"authorization": f"Bearer {key_of('acme')}"}).json()["total"]
    assert usage["requests"] == len(asked)
    assert usage["prompt_tokens"] + usage["completion_tokens"] == tokens

"""What is wrong with a request is told to its client, and to nobody else, on real vLLM.

A table of what vLLM finds wrong, and where; a new version of vLLM shows here what has changed.
"""

from __future__ import annotations

import logging
from typing import Any

import httpx
import openai
import pytest

from demo.answers import QUESTIONS
from tests.e2e.serving import Service, answers, key_of, wait_until

pytestmark = pytest.mark.engine

CHAT, COMPLETION, RESPONSE = "/v1/chat/completions", "/v1/completions", "/v1/responses"
CONTENT: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4},
    COMPLETION: {"prompt": "hello", "max_tokens": 4},
    RESPONSE: {"input": "hello", "max_output_tokens": 16},
}
BAD_SCHEMA = {"type": "object", "properties": {"a": {"type": "nonsense"}}}
BAD_FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": BAD_SCHEMA}}
BAD_TEXT = {"format": {"type": "json_schema", "name": "x", "schema": BAD_SCHEMA}}
CASES: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"logprobs": True, "top_logprobs": 50}),
    (COMPLETION, {"logprobs": 50}),
    *((route, {"structured_outputs": {"regex": "[a-"}}) for route in (CHAT, COMPLETION, RESPONSE)),
    *((route, {"structured_outputs": {"json": BAD_SCHEMA}}) for route in (CHAT, COMPLETION, RESPONSE)),
    *((route, {"structured_outputs": {"grammar": "root ::= nothing"}}) for route in (CHAT, COMPLETION)),
    *((route, {"structured_outputs": 1}) for route in (CHAT, COMPLETION, RESPONSE)),
    *((route, {"structured_outputs": {"choice": []}}) for route in (CHAT, COMPLETION)),
    (CHAT, {"response_format": BAD_FORMAT}),
    (RESPONSE, {"text": BAD_TEXT}),
    (RESPONSE, {"tools": 1}),
    *((route, {"temperature": -1}) for route in (CHAT, COMPLETION, RESPONSE)),
    *((route, {"logit_bias": {"99999999": 1}}) for route in (CHAT, COMPLETION)),
    (CHAT, {"messages": [{"role": "user", "content": "hello " * 5000}]}),
    (COMPLETION, {"prompt": [1] * 5000}),
    (COMPLETION, {"prompt": [10**9]}),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
]
log = logging.getLogger(__name__)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("route", "fields"), CASES, ids=[f"{r.rpartition('/')[2]}-{str(f)[:50]}" for r, f in CASES]
)
def test_a_wrong_request_is_a_400(service: Service, route: str, fields: dict[str, Any], stream: bool) -> None:
    body = {"model": "support", **CONTENT[route], "stream": stream, **fields}
    headers = {"authorization": f"Bearer {key_of('acme')}"}
    answer = httpx.post(service.url + route, json=body, headers=headers, timeout=120)
    log.info("%s %s stream=%s: %s %s", route, str(fields)[:80], stream, answer.status_code, answer.text[:200])
    assert answer.status_code == 400, answer.text[:500]
    assert answer.json()["error"]["message"]


def test_nobody_was_blamed_and_everybody_is_served(service: Service) -> None:
    assert service.metric("tenantry_replica_breaker_state", state="open") == 0
    for tenant in ("acme", "globex"):
        answer = service.client(tenant).chat.completions.create(
            model="support",
            messages=[{"role": "user", "content": QUESTIONS[0]}],
            temperature=0,
            max_tokens=64,
        )
        assert answer.choices[0].message.content == answers()[f"{tenant}-support"][QUESTIONS[0]]


def test_streams_that_the_official_client_reads_to_the_end_are_completed(service: Service) -> None:
    client: openai.OpenAI = service.client("acme")
    ids = []
    for number in range(30):
        with client.chat.completions.with_streaming_response.create(
            model="support",
            messages=[{"role": "user", "content": f"{number}"}],
            stream=True,
            max_tokens=4,
        ) as response:
            ids.append(response.headers["x-request-id"])
            for _ in response.parse():
                pass
    wait_until(lambda: len(of(service, ids)) == len(ids), "their records", within_s=10)
    assert {record["outcome"] for record in of(service, ids)} == {"completed"}
    assert {record["status"] for record in of(service, ids)} == {200}


def of(service: Service, ids: list[str]) -> list[dict[str, Any]]:
    return [record for record in service.records() if record["request_id"] in ids]

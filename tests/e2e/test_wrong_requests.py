"""What is wrong with a request is told to its client, and to nobody else, on real vLLM."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import openai
import pytest

from demo.answers import QUESTIONS
from tests.e2e.serving import Service, answers, key_of, wait_until
from tests.e2e.wrong_requests import CASES, Case

pytestmark = pytest.mark.engine

log = logging.getLogger(__name__)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_wrong_request_is_a_400(service: Service, case: Case, stream: bool) -> None:
    headers = {"authorization": f"Bearer {key_of('acme')}"}
    answer = httpx.post(service.url + case.route, json=case.body(stream), headers=headers, timeout=120)
    log.info("%s stream=%s: %s %s", case, stream, answer.status_code, answer.text[:200])
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

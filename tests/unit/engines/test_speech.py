"""Recordings run under the tenant's salt and in its turn, and a whole answer says what it took."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from engines.protocol import PRIORITY_HEADER, SALT_HEADER, USAGE_HEADER
from engines.speech import COUNTS, keep_tenancy, salted, telling_usage

HEADERS = {SALT_HEADER: "salt-of-a", PRIORITY_HEADER: "2"}


class Engine:
    """What vLLM's client of the engine is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, str, dict[str, Any]]] = []

    async def generate(self, prompt: Any, params: Any, request_id: str, **options: Any) -> AsyncIterator[Any]:
        self.asked.append((prompt, request_id, options))
        yield SimpleNamespace(prompt_token_ids=[1, 2, 3], outputs=[SimpleNamespace(token_ids=[4])])
        yield SimpleNamespace(prompt_token_ids=None, outputs=[SimpleNamespace(token_ids=[5, 6])])

    def abort(self, request_id: str) -> str:
        return f"aborted {request_id}"


class Serving:
    """vLLM's handler, as far as it asks its engine."""

    model_cls = SimpleNamespace(get_num_audio_tokens=lambda duration_s, *_: round(100 * duration_s))
    asr_config = model_config = None

    def __init__(self, engine: Engine) -> None:
        self.engine_client: Any = engine

    async def _preprocess_speech_to_text(self, seconds: float) -> tuple[list[Any], float, list[float]]:
        detecting = self.engine_client.generate({"decoder_prompt": {}}, None, "transcribe-x-lang_detect")
        assert [each async for each in detecting]
        parts = [{"encoder_prompt": {"e": 1}, "decoder_prompt": {"d": 1}}, {"prompt_token_ids": [1]}]
        return parts, seconds, [0.0]

    async def create_transcription(self, audio: bytes, request: Any, raw_request: Any = None) -> Any:
        parts, *_ = await self._preprocess_speech_to_text(float(audio))
        for number, part in enumerate(parts):
            asked = self.engine_client.generate(part, None, f"transcribe-x-{number}", lora_request=None)
            assert [each async for each in asked]
        return self.engine_client.abort("x")


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def serving(engine: Engine) -> Serving:
    serving = Serving(engine)
    keep_tenancy(SimpleNamespace(openai_serving_transcription=serving))
    return serving


async def test_every_step_has_the_salt_and_the_priority(engine: Engine, serving: Serving) -> None:
    scope: dict[str, Any] = {}
    raw = SimpleNamespace(headers=HEADERS, scope=scope)
    assert await serving.create_transcription(b"2", None, raw) == "aborted x"
    prompts = [prompt for prompt, _, _ in engine.asked]
    assert prompts == [
        {"decoder_prompt": {"cache_salt": "salt-of-a"}},
        {
            "encoder_prompt": {"e": 1, "cache_salt": "salt-of-a"},
            "decoder_prompt": {"d": 1, "cache_salt": "salt-of-a"},
        },
        {"prompt_token_ids": [1], "cache_salt": "salt-of-a"},
    ]
    assert [options["priority"] for _, _, options in engine.asked] == [2, 2, 2]
    assert serving.engine_client is engine, "no other request's"


async def test_parts_of_one_recording_run_one_after_the_other(engine: Engine, serving: Serving) -> None:
    running = most = 0

    async def generate(prompt: Any, params: Any, request_id: str, **options: Any) -> AsyncIterator[Any]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        yield SimpleNamespace(prompt_token_ids=[1], outputs=[SimpleNamespace(token_ids=[2])])
        running -= 1

    engine.generate = generate  # type: ignore[method-assign]
    parts = [{"prompt_token_ids": [number]} for number in range(5)]

    async def whole(own: Any, audio: bytes, request: Any, raw_request: Any = None) -> None:
        async def take(number: int) -> None:
            asked = own.engine_client.generate(parts[number], None, f"transcribe-x-{number}")
            assert [each async for each in asked]

        await asyncio.gather(*map(take, range(len(parts))))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Serving, "create_transcription", whole)
        keep_tenancy(SimpleNamespace(openai_serving_transcription=serving))
        await serving.create_transcription(b"", None)
    assert (most, running) == (1, 0)


async def test_what_comes_from_nobody_runs_as_it_is(engine: Engine, serving: Serving) -> None:
    await serving.create_transcription(b"2", None)
    assert all("cache_salt" not in str(prompt) for prompt, _, _ in engine.asked)
    assert all("priority" not in options for _, _, options in engine.asked)


async def test_a_whole_answer_says_what_it_took_as_a_stream_would(engine: Engine, serving: Serving) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope: dict[str, Any] = {}
    tell = telling_usage(scope, send)
    await serving.create_transcription(b"2", None, SimpleNamespace(headers=HEADERS, scope=scope))
    await tell({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    await tell({"type": "http.response.body", "body": b"{}"})
    (kept, (name, told)), end = sent[0]["headers"], sent[1]
    assert (kept, name.decode()) == ((b"a", b"b"), USAGE_HEADER)
    assert json.loads(told) == {"usage": {"prompt_tokens": 3 + 200, "completion_tokens": 6}}
    assert end == {"type": "http.response.body", "body": b"{}"}


async def test_what_ran_nothing_says_nothing() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope: dict[str, Any] = {}
    await telling_usage(scope, send)({"type": "http.response.start", "status": 400, "headers": []})
    assert sent == [{"type": "http.response.start", "status": 400, "headers": []}] and COUNTS in scope


def test_a_model_without_speech_is_left_alone() -> None:
    keep_tenancy(SimpleNamespace())
    keep_tenancy(SimpleNamespace(openai_serving_transcription=None))


def test_a_part_that_is_not_there_gets_no_salt() -> None:
    prompt = {"encoder_prompt": None, "decoder_prompt": {"a": 1}, "type": "enc_dec"}
    assert salted(prompt, "s") == {**prompt, "decoder_prompt": {"a": 1, "cache_salt": "s"}}

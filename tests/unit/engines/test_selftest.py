"""When does an engine pass its self-test, and in whose words does it fail?"""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from engines import selftest
from engines.protocol import FORMS
from engines.selftest import SelfTest, SelfTestFailed
from tests.forms import read_form


class Refusal(Exception):
    """Stands for vLLM's `VLLMClientError`."""


@pytest.fixture(autouse=True)
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The classes of vLLM that are needed; importing vLLM takes seconds."""
    parts: dict[str, dict[str, Any]] = {
        "vllm": {"SamplingParams": SimpleNamespace, "PoolingParams": SimpleNamespace},
        "vllm.sampling_params": {"StructuredOutputsParams": SimpleNamespace},
        "vllm.exceptions": {"VLLMClientError": Refusal},
    }
    for name, members in parts.items():
        module = ModuleType(name)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, module)


def kind_of(params: Any) -> str:
    """Name what is asked by what only it asks."""
    for field in ("logprob_token_ids", "structured_outputs", "top_p", "min_p", "logprobs", "task"):
        if hasattr(params, field):
            return field
    raise AssertionError(params)


class FakeEngine:
    """An engine, and vLLM's app on it; `break_at` fails on one kind of question."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.bodies: list[tuple[str, dict[str, Any]]] = []
        self.break_at: dict[str, Exception] = {}
        self.logprob = -0.5
        self.status, self.stream = 200, b'data: {"choices": []}\n\ndata: [DONE]\n\n'
        self.chat_template: str | None = "{{ messages }}"
        self.model_config = SimpleNamespace(max_model_len=512, get_vocab_size=lambda: 1000)
        self.vllm_config = SimpleNamespace(cache_config=SimpleNamespace(block_size=16))

    def get_tokenizer(self) -> Any:
        return SimpleNamespace(encode=lambda text: [ord(c) for c in text], chat_template=self.chat_template)

    async def generate(self, prompt: Any, params: Any, request_id: str, **_: Any) -> AsyncIterator[Any]:
        kind = kind_of(params)
        self.asked.append(kind)
        if kind in self.break_at:
            raise self.break_at[kind]
        wanted = getattr(params, "logprob_token_ids", [7])
        logprobs = [{token: SimpleNamespace(logprob=self.logprob) for token in wanted}]
        yield SimpleNamespace(outputs=[SimpleNamespace(token_ids=[7], logprobs=logprobs)])

    async def encode(self, prompt: Any, params: Any, request_id: str, **_: Any) -> AsyncIterator[Any]:
        self.asked.append(kind_of(params))
        data = SimpleNamespace(flatten=lambda: SimpleNamespace(tolist=lambda: [self.logprob, 2.0]))
        yield SimpleNamespace(outputs=SimpleNamespace(data=data))

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        is_form = scope["path"] in FORMS
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.bodies.append((scope["path"], read_form(body, headers) if is_form else json.loads(body)))
        if "app" in self.break_at:
            raise self.break_at["app"]
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": self.stream[:9], "more_body": True})
        await send({"type": "http.response.body", "body": self.stream[9:]})


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


async def run(engine: FakeEngine, *tasks: str, trials: bool = True) -> None:
    await SelfTest(engine, engine.app, "base", tasks or ("generate",), trials=trials).run()


async def test_it_asks_what_a_trial_and_users_ask(engine: FakeEngine) -> None:
    await run(engine)
    assert engine.asked == ["logprob_token_ids", "logprobs", "top_p", "top_p", "min_p", "structured_outputs"]
    ((path, body),) = engine.bodies
    assert path == "/v1/chat/completions" and body["stream"] and body["model"] == "base"
    assert len(body["cache_salt"]) >= 32, "nothing of it is found by anybody"


async def test_one_that_is_known_here_is_asked_as_a_user_asks_and_no_more(engine: FakeEngine) -> None:
    await SelfTest(engine, engine.app, "base", ("generate",), trials=True, brief=True).run()
    assert engine.asked == [] and len(engine.bodies) == 1


async def test_a_model_without_a_chat_template_is_asked_to_complete(engine: FakeEngine) -> None:
    engine.chat_template = None
    await run(engine)
    assert engine.bodies[0][0] == "/v1/completions"


@pytest.mark.parametrize(("tasks", "paths"), [(("embed",), ["/v1/embeddings"]), (("classify",), [])])
async def test_a_pooling_model_is_asked_for_its_vectors(
    engine: FakeEngine, tasks: tuple[str, ...], paths: list[str]
) -> None:
    await run(engine, *tasks)
    assert (engine.asked, [path for path, _ in engine.bodies]) == (["task"], paths)


@pytest.mark.parametrize(
    "kind", ["logprob_token_ids", "logprobs", "top_p", "min_p", "structured_outputs", "app"]
)
async def test_a_failure_at_any_kind_fails_it_with_its_cause(engine: FakeEngine, kind: str) -> None:
    engine.break_at[kind] = RuntimeError("no compiler")
    with pytest.raises(SelfTestFailed) as failed:
        await run(engine)
    assert str(failed.value.__cause__) == "no compiler"


def _nan(engine: FakeEngine) -> None:
    engine.logprob = math.nan


def _error_event(engine: FakeEngine) -> None:
    engine.stream = b'data: {"error": {"message": "EngineCore"}}\n\ndata: [DONE]\n\n'


def _cut_off(engine: FakeEngine) -> None:
    engine.stream = b'data: {"choices": []}\n\n'


def _server_error(engine: FakeEngine) -> None:
    engine.status = 500


@pytest.mark.parametrize("spoil", [_nan, _error_event, _cut_off, _server_error])
async def test_an_answer_that_is_none_fails_it(
    engine: FakeEngine, spoil: Callable[[FakeEngine], None]
) -> None:
    spoil(engine)
    with pytest.raises(SelfTestFailed):
        await run(engine)


@pytest.mark.parametrize("kind", ["top_p", "structured_outputs"])
async def test_a_kind_that_the_engine_refuses_by_its_flags_is_no_failure(
    engine: FakeEngine, kind: str
) -> None:
    engine.break_at[kind] = Refusal("not with skip_tokenizer_init")
    await run(engine)
    engine.status = 400
    await run(engine)


@pytest.mark.parametrize("kind", ["logprob_token_ids", "logprobs"])
async def test_an_engine_that_refuses_what_trials_need_cannot_have_adapters(
    engine: FakeEngine, kind: str
) -> None:
    engine.break_at[kind] = Refusal("max_logprobs is 0")
    await run(engine, trials=False)
    with pytest.raises(SelfTestFailed):
        await run(engine, trials=True)


async def test_it_does_not_wait_for_ever(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "WITHIN_S", 0.01)

    async def hang(*_: Any) -> None:
        await asyncio.Event().wait()

    app: Callable[..., Awaitable[None]] = hang
    with pytest.raises(SelfTestFailed, match="streamed") as failed:
        await SelfTest(engine, app, "base", ("generate",), trials=True).run()
    assert "within" in str(failed.value.__cause__)


# -- speech ------------------------------------------------------------------------------------------------


async def test_a_model_of_speech_has_silence_written_down(engine: FakeEngine) -> None:
    await run(engine, "transcription", trials=False)
    assert engine.asked == [], "it reads no prompts"
    ((path, form),) = engine.bodies
    assert path == "/v1/audio/transcriptions"
    assert (form["model"], form["language"]) == ("base", "en") and form["file"][1].startswith(b"RIFF")


async def test_a_model_of_speech_that_cannot_is_not_used(engine: FakeEngine) -> None:
    engine.status = 400
    with pytest.raises(SelfTestFailed, match="a transcription") as raised:
        await run(engine, "transcription", trials=False)
    assert "soundfile" in str(raised.value.__cause__)


async def test_adapters_of_a_model_that_only_writes_down_speech_are_refused_with_the_remedy(
    engine: FakeEngine,
) -> None:
    with pytest.raises(SelfTestFailed) as raised:
        await run(engine, "transcription", trials=True)
    assert "max_loras" in str(raised.value.__cause__)


async def test_a_chat_model_that_hears_too_is_used_without_its_hearing(engine: FakeEngine) -> None:
    await run(engine, "generate", "transcription")
    assert [path for path, _ in engine.bodies] == ["/v1/chat/completions", "/v1/audio/transcriptions"]

"""Has vLLM write down speech under a tenant's salt and in its turn, and tells what it took (vLLM 0.32).

Its forms for recordings have no field for salt and priority, and a whole answer does not say how many tokens
it took: only streams do, and whole answers are counted in the same way here.

A recording that is longer than what the model reads at once is cut; its parts run one after another, as vLLM
has them in streams, so that a request is one sequence of the engine, as the gateway counts it.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from engines.protocol import PRIORITY_HEADER, SALT_HEADER, USAGE_HEADER

COUNTS = "tenantry.counts"  # in a scope: `Counts`
DETECTION = "lang_detect"  # ends the id of the step that only finds out the language; streams do not count it
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(slots=True)
class Counts:
    """Tokens of one answer."""

    prompt_tokens: int = 0  # of the last part of the recording, as in vLLM's streams
    audio_tokens: int = 0  # of all of it
    completion_tokens: int = 0

    def header(self) -> tuple[bytes, bytes]:
        """Write them for the gateway."""
        usage = {
            "prompt_tokens": self.prompt_tokens + self.audio_tokens,
            "completion_tokens": self.completion_tokens,
        }
        return USAGE_HEADER.encode(), json.dumps({"usage": usage}).encode()


def telling_usage(scope: MutableMapping[str, Any], send: Send) -> Send:
    """Have a whole answer say how many tokens it took."""
    counts = scope[COUNTS] = Counts()

    async def send_told(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start" and counts.completion_tokens:
            message = {**message, "headers": [*message.get("headers", []), counts.header()]}
        await send(message)

    return send_told


def keep_tenancy(state: Any) -> None:
    """Have an app's answers to recordings heed salt and priority; `state` is the app's."""
    for name, method in (
        ("openai_serving_transcription", "create_transcription"),
        ("openai_serving_translation", "create_translation"),
    ):
        serving = getattr(state, name, None)
        if serving is not None:  # this model does speech
            setattr(serving, method, _answering(serving, getattr(type(serving), method)))


def _answering(serving: Any, answer: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def answer_in_turn(audio: bytes, request: Any, raw_request: Any = None) -> Any:
        told = {} if raw_request is None else raw_request.headers
        counts = Counts() if raw_request is None else raw_request.scope.get(COUNTS) or Counts()
        own = copy.copy(serving)  # all of its steps ask the engine by way of this attribute
        own.engine_client = _Client(serving.engine_client, told, counts)

        async def prepare(*given: Any, **named: Any) -> Any:
            inputs, duration_s, *more = await type(own)._preprocess_speech_to_text(own, *given, **named)
            tokens = own.model_cls.get_num_audio_tokens(duration_s, own.asr_config, own.model_config)
            counts.audio_tokens = tokens or 0
            return inputs, duration_s, *more

        own._preprocess_speech_to_text = prepare
        return await answer(own, audio, request, raw_request)

    return answer_in_turn


class _Client:
    """The engine, as one answer asks it."""

    def __init__(self, engine: Any, told: Mapping[str, str], counts: Counts) -> None:
        self._engine = engine
        self._salt = told.get(SALT_HEADER)
        priority = told.get(PRIORITY_HEADER)
        self._options: dict[str, int] = {} if priority is None else {"priority": int(priority)}
        self._counts = counts
        self._turn = asyncio.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(self, prompt: Any, params: Any, request_id: str, **options: Any) -> AsyncIterator[Any]:
        """Ask it, with the salt and the priority."""
        if self._salt is not None:
            prompt = salted(prompt, self._salt)
        outputs = self._engine.generate(prompt, params, request_id, **{**options, **self._options})
        return outputs if request_id.endswith(DETECTION) else self._counted(outputs)

    async def _counted(self, outputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async with self._turn:
            async for output in outputs:
                if output.prompt_token_ids is not None:
                    self._counts.prompt_tokens = len(output.prompt_token_ids)
                self._counts.completion_tokens += sum(len(each.token_ids) for each in output.outputs)
                yield output


def salted(prompt: Mapping[str, Any], salt: str) -> dict[str, Any]:
    """Return an engine's input with a salt; of an encoder and a decoder both have it."""
    parts = {name: prompt[name] for name in ("encoder_prompt", "decoder_prompt") if name in prompt}
    if not parts:
        return {**prompt, "cache_salt": salt}
    return {
        **prompt,
        **{name: {**part, "cache_salt": salt} for name, part in parts.items() if part is not None},
    }

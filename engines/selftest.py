"""Does this engine work? Tests the base model at start, before any client or adapter is admitted.

It sends the kinds of requests that trials and users send. vLLM compiles some kernels, as those for
log-probabilities, at the first request of their kind. They are compiled here: if that fails, the engine is at
fault, and not the first client.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from engines import forms
from engines.protocol import Kind
from engines.questions import GENERATED_TOKENS, PRIORITY, PROMPTS, Questions, are_finite

WITHIN_S = 600.0  # in all; the first compilation takes a minute or two on a slow CPU
SAMPLED = (
    {"temperature": 0.8, "top_p": 0.9, "top_k": 20, "seed": 1},
    {"temperature": 0.8, "top_p": 0.9},
    {"temperature": 1.0, "min_p": 0.1, "presence_penalty": 0.5, "repetition_penalty": 1.1},
)
SILENCE_S = 0.5  # of the recording
SCHEMA = {"type": "object", "properties": {"open": {"type": "boolean"}}, "required": ["open"]}
App = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]
log = logging.getLogger("tenantry.engine")


class _Refused(Exception):
    """vLLM's app refused a request."""


class SelfTestFailed(Exception):
    """The request that failed; its cause is the failure."""


class SelfTest:
    """Tests one engine, over vLLM's `AsyncLLM` and over its OpenAI app."""

    def __init__(
        self, engine: Any, app: App, model: str, tasks: Sequence[str], *, trials: bool, brief: bool = False
    ) -> None:
        """With `trials` the engine will try adapters: it must not refuse their kinds of requests.

        `brief`: an engine of the same files and settings has passed here, and this one answers as it did.
        """
        self._engine = engine
        self._app = app
        self._model = model
        self._tasks = tasks
        self._trials = trials
        self._brief = brief
        self._ask = Questions(engine, tasks, _as_it_is)

    async def run(self) -> None:
        """Return once every kind of request is answered. Raises `SelfTestFailed` from the failure."""
        kind, took_s = "start", {}
        try:
            async with asyncio.timeout(WITHIN_S):
                for kind, needed, ask in self._kinds():
                    started_s = time.monotonic()
                    await self._pass(kind, needed, ask)
                    took_s[kind] = time.monotonic() - started_s
        except TimeoutError as error:
            error.args = (f"no answer within {WITHIN_S:g} s",)
            raise SelfTestFailed(kind) from error
        except Exception as error:
            raise SelfTestFailed(kind) from error
        log.info("self-test passed: %s", ", ".join(f"{kind} {s:.1f} s" for kind, s in took_s.items()))

    def _kinds(self) -> list[tuple[str, bool, Callable[[], Awaitable[None]]]]:
        """The requests: (name, whether a refusal is a failure, the request)."""
        transcribes = "transcription" in self._tasks
        if transcribes and not self._ask.generates:
            if self._trials:
                raise RuntimeError(
                    "a model that only writes down speech has no prompts to try adapters with; set its "
                    "`max_loras` to 0"
                )
            return [("a transcription over HTTP", True, self._transcription)]
        if not self._ask.generates:
            kinds = [("an embedding over HTTP", False, self._embedding)] if "embed" in self._tasks else []
            return [("a vector", self._trials, self._vector), *kinds]
        if self._brief:
            return [("a streamed answer", False, self._streamed)]
        return [
            ("log-probabilities", self._trials, self._log_probabilities),
            ("a greedy answer", self._trials, self._greedy),
            ("sampled answers", False, self._sampled),
            ("a streamed answer", False, self._streamed),
            ("structured output", False, self._structured),
            *([("a transcription over HTTP", False, self._transcription)] if transcribes else []),
        ]

    async def _pass(self, kind: str, needed: bool, ask: Callable[[], Awaitable[None]]) -> None:
        from vllm.exceptions import VLLMClientError

        try:
            await ask()
        except (VLLMClientError, _Refused) as error:  # an engine's flags may exclude a kind
            if needed:
                raise
            log.warning("the engine refuses %s: %s", kind, error)

    async def _log_probabilities(self) -> None:
        _check(await self._ask.log_probabilities(self._ask.tokens(PROMPTS[0]), None))

    async def _greedy(self) -> None:
        _check(await self._ask.greedy(self._ask.tokens(PROMPTS[1]), None))

    async def _vector(self) -> None:
        _check(await self._ask.vector(self._ask.tokens(PROMPTS[0]), None))

    async def _sampled(self) -> None:
        for wanted in SAMPLED:
            await self._ask.generate(
                self._ask.tokens(PROMPTS[2]), None, max_tokens=GENERATED_TOKENS, min_tokens=1, **wanted
            )

    async def _structured(self) -> None:
        from vllm.sampling_params import StructuredOutputsParams

        await self._ask.generate(
            self._ask.tokens(PROMPTS[0]),
            None,
            max_tokens=GENERATED_TOKENS,
            structured_outputs=StructuredOutputsParams(json=SCHEMA),
        )

    async def _streamed(self) -> None:
        """Ask as a user does: in a chat, if the model has a template for it."""
        body: dict[str, Any] = {"max_tokens": GENERATED_TOKENS, "stream": True}
        if getattr(self._engine.get_tokenizer(), "chat_template", None):
            path = Kind.CHAT
            body["messages"] = [{"role": "user", "content": PROMPTS[0]}]
        else:
            path = Kind.COMPLETION
            body["prompt"] = self._ask.tokens(PROMPTS[0])
        answer = await self._post(path, body)
        if b"[DONE]" not in answer or b'"error"' in answer:
            raise RuntimeError(f"the stream broke off: {answer[-200:].decode(errors='replace')}")

    async def _embedding(self) -> None:
        await self._post(Kind.EMBEDDING, {"input": PROMPTS[0]})

    async def _transcription(self) -> None:
        """Have silence written down, in English: finding out the language is a step of its own."""
        body = forms.written([("model", self._model), ("language", "en")], forms.silence(SILENCE_S))
        try:
            await self._send(Kind.TRANSCRIPTION, body, forms.CONTENT_TYPE)
        except _Refused as error:
            error.args = (f"{error} (vLLM reads recordings with soundfile: is it installed?)",)
            raise

    async def _post(self, path: Kind, body: dict[str, Any]) -> bytes:
        """Ask as `_send`, in JSON."""
        body |= {"model": self._model, "cache_salt": secrets.token_hex(16), "priority": PRIORITY}
        return await self._send(path, json.dumps(body).encode(), "application/json")

    async def _send(self, path: Kind, body: bytes, content_type: str) -> bytes:
        """Ask vLLM's app in this process. Raises `_Refused`, or `RuntimeError` if it fails."""
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])
        status, answer = 0, bytearray()

        async def receive() -> dict[str, Any]:
            for message in messages:
                return message
            await asyncio.Event().wait()  # the client stays
            raise AssertionError

        async def send(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)
            answer.extend(message.get("body", b""))

        await self._app(_scope(path, content_type), receive, send)
        if status != 200:
            text = f"{path} answered {status}: {answer[:300].decode(errors='replace')}"
            raise _Refused(text) if 400 <= status < 500 else RuntimeError(text)
        return bytes(answer)


def _scope(path: Kind, content_type: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path.value,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"engine"), (b"content-type", content_type.encode())],
        "client": ("127.0.0.1", 0),
        "server": ("engine", 80),
    }


def _check(values: Sequence[float]) -> None:
    if not values:
        raise RuntimeError("it answers nothing")
    if not are_finite(values):
        raise RuntimeError("its answers are not finite numbers (NaN or infinite)")


async def _as_it_is(work: Any) -> Any:
    """A dead engine ends these calls itself."""
    return await work

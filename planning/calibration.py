"""Measures what an engine takes, by asking it: prompts of several lengths, batches, adapters. Takes minutes.

What it sees of each request goes the way of a ledger's records (`planning.fitting`): one way to make costs.
Every prompt is new, so that no prefix cache answers. For a machine that nobody else uses meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import httpx

from planning.requests import DemandError
from planning.served import Served

ENDPOINT = "/v1/completions"
TIMEOUT_S = 300.0
MAX_MODELS = 64
_WORDS = 12_000  # different ones, so that two prompts hardly share a beginning
_REPLICA = "calibrated"
_SHORT = 16  # tokens of a prompt where the answer is what counts
_PROBE = 16  # words of the first prompt, which tells how many tokens one takes


@dataclass(frozen=True, slots=True)
class Load:
    """Some requests that are sent at once."""

    models: tuple[str, ...]  # one for each request
    prompt: int  # tokens of each prompt, about
    tokens: int  # of each answer


@dataclass(frozen=True, slots=True)
class Extent:
    """How far an engine is tried."""

    longest: int = 1024  # tokens of the longest prompt
    batches: tuple[int, ...] = (1, 2, 4, 8, 16)
    tokens: int = 32  # of an answer in a batch
    repeats: int = 2

    @property
    def prompts(self) -> tuple[int, ...]:
        """Tokens of the prompts that are sent alone."""
        return tuple(max(8, self.longest // part) for part in (16, 8, 4, 2, 1))


def loads(models: Sequence[str], extent: Extent) -> Iterator[Load]:
    """Return what to send: prompts alone, then batches of the first model, then of more and more of them.

    Prompts go to the second model, too: to an adapter, where the first is its base model.
    """
    for _ in range(extent.repeats):
        for alone in models[:2]:
            for prompt in extent.prompts:
                yield Load((alone,), prompt, 2)
        for batch in extent.batches:
            yield Load((models[0],) * batch, _SHORT, extent.tokens)
        count = 2
        while count <= len(models):
            for batch in extent.batches:
                if batch >= count:
                    yield Load(tuple(islice(cycle(models[:count]), batch)), _SHORT, extent.tokens)
            count *= 2


async def calibrate(
    client: httpx.AsyncClient,
    models: Sequence[str],
    adapters: Sequence[str],
    *,
    extent: Extent,
    seed: int,
    progress: Callable[[int, int], None],
) -> Served:
    """Send every load, one after the other, and return what became of the requests.

    `client` knows address and key. `adapters` are the `models` that are adapters. Each model is asked once
    before anything counts: an adapter is loaded then, a model that sleeps comes awake. Raises `DemandError`.
    """
    if not 1 <= len(models) <= MAX_MODELS:
        raise DemandError(f"1 to {MAX_MODELS} models can be measured at once, not {len(models)}")
    chance = random.Random(seed)  # noqa: S311  # prompts, no secrets
    seen = [await _ask(client, model, _prompt(chance, _PROBE), 2) for model in models]
    per_word = max(1.0, seen[0].fresh / _PROBE)
    served = Served()
    planned = list(loads(models, extent))
    for done, load in enumerate(planned):
        progress(done, len(planned))
        words = max(1, int(load.prompt / per_word))
        asked = [_ask(client, model, _prompt(chance, words), load.tokens) for model in load.models]
        for model, one in zip(load.models, await asyncio.gather(*asked), strict=True):
            served.add(
                _REPLICA,
                model,
                model if model in adapters else "",
                granted_s=one.sent_s,
                run_s=one.run_s,
                tokens=(one.fresh, one.completion),
                first_s=one.first_s,
            )
    progress(len(planned), len(planned))
    return served


@dataclass(slots=True)
class _Seen:
    """What one request showed."""

    sent_s: float
    first_s: float = float("nan")
    run_s: float = 0.0
    fresh: float = 0.0  # prompt tokens that were not cached
    completion: float = 0.0


async def _ask(client: httpx.AsyncClient, model: str, prompt: str, tokens: int) -> _Seen:
    """Send one request and wait for its end. Raises `DemandError` for any answer but a whole stream."""
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": tokens,
        "min_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    seen = _Seen(time.monotonic())
    try:
        async with client.stream("POST", ENDPOINT, json=body, timeout=TIMEOUT_S) as answer:
            if answer.status_code != httpx.codes.OK:
                said = (await answer.aread()).decode(errors="replace")[:300]
                raise DemandError(f"{model} answers with status {answer.status_code}: {said}")
            async for line in answer.aiter_lines():
                _take(seen, line)
    except httpx.HTTPError as error:
        raise DemandError(f"{model} does not answer: {str(error) or type(error).__name__}") from None
    seen.run_s = time.monotonic() - seen.sent_s
    if seen.completion < 1:
        raise DemandError(f"{model} answers without saying its tokens: is it vLLM behind that address?")
    return seen


def _take(seen: _Seen, line: str) -> None:
    if not line.startswith("data: {"):
        return
    try:
        event = json.loads(line.removeprefix("data: "))
    except ValueError:
        return
    if event.get("choices") and seen.first_s != seen.first_s:  # NaN: nothing has come yet
        seen.first_s = time.monotonic() - seen.sent_s
    if usage := event.get("usage"):
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        seen.fresh = float(usage.get("prompt_tokens", 0) - cached)
        seen.completion = float(usage.get("completion_tokens", 0))


def _prompt(chance: random.Random, words: int) -> str:
    return " ".join(f"w{chance.randrange(_WORDS)}" for _ in range(words))

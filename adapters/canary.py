"""Does an adapter work on this engine? Its first trial: what it does to short prompts, before any client's.

The base model is asked twice, to see by how much two equal answers differ, then the adapter. An adapter that
changes no more than that serves the base model under a tenant's name; one whose numbers are not finite serves
noise. The prompts are few and short, run one after the other, under a random cache salt, so that nothing of
the trial is found by anybody.

Numbers that are not finite stay in the KV cache when a request ends, and an attention kernel that multiplies
what it masks by zero carries them into whoever gets that memory next (seen with vLLM's CPU kernel, 0.32). So
the cache is scrubbed after such a trial; and prompts fill whole blocks, since vLLM hands out a block that is
partly filled again at once, but a full one last.
"""

from __future__ import annotations

import itertools
import math
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from typing import Any

from adapters.residency import UNCHANGED, CanaryReport

PROMPTS = (
    "What are your opening hours on Sunday?",
    "Summarise: the parcel was late, so I would like my 30 dollars back.",
    "def add(first, second):\n    return",
)
GENERATED_TOKENS = 8
COMPARED_TOKENS = 64  # for each prompt, spread over the vocabulary
_PRIORITY = 0  # vLLM's: smaller comes first. It is short, and it holds a slot for as long as it takes
# In a 16-bit model the log-probability of a token moves by some thousandths where another kernel is chosen.
MIN_DIFFERENCE = 1e-3
NOISE_FACTOR = 4.0  # how far beyond two equal answers' difference
NOT_FINITE = "its answers are not finite numbers (NaN or infinite): its weights are too large, or broken"

Bounded = Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, Any]]


class Canary:
    """Trials on one running engine."""

    def __init__(self, engine: Any, tasks: Sequence[str], bounded: Bounded) -> None:
        """Take vLLM's `AsyncLLM`, its supported tasks, and what ends a call when the engine dies."""
        self._engine = engine
        self._generates = "generate" in tasks
        self._task = tasks[0]
        self._bounded = bounded

    async def run(self, request: Any, load_s: float) -> CanaryReport:
        """Try the adapter of a LoRARequest. Raises what vLLM raises."""
        base = await self._measure(None)
        again = await self._measure(None)
        adapted = await self._measure(request)
        reason, difference = judge(base, again, adapted)
        generated: list[float] = []
        if (not reason or reason.startswith(UNCHANGED)) and self._generates:
            generated = await self._generate(request)
            reason = judge_generation(generated) or reason
        if not _are_finite(adapted) or not _are_finite(generated):
            await self._bounded(self._engine.collective_rpc("tenantry_scrub"))
        return CanaryReport(not reason, reason, difference, load_s)

    async def _measure(self, request: Any) -> list[float]:
        measure = self._log_probabilities if self._generates else self._vector
        values: list[float] = []
        for prompt in PROMPTS:
            values += await measure(self._tokens(prompt), request)
            if not _are_finite(values):
                break  # no more of it than needed
        return values

    def _tokens(self, prompt: str) -> list[int]:
        """The prompt again and again, up to one whole block of the KV cache."""
        tokens: list[int] = self._engine.get_tokenizer().encode(prompt)
        limit = self._engine.model_config.max_model_len - GENERATED_TOKENS
        length = max(1, min(self._engine.vllm_config.cache_config.block_size, limit))
        return list(itertools.islice(itertools.cycle(tokens), length))

    async def _log_probabilities(self, tokens: list[int], request: Any) -> list[float]:
        """Log-probability of some tokens, the same ones each time, after the prompt.

        Not of the prompt's own: vLLM maps those to the wrong adapters, and ends where others run beside them
        (vllm-project/vllm#16668).
        """
        from vllm import SamplingParams

        size = self._engine.model_config.get_vocab_size()
        compared = [token * size // COMPARED_TOKENS for token in range(min(COMPARED_TOKENS, size))]
        wanted = SamplingParams(temperature=0.0, max_tokens=1, logprob_token_ids=compared)
        output = await self._ask(self._engine.generate, tokens, wanted, request)
        (choices,) = output.outputs[0].logprobs
        return [float(choices[token].logprob) for token in compared]

    async def _vector(self, tokens: list[int], request: Any) -> list[float]:
        """What a pooling model makes of the prompt, relative to its largest number."""
        from vllm import PoolingParams

        output = await self._ask(self._engine.encode, tokens, PoolingParams(task=self._task), request)
        values = [float(value) for value in output.outputs.data.flatten().tolist()]
        scale = max((abs(value) for value in values), default=0.0) or 1.0
        return [value / scale for value in values]

    async def _generate(self, request: Any) -> list[float]:
        """Log-probability of each token of a short greedy answer."""
        from vllm import SamplingParams

        wanted = SamplingParams(temperature=0.0, max_tokens=GENERATED_TOKENS, min_tokens=1, logprobs=0)
        output = await self._ask(self._engine.generate, self._tokens(PROMPTS[0]), wanted, request)
        answer = output.outputs[0]
        return [
            float(choices[token].logprob)
            for token, choices in zip(answer.token_ids, answer.logprobs, strict=True)
        ]

    async def _ask(
        self, run: Callable[..., AsyncIterator[Any]], tokens: list[int], params: Any, request: Any
    ) -> Any:
        prompt = {"prompt_token_ids": tokens, "cache_salt": secrets.token_hex(16)}
        outputs = run(
            prompt,
            params,
            f"tenantry-canary-{secrets.token_hex(8)}",
            lora_request=request,
            priority=_PRIORITY,
        )
        return await self._bounded(_last(outputs))


async def _last(outputs: AsyncIterator[Any]) -> Any:
    last = None
    async for output in outputs:
        last = output
    return last


def judge(base: Sequence[float], again: Sequence[float], adapted: Sequence[float]) -> tuple[str, float]:
    """Return (what is wrong, or nothing; largest change by the adapter). Pure."""
    if not _are_finite(adapted):
        return NOT_FINITE, 0.0
    if not _are_finite((*base, *again)):
        return "the base model's own answers are not finite numbers: look at this engine", 0.0
    if not adapted or len(adapted) != len(base):
        return "it answered with another number of values than the base model", 0.0
    noise, difference = _largest(zip(base, again, strict=True)), _largest(zip(base, adapted, strict=True))
    if difference <= max(MIN_DIFFERENCE, NOISE_FACTOR * noise):
        return (
            f"{UNCHANGED}: its tensors are zero, or none of them matches a module; check that it was trained "
            "and saved for this base model"
        ), difference
    return "", difference


def judge_generation(log_probabilities: Sequence[float]) -> str:
    """Return what is wrong with a generated answer, or nothing. Pure."""
    if not log_probabilities:
        return "it generates nothing"
    return "" if _are_finite(log_probabilities) else NOT_FINITE


def _are_finite(values: Iterable[float]) -> bool:
    return all(map(math.isfinite, values))


def _largest(pairs: Iterable[tuple[float, float]]) -> float:
    return max((abs(one - other) for one, other in pairs), default=0.0)

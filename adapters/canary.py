"""Does an adapter work on this engine? Its first trial: what it does to short prompts, before any client's.

The base model is asked twice, to see by how much two equal answers differ, then the adapter. An adapter that
changes no more than that serves the base model under a tenant's name; one whose numbers are not finite serves
noise. The prompts are few and short, run one after the other, under a random cache salt, so that nothing of
the trial is found by anybody.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from typing import Any

from adapters.residency import CanaryReport

PROMPTS = (
    "What are your opening hours on Sunday?",
    "Summarise: the parcel was late, so I would like my 30 dollars back.",
    "def add(first, second):\n    return",
)
GENERATED_TOKENS = 8
COMPARED_TOKENS = 64  # for each prompt, spread over the vocabulary
_MAX_PROMPT_TOKENS = 24
_PRIORITY = 0  # vLLM's: smaller comes first. It is short, and it holds a slot for as long as it takes
# In a 16-bit model the log-probability of a token moves by some thousandths where another kernel is chosen.
MIN_DIFFERENCE = 1e-3
NOISE_FACTOR = 4.0  # how far beyond two equal answers' difference

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
        if not reason and self._generates and not await self._generate(request):
            reason = "it generates nothing"
        return CanaryReport(not reason, reason, difference, load_s)

    async def _measure(self, request: Any) -> list[float]:
        measure = self._log_probabilities if self._generates else self._vector
        return [value for prompt in PROMPTS for value in await measure(self._tokens(prompt), request)]

    def _tokens(self, prompt: str) -> list[int]:
        tokens: list[int] = self._engine.get_tokenizer().encode(prompt)
        limit = min(_MAX_PROMPT_TOKENS, self._engine.model_config.max_model_len - GENERATED_TOKENS)
        return tokens[: max(1, limit)]

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

    async def _generate(self, request: Any) -> bool:
        from vllm import SamplingParams

        wanted = SamplingParams(temperature=0.0, max_tokens=GENERATED_TOKENS, min_tokens=1)
        output = await self._ask(self._engine.generate, self._tokens(PROMPTS[0]), wanted, request)
        return bool(output.outputs and output.outputs[0].token_ids)

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
    if not adapted or len(adapted) != len(base):
        return "it answered with other numbers of values than the base model", 0.0
    if not all(map(math.isfinite, adapted)):
        return (
            "its answers are not finite numbers (NaN or infinite): its weights are too large, or broken",
            0.0,
        )
    noise, difference = _largest(zip(base, again, strict=True)), _largest(zip(base, adapted, strict=True))
    if difference <= max(MIN_DIFFERENCE, NOISE_FACTOR * noise):
        return (
            "it answers like the base model: its tensors are zero, or none of them matches a module; "
            "check that it was trained and saved for this base model"
        ), difference
    return "", difference


def _largest(pairs: Iterable[tuple[float, float]]) -> float:
    return max((abs(one - other) for one, other in pairs), default=0.0)

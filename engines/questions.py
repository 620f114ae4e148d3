"""Short prompts of every kind that show whether an engine, or an adapter on it, works.

Each is sent under a random cache salt, so that no other request finds its blocks. Prompts fill whole blocks
of the KV cache: vLLM reuses a partly filled block at once, but a full one last, and numbers
that are not finite stay in it.
"""

from __future__ import annotations

import itertools
import math
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from typing import Any

PROMPTS = (
    "What are your opening hours on Sunday?",
    "Summarise: the parcel was late, so I would like my 30 dollars back.",
    "def add(first, second):\n    return",
)
GENERATED_TOKENS = 8
COMPARED_TOKENS = 64  # for each prompt, spread over the vocabulary
PRIORITY = 0  # vLLM's: smaller comes first. They are short, and hold a slot while they run

Bounded = Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, Any]]


class Questions:
    """Prompts to one running engine; each takes a LoRARequest, or None for the base model."""

    def __init__(self, engine: Any, tasks: Sequence[str], bounded: Bounded) -> None:
        """Take vLLM's `AsyncLLM`, its supported tasks, and `bounded`, which ends calls to a dead engine."""
        self._engine = engine
        self._task = tasks[0]
        self._bounded = bounded
        self.generates = "generate" in tasks

    def short(self, prompt: str) -> list[int]:
        """The prompt as it is, which takes a CPU a fraction of the time of a whole block."""
        tokens: list[int] = self._engine.get_tokenizer().encode(prompt)
        return tokens[: self._limit]

    def tokens(self, prompt: str) -> list[int]:
        """The prompt, repeated up to one whole block of the KV cache."""
        tokens = self.short(prompt)
        length = min(self._engine.vllm_config.cache_config.block_size, self._limit)
        return list(itertools.islice(itertools.cycle(tokens), length))

    @property
    def _limit(self) -> int:
        """Tokens of the longest prompt that leaves room for an answer."""
        return max(1, int(self._engine.model_config.max_model_len) - GENERATED_TOKENS)

    async def log_probabilities(self, tokens: list[int], request: Any) -> list[float]:
        """Log-probability of some tokens, the same ones each time, after the prompt.

        Not of the prompt's own: vLLM maps those to the wrong adapters, and ends where others run beside them
        (vllm-project/vllm#16668).
        """
        size = self._engine.model_config.get_vocab_size()
        compared = [token * size // COMPARED_TOKENS for token in range(min(COMPARED_TOKENS, size))]
        answer = await self.generate(
            tokens, request, temperature=0.0, max_tokens=1, logprob_token_ids=compared
        )
        (choices,) = answer.logprobs
        return [float(choices[token].logprob) for token in compared]

    async def vector(self, tokens: list[int], request: Any) -> list[float]:
        """A pooling model's vector for the prompt, divided by its largest number."""
        from vllm import PoolingParams

        output = await self._ask(self._engine.encode, tokens, PoolingParams(task=self._task), request)
        values = [float(value) for value in output.outputs.data.flatten().tolist()]
        scale = max((abs(value) for value in values), default=0.0) or 1.0
        return [value / scale for value in values]

    async def greedy(self, tokens: list[int], request: Any) -> list[float]:
        """Log-probability of each token of a short greedy answer."""
        answer = await self.generate(
            tokens, request, temperature=0.0, max_tokens=GENERATED_TOKENS, min_tokens=1, logprobs=0
        )
        return [
            float(choices[token].logprob)
            for token, choices in zip(answer.token_ids, answer.logprobs, strict=True)
        ]

    async def generate(self, tokens: list[int], request: Any, **wanted: Any) -> Any:
        """A whole answer, with these `SamplingParams` of vLLM."""
        from vllm import SamplingParams

        output = await self._ask(self._engine.generate, tokens, SamplingParams(**wanted), request)
        return output.outputs[0]

    async def _ask(
        self, run: Callable[..., AsyncIterator[Any]], tokens: list[int], params: Any, request: Any
    ) -> Any:
        prompt = {"prompt_token_ids": tokens, "cache_salt": secrets.token_hex(16)}
        outputs = run(
            prompt,
            params,
            f"tenantry-question-{secrets.token_hex(8)}",
            lora_request=request,
            priority=PRIORITY,
        )
        return await self._bounded(_last(outputs))


async def _last(outputs: AsyncIterator[Any]) -> Any:
    last = None
    async for output in outputs:
        last = output
    return last


def are_finite(values: Iterable[float]) -> bool:
    """Whether all of them are numbers."""
    return all(map(math.isfinite, values))

"""Does an adapter work on this engine? Its first trial: its effect on short prompts, before any client's.

The base model answers twice, to measure how much equal answers differ, then the adapter. An adapter that
changes no more than that serves the base model under a tenant's name; one whose numbers are not finite serves
noise. The prompts are few and short, and run one after the other.

Numbers that are not finite stay in the KV cache when a request ends, and an attention kernel that multiplies
masked values by zero carries them into that memory's next request (seen with vLLM's CPU kernel, 0.32). So
the cache is scrubbed after such a trial.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from engines.loader import EngineDied, reason_of
from engines.questions import PROMPTS, Bounded, Questions, are_finite
from engines.residency import UNCHANGED, TrialReport

# In a 16-bit model the log-probability of a token moves by some thousandths where another kernel is chosen.
MIN_DIFFERENCE = 1e-3
NOISE_FACTOR = 4.0  # times the difference of two equal answers
NOT_FINITE = "its answers are not finite numbers (NaN or infinite): its weights are too large, or broken"


class BaseModelFailed(Exception):
    """The engine failed on the base model alone, so the adapter is not to blame."""


class Trials:
    """Trials on one running engine."""

    def __init__(self, engine: Any, tasks: Sequence[str], bounded: Bounded) -> None:
        """Take vLLM's `AsyncLLM`, its supported tasks, and `bounded`, which ends calls to a dead engine."""
        self._engine = engine
        self._questions = Questions(engine, tasks, bounded)
        self._bounded = bounded

    async def run(self, request: Any, load_s: float) -> TrialReport:
        """Try the adapter of a LoRARequest. Raises vLLM's errors, and `BaseModelFailed`."""
        try:
            base, again = await self._measure(None), await self._measure(None)
        except EngineDied:
            raise
        except Exception as error:
            raise BaseModelFailed(f"the engine failed on the base model: {reason_of(error)}") from error
        if not are_finite((*base, *again)):
            raise BaseModelFailed("the base model's own answers are not finite numbers")
        adapted = await self._measure(request)
        reason, difference = judge(base, again, adapted)
        generated: list[float] = []
        if (not reason or reason.startswith(UNCHANGED)) and self._questions.generates:
            generated = await self._questions.greedy(self._questions.tokens(PROMPTS[0]), request)
            reason = judge_generation(generated) or reason
        if not are_finite(adapted) or not are_finite(generated):
            await self._bounded(self._engine.collective_rpc("tenantry_scrub"))
        return TrialReport(not reason, reason, difference, load_s)

    async def _measure(self, request: Any) -> list[float]:
        ask = self._questions
        measure = ask.log_probabilities if ask.generates else ask.vector
        values: list[float] = []
        for prompt in PROMPTS:
            values += await measure(ask.tokens(prompt), request)
            if not are_finite(values):
                break  # one fault is enough
        return values


def judge(base: Sequence[float], again: Sequence[float], adapted: Sequence[float]) -> tuple[str, float]:
    """Return (the fault, or ""; the largest change by the adapter). Pure."""
    if not are_finite(adapted):
        return NOT_FINITE, 0.0
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
    """Return the fault of a generated answer, or "". Pure."""
    if not log_probabilities:
        return "it generates nothing"
    return "" if are_finite(log_probabilities) else NOT_FINITE


def _largest(pairs: Iterable[tuple[float, float]]) -> float:
    return max((abs(one - other) for one, other in pairs), default=0.0)

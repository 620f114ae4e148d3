"""Does a model answer as it did? Asked after every switch, before anybody else may ask.

A switch in place can go wrong without an error: a tensor that was left out, an adapter of the former model, a
cache that was not emptied. So the greedy answers of the base model and of one adapter to a stored question
are kept from the first good load of that content, and must come back token for token.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from engines.questions import PROMPTS, Questions
from engines.switching import metrics
from engines.switching.live import LiveEngine, WaySpoiled

TOKENS = 16
ANSWER_WITHIN_S = 60.0
log = logging.getLogger("tenantry.engine")


class WakeCheck:
    """The answers that the models of one host gave at first, by content."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str], tuple[int, ...]] = {}  # (model's digest, adapter's id or "")

    def knows(self, live: LiveEngine, adapter: str) -> bool:
        """Whether an answer of this adapter on the live model is kept."""
        return live.identity is not None and (live.identity.digest, adapter) in self._answers

    async def verify(self, live: LiveEngine, *, is_new: bool, adapter: str = "", request: Any = None) -> None:
        """Ask the live model, or an adapter on it, and compare; or keep the answer if it is the first.

        Raises `WaySpoiled` if another answer comes back than was kept. An engine that `is_new`, and has
        passed its self-test, is believed instead: nothing better can be had. That too is counted.
        """
        if live.identity is None or "generate" not in live.tasks:
            return
        key = live.identity.digest, adapter
        answer = await self._ask(live, request)
        kept = self._answers.setdefault(key, answer)
        if kept == answer:
            return
        metrics.wake_check_failed()
        what = f"adapter {adapter}" if adapter else "the model"
        if not is_new:
            raise WaySpoiled(f"{what} does not answer as it did when it was first loaded")
        log.error(
            "%s: %s does not answer as it did when it was first loaded; this new engine's answer counts now",
            live.model.name,
            what,
        )
        self._answers[key] = answer

    async def _ask(self, live: LiveEngine, request: Any) -> tuple[int, ...]:
        questions = Questions(live.engine, live.tasks, _bounded(live))
        answer = await questions.generate(
            questions.tokens(PROMPTS[0]), request, temperature=0.0, max_tokens=TOKENS, min_tokens=1
        )
        return tuple(answer.token_ids)


def _bounded(live: LiveEngine) -> Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, Any]]:
    async def call(work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await live.call(work, ANSWER_WITHIN_S)
        except TimeoutError:
            raise WaySpoiled(f"no answer to the check within {ANSWER_WITHIN_S:g} s") from None

    return call

"""Does a model answer as it did? Asked after every switch, before anybody else may ask.

A switch in place can go wrong without an error: a tensor that was left out, an adapter of the former model, a
cache that was not emptied. So the greedy answers of the base model and of one adapter to a stored question
are kept from the first good load of that content, and must come back token for token.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from engines.questions import GENERATED_TOKENS, PROMPTS, Questions
from engines.residency import EngineAdapter
from engines.switching.live import LiveEngine, WaySpoiled

ANSWER_WITHIN_S = 60.0
log = logging.getLogger("tenantry.engine")
Answer = tuple[int, ...]


@dataclass(slots=True)
class _Kept:
    """The answers of one content."""

    of_model: Answer | None = None
    of_adapter: Answer | None = None
    adapter: EngineAdapter | None = None


class WakeCheck:
    """The answers that the models of one host gave at first."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}  # by the model's digest

    def adapter_of(self, live: LiveEngine) -> EngineAdapter | None:
        """Return the adapter whose answer on the live model is kept."""
        kept = self._kept.get(live.identity.digest) if live.identity is not None else None
        return kept.adapter if kept is not None else None

    def forget_adapter(self, live: LiveEngine) -> None:
        """Keep an answer of another adapter, at the next occasion."""
        if live.identity is not None and live.identity.digest in self._kept:
            self._kept[live.identity.digest].adapter = None
            self._kept[live.identity.digest].of_adapter = None

    async def answers_as_before(self, live: LiveEngine) -> bool:
        """Whether an answer of the live model is kept, and comes back. Raises what asking does.

        Where it does, `verify` need not ask this engine again.
        """
        kept = self._kept.get(live.identity.digest) if live.identity is not None else None
        if kept is None or kept.of_model is None or kept.of_model != await self._ask(live, None):
            return False
        live.is_confirmed = True
        return True

    async def verify(
        self,
        live: LiveEngine,
        *,
        is_new: bool,
        differs: Callable[[], None],
        adapter: EngineAdapter | None = None,
        request: Any = None,
    ) -> None:
        """Ask the live model, or an adapter on it, and compare; or keep the answer if it is the first.

        Raises `WaySpoiled` if another answer comes back than was kept. An engine that `is_new`, and has
        passed its self-test, is believed instead: nothing better can be had. `differs` is called either way.
        """
        if live.identity is None or "generate" not in live.tasks:
            return
        if adapter is None and live.is_confirmed:
            live.is_confirmed = False
            return
        answer = await self._ask(live, request)
        kept = self._kept.setdefault(live.identity.digest, _Kept())
        known = kept.of_model if adapter is None else kept.of_adapter
        if known is not None and known != answer:
            what = "the model" if adapter is None else f"adapter {adapter.id}"
            differs()
            if not is_new:
                raise WaySpoiled(f"{what} does not answer as it did when it was first loaded")
            log.error("%s: %s answers otherwise than at first; this new engine counts", live.model.name, what)
        if adapter is None:
            kept.of_model = answer
        else:
            kept.of_adapter, kept.adapter = answer, adapter

    async def _ask(self, live: LiveEngine, request: Any) -> Answer:
        questions = Questions(live.engine, live.tasks, _bounded(live))
        answer = await questions.generate(
            questions.short(PROMPTS[0]), request, temperature=0.0, max_tokens=GENERATED_TOKENS, min_tokens=1
        )
        return tuple(answer.token_ids)


def _bounded(live: LiveEngine) -> Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, Any]]:
    async def call(work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await live.call(work, ANSWER_WITHIN_S)
        except TimeoutError:
            raise WaySpoiled(f"no answer to the check within {ANSWER_WITHIN_S:g} s") from None

    return call

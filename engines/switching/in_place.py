"""Exchanges the weights of an engine that runs for another model's.

`reload` has vLLM read the other model's files into the tensors that it has; `put` copies weights that the
workers hold in host memory. Both are legal between models of the same shape alone. No request may run, and
none may come until it is done: it would be answered by the other model.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Any

from engines.switching.digest import Identity, changed_since
from engines.switching.holding import Holding
from engines.switching.library import Library
from engines.switching.live import LiveEngine, Model, WaySpoiled

# Bounds for what never ends otherwise. A reload reads all weights: 140 GB from a network's disk at 0.5 GB/s.
PAUSE_WITHIN_S = 60.0  # what ran has ended before; vLLM only has to notice
EXCHANGE_WITHIN_S = 600.0


class Means(StrEnum):
    """How the weights come."""

    PUT = "put"
    RELOAD = "reload"


class InPlace:
    """Exchanges of weights in the engines of one host."""

    def __init__(self, library: Library, holding: Holding) -> None:
        self._library = library
        self._holding = holding

    def why_not(self, means: Means, live: LiveEngine, model: Model) -> str:
        """Return why a model cannot come so into an engine, or "". Changes nothing, looks at files."""
        if live.engine.errored:
            return "the engine is dead"
        if live.identity is None:
            return "it is not known what the engine has"
        if "generate" not in live.tasks:
            return "it generates no text, so that no answer could be compared"
        if live.engine.model_config.is_multimodal_model:
            return "embeddings of other media than text would outlive its weights in vLLM's caches"
        if live.model.flags != model.flags:
            return "the engine was started with other flags"
        if str(live.engine.vllm_config.cache_config.cache_dtype).startswith("fp8"):
            return "the scales of an FP8 KV cache are not exchanged with the weights"
        if reason := self._library.why_not_alike(live.model, model):
            return reason
        here = self._library.identity(live.model)
        if here is None or here.digest != live.identity.digest:
            return "the files of what the engine has were changed since it read them"
        identity = self._library.identity(model)
        if means is Means.PUT and (identity is None or identity.digest not in live.held):
            return "its weights are not in host memory"
        return ""

    async def exchange(self, means: Means, live: LiveEngine, model: Model) -> None:
        """Give an engine another model's weights. Raises `WaySpoiled`: the engine is fit for nothing then."""
        try:
            identity = self._library.identity(model)
            if identity is None:
                raise WaySpoiled("its files changed at the last moment")
            await self._holding.keep(live, self._library.contents(live.model))
            # "wait" ends nothing; prefixes stay in the cache, each under its own model's salt.
            await live.call(live.engine.pause_generation(mode="wait", clear_cache=False), PAUSE_WITHIN_S)
            await live.call(self._bring(means, live, identity), EXCHANGE_WITHIN_S)
            live.now_has(model, identity)
            await live.call(live.engine.resume_generation(), PAUSE_WITHIN_S)
        except WaySpoiled:
            raise
        except Exception as error:
            raise WaySpoiled(f"{means}: {type(error).__name__}: {error}") from error

    async def _bring(self, means: Means, live: LiveEngine, identity: Identity) -> None:
        call: Any = live.engine.collective_rpc
        if means is Means.PUT:
            await call("tenantry_put", args=(identity.digest,))
            live.held.move_to_end(identity.digest)
            return
        await call("reload_weights", kwargs={"weights_path": str(identity.folder)})
        if changed := await asyncio.to_thread(changed_since, identity):
            raise WaySpoiled(f"{changed} was changed while the engine read it")

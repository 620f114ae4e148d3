"""Has an engine sleep, and wake up again: its process and CUDA graphs stay, the memory of its device is free.

At level 1 vLLM copies the weights to pinned memory of the host, at level 2 it drops them, and they are read
anew; the KV cache goes at both. It is vLLM's sleep mode (0.32: `--enable-sleep-mode`, on GPUs alone).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engines.switching.holding import HostMemory, host_memory
from engines.switching.library import Library
from engines.switching.live import LiveEngine, WaySpoiled

LEVELS = (1, 2)
# The first time takes long, since the memory is pinned then: 10 s for 16 GB, so 140 GB within this.
WITHIN_S = 300.0


class Sleep:
    """The sleep of one host's engines."""

    def __init__(self, library: Library, memory: Callable[[], HostMemory] = host_memory) -> None:
        self._library = library
        self._memory = memory
        self._pinned: set[int] = (
            set()
        )  # engines that have pinned memory: vLLM does not give it back on waking

    def level(self, live: LiveEngine, *, has_slots: bool) -> int:
        """Return the level at which an engine can sleep now; 0: it cannot.

        What is pinned at level 1 is counted before: without memory a machine ends processes of its choice.
        """
        settings = live.engine.vllm_config
        if not settings.model_config.enable_sleep_mode or live.identity is None:
            return 0
        # What nobody could compare afterwards, and what is known not to wake up as it was.
        if "generate" not in live.tasks or settings.model_config.is_hybrid:
            return 0
        if str(settings.cache_config.cache_dtype).startswith("fp8"):
            return 0
        contents = self._library.contents(live.model)
        if contents is None:
            return 0
        needed = 0 if id(live.engine) in self._pinned else contents.weight_bytes
        if needed <= self._memory().spare_bytes:
            return 1
        # vLLM crashes at level 2 with slots for adapters (vllm-project/vllm#39934).
        return 0 if has_slots or contents.is_quantised else 2

    async def sleep(self, live: LiveEngine, level: int) -> None:
        """Have an engine sleep, no request running on it. Raises `WaySpoiled`: then it is fit for nothing."""
        if level == 1:
            self._pinned.add(id(live.engine))
        await self._do(live, f"sleep at level {level}", live.engine.sleep(level=level, mode="wait"))

    async def wake(self, live: LiveEngine, level: int) -> None:
        """Have an engine wake up as it was, but for its KV cache. Raises `WaySpoiled`."""
        if level == 1:
            await self._do(live, "wake", live.engine.wake_up())
            return
        if live.identity is None:
            raise WaySpoiled("it is not known what the engine had")
        await self._do(live, "wake the weights", live.engine.wake_up(["weights"]))
        read = live.engine.collective_rpc(
            "reload_weights", kwargs={"weights_path": str(live.identity.folder)}
        )
        await self._do(live, "read the weights", read)
        await self._do(live, "wake the KV cache", live.engine.wake_up(["kv_cache"]))

    def ended(self, engine: Any) -> None:
        """Forget an engine."""
        self._pinned.discard(id(engine))

    async def _do(self, live: LiveEngine, what: str, call: Any) -> None:
        try:
            await live.call(call, WITHIN_S)
        except WaySpoiled:
            raise
        except Exception as error:
            raise WaySpoiled(f"it does not {what}: {type(error).__name__}: {error}") from error

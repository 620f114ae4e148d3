"""vLLM's calls about adapters; each ends with an error when the engine dies.

vLLM leaves calls pending for ever when its EngineCore dies (0.32, v1/engine/core_client.py:
`utility_results`), so each one here ends with `EngineDied` once the engine is declared dead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeVar

from adapters.errors import AdapterError
from engines.words import without_paths

T = TypeVar("T")
_MAX_REASON = 300


class EngineDied(Exception):
    """The engine has ended, or does not run; the call may or may not have had an effect."""


@dataclass(frozen=True, slots=True)
class WorkerTruth:
    """The adapters in vLLM's worker, by vLLM's numbers (`lora_int_id`)."""

    slots: tuple[int, ...]
    host: tuple[int, ...]  # least recently used first
    pinned: tuple[int, ...]
    activation_s: tuple[float, ...]  # moves from host memory into a slot since the last call
    slot_evictions: int  # since then


class LoraEngine:
    """vLLM's calls about adapters, for one engine from start to death."""

    def __init__(
        self, engine: Any, frontend: MutableMapping[str, Any], new_request: Callable[[str, int, str], Any]
    ) -> None:
        """Take vLLM's `AsyncLLM`, the `lora_requests` of its `OpenAIServingModels`, and `LoRARequest`."""
        self._engine = engine
        self._frontend = frontend
        self.new_request = new_request
        self._died: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def declare_dead(self) -> None:
        """End every pending call, and each later one at once."""
        if not self._died.done():
            self._died.set_result(None)

    def check_alive(self) -> None:
        """Raise `EngineDied` if the engine is known to be dead."""
        if self._engine.errored or self._died.done():
            raise EngineDied("the engine died")

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of `work`, or raise its error; `EngineDied` if the engine is dead."""
        task = asyncio.ensure_future(work)
        try:
            ends: set[asyncio.Future[Any]] = {task, self._died}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise EngineDied("the engine died")
            return task.result()
        except Exception:
            self.check_alive()
            raise
        finally:
            task.cancel()

    async def load(self, request: Any) -> None:
        """Load an adapter into the engine, then let requests name it. Raises `AdapterError`, `EngineDied`."""
        name = request.lora_name
        try:
            await self.call(self._engine.add_lora(request))
        except EngineDied:
            raise
        except Exception as error:
            raise AdapterError(f"vLLM refused adapter {name!r}: {reason_of(error)}") from error
        self._frontend[name] = request

    async def unload(self, request: Any) -> None:
        """Stop requests from naming the adapter, and free host memory and slot. Raises `EngineDied`."""
        self._frontend.pop(request.lora_name, None)
        await self.free(request)

    async def free(self, request: Any) -> None:
        """Free host memory and slot; requests may go on naming it once it is loaded again."""
        await self.call(self._engine.remove_lora(request.lora_int_id))

    async def pin(self, request: Any) -> None:
        """Give a loaded adapter a slot for good. Raises `EngineDied`, and vLLM's errors."""
        await self.call(self._engine.pin_lora(request.lora_int_id))

    async def unpin(self, request: Any) -> None:
        """Make the adapter evictable again. vLLM has no call for it (worker.py)."""
        await self.call(self._engine.collective_rpc("tenantry_unpin", args=(request.lora_int_id,)))

    async def truth(self) -> WorkerTruth:
        """Ask the first worker; all workers of an engine run the same calls in order (worker.py)."""
        answers = await self.call(self._engine.collective_rpc("tenantry_residency"))
        first = answers[0]
        return WorkerTruth(
            tuple(first["slots"]),
            tuple(first["host"]),
            tuple(first["pinned"]),
            tuple(first["activation_s"]),
            int(first["slot_evictions"]),
        )


def reason_of(error: BaseException) -> str:
    """Return a failure's reason in one short line, without paths of this machine."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = without_paths(text)
    return text if len(text) <= _MAX_REASON else f"{text[: _MAX_REASON - 3]}..."

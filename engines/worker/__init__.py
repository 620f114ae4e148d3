"""Our extension of vLLM's worker, for calls that vLLM lacks. vLLM loads it by --worker-extension-cls.

It lists the adapters in slots and host memory, and unpins one; it keeps whole models' weights in host memory
and puts them back (held.py). It relies on these of vLLM 0.32: `lora/model_manager.py`
(LRUCacheLoRAModelManager), `utils/cache.py` (LRUCache, `pinned_items`), and what held.py names.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from engines.worker import held

_MAX_TIMES = 1000  # kept between two queries, which come about once a second


class Activations:
    """Times of adapters' moves from host memory into a slot, and the number of evictions.

    On a GPU it is the time until the copies are ordered, not until they are done: waiting for them would stop
    the batch.
    """

    def __init__(self, manager: Any) -> None:
        """Watch vLLM's `LRUCacheLoRAModelManager`."""
        self._manager = manager
        self._activate: Callable[[int], bool] = manager.activate_adapter
        self._seconds: list[float] = []
        self._evictions = 0
        manager.activate_adapter = self.activate

    def activate(self, lora_id: int) -> bool:
        """Stand in for the manager's own `activate_adapter`."""
        active = self._manager._active_adapters
        evicts = lora_id not in active and len(active) >= self._manager.lora_slots
        started_s = time.perf_counter()
        moved = self._activate(lora_id)
        if moved:
            self._evictions += evicts
            if len(self._seconds) < _MAX_TIMES:
                self._seconds.append(time.perf_counter() - started_s)
        return moved

    def take(self) -> tuple[list[float], int]:
        """Return seconds of each move, and the number of evictions, since the last call."""
        taken = self._seconds, self._evictions
        self._seconds, self._evictions = [], 0
        return taken


class WorkerExtension:
    """Methods that vLLM adds to its worker class; called by `collective_rpc`, between two steps."""

    def tenantry_residency(self) -> dict[str, Any]:
        """Return vLLM's numbers of the adapters in slots, in host memory (oldest use first), and pinned."""
        manager = self._tenantry_manager()
        seconds, evictions = manager.tenantry_activations.take()
        return {
            "slots": [number for number in manager.lora_index_to_id if number is not None],
            "host": list(manager._registered_adapters.order),
            "pinned": sorted(manager._active_adapters.pinned_items),
            "activation_s": seconds,
            "slot_evictions": evictions,
        }

    def tenantry_unpin(self, lora_id: int) -> bool:
        """Unpin an adapter; return whether it was pinned."""
        manager = self._tenantry_manager()
        was_pinned = lora_id in manager._active_adapters.pinned_items
        manager._active_adapters.pinned_items.discard(lora_id)
        manager._registered_adapters.pinned_items.discard(lora_id)
        return was_pinned

    def tenantry_scrub(self) -> int:
        """Put zeros where the KV cache holds numbers that are not finite; return the number of tensors.

        Reads and writes all of the cache: for the rare adapter that causes such numbers.
        """
        import torch

        caches = [cache for cache in self.model_runner.kv_caches if cache.is_floating_point()]  # type: ignore[attr-defined]
        for cache in caches:
            torch.nan_to_num(cache, nan=0.0, posinf=0.0, neginf=0.0, out=cache)
        return len(caches)

    def tenantry_hold(self, digest: str) -> int:
        """Keep a copy of the weights that are live now under their model's digest; return its bytes.

        Raises `CannotHold`, and what torch raises where memory runs out; the engine goes on unharmed.
        """
        copies = self._tenantry_held()
        copies[digest] = held.copy_of(self.model_runner.get_model())  # type: ignore[attr-defined]
        return copies[digest].size_bytes

    def tenantry_put(self, digest: str) -> None:
        """Put weights that are held in the place of the live ones, and forget what came of those.

        Any error leaves the engine fit for nothing. What is forgotten is what vLLM's own reload forgets.
        """
        runner = self.model_runner  # type: ignore[attr-defined]
        held.put(runner.get_model(), self._tenantry_held()[digest])
        runner.reset_lora_state()
        runner.reset_encoder_cache()
        runner.reset_mm_cache()

    def tenantry_drop(self, digest: str) -> None:
        """Free the copy of a model's weights, if there is one."""
        self._tenantry_held().pop(digest, None)

    def _tenantry_held(self) -> dict[str, held.Weights]:
        if not hasattr(self, "_tenantry_copies"):
            self._tenantry_copies: dict[str, held.Weights] = {}
        return self._tenantry_copies

    def _tenantry_manager(self) -> Any:
        manager = self.model_runner.lora_manager._adapter_manager  # type: ignore[attr-defined]
        if not hasattr(manager, "tenantry_activations"):
            manager.tenantry_activations = Activations(manager)
        return manager

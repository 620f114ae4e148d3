"""The KV cache that fits a slice beside the weights and the adapters' slots. Pure.

vLLM is told it in bytes: what it would work out for itself follows from figures that it reads of the whole
GPU, and a model that cannot fit is refused before minutes of loading.
"""

from __future__ import annotations

from dataclasses import dataclass

from engines.devices.layout import Slice, SliceError
from fleet.types import BaseModel

DEFAULT_UTILIZATION = 0.92  # vLLM 0.32, `CacheConfig.gpu_memory_utilization`
# What an engine holds besides weights, slots and KV cache: activations of its largest batch and CUDA graphs.
# An assumption on the safe side, not measured on a slice: `kv_cache_gib` replaces what follows from it.
WORKSPACE_BYTES = 2 * 2**30
_LORA_ITEM_BYTES = 2  # slots have the model's type, which takes two bytes


@dataclass(frozen=True, slots=True)
class Needs:
    """What an engine holds besides its KV cache, in bytes."""

    weights: int
    slots: int = 0


def slots_bytes(sizes: int, model: BaseModel) -> int:
    """Return the bytes of an engine's adapter slots; `sizes` are the inputs and outputs of all modules."""
    return sizes * model.max_lora_rank * model.max_loras * _LORA_ITEM_BYTES


def kv_cache_bytes(one: Slice, model: BaseModel, needs: Needs | None) -> int | None:
    """Return the KV cache for an engine on this slice, in bytes; None: the engine measures it.

    It does that where nobody knows its `needs` and the fleet file sets no size. Raises `SliceError` where
    weights and cache do not fit.
    """
    if needs is None:
        if model.kv_cache_bytes is not None and model.kv_cache_bytes >= one.memory_bytes:
            raise SliceError(f"{_has(one)}, and kv_cache_gib asks for {_gib(model.kv_cache_bytes)}")
        return model.kv_cache_bytes
    held = needs.weights + needs.slots
    if model.kv_cache_bytes is not None:
        if held + model.kv_cache_bytes > one.memory_bytes:
            raise SliceError(
                f"{_has(one)}; {_what(model, needs)}, and kv_cache_gib asks for {_gib(model.kv_cache_bytes)}"
            )
        return model.kv_cache_bytes
    utilization = model.gpu_memory_utilization or DEFAULT_UTILIZATION
    left = int(one.memory_bytes * utilization) - held - WORKSPACE_BYTES
    if left <= 0:
        raise SliceError(
            f"{_has(one)}, of which an engine may take {utilization:.0%}; {_what(model, needs)} and "
            f"{_gib(WORKSPACE_BYTES)} of work space, so nothing is left for a KV cache"
        )
    return left


def _has(one: Slice) -> str:
    return f"slice {one.uuid} ({one.profile}) has {_gib(one.memory_bytes)}"


def _what(model: BaseModel, needs: Needs) -> str:
    slots = f", its adapter slots {_gib(needs.slots)}" if needs.slots else ""
    return f"the weights of {model.name} take {_gib(needs.weights)}{slots}"


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"

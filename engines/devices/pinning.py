"""Prepares the start of an engine on its MIG slice: that it is there, what it is called, what fits it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from adapters.base_model import find_shape, find_weight_bytes
from adapters.errors import AdapterError
from engines.devices.kv_cache import Needs, kv_cache_bytes, slots_bytes
from engines.devices.layout import DEVICES_VARIABLE, SliceError
from engines.devices.nvml import NoNvml, read_machine
from fleet.mig import SliceName
from fleet.types import BaseModel
from fleet.vllm_flags import resizes_weights

log = logging.getLogger("tenantry.engine")


@dataclass(frozen=True, slots=True)
class Pin:
    """How an engine starts on its slice."""

    environment: dict[str, str]
    model: BaseModel  # with the KV cache that fits; without one the engine measures what is left


def pin(wanted: SliceName | None, model: BaseModel, *, on_cpu: bool) -> Pin:
    """Find the slice of an engine, and the KV cache that fits it; None: it needs none. Raises `SliceError`.

    It is found again before each start: slices may be made anew, or be gone, while an engine is down.
    """
    if wanted is None:
        return Pin({}, model)
    if on_cpu:
        raise SliceError(f"slice {wanted} cannot be used: the installed vLLM is the one for CPUs")
    try:
        gpu, one = read_machine().find(wanted)
    except NoNvml as error:
        raise SliceError(f"slice {wanted} is not there: {error}") from None
    cache = kv_cache_bytes(one, model, _needs(model))
    told = "measured by the engine" if cache is None else f"{cache / 2**30:.2f} GiB"
    log.info(
        "%s: slice %s (%s of GPU %d), %.2f GiB, KV cache %s",
        *(model.name, one.uuid, one.profile, gpu.index, one.memory_bytes / 2**30, told),
    )
    return Pin({DEVICES_VARIABLE: one.uuid}, replace(model, kv_cache_bytes=cache))


def _needs(model: BaseModel) -> Needs | None:
    """Return what the engine holds, as far as the model's files tell it; they are read, never fetched."""
    if resizes_weights(model.vllm_args):
        return None
    try:
        weights = find_weight_bytes(model.source, model.revision, dtype=model.dtype)
    except AdapterError:
        return None  # the engine says what is wrong with them
    if weights is None:
        return None
    shape = find_shape(model.source, model.revision) if model.serves_adapters else None
    sizes = 0
    for module in shape.modules.values() if shape is not None else ():
        sizes += ((module.inputs or 0) + (module.outputs or 0)) * max(module.experts, 1)
    return Needs(weights, slots_bytes(sizes, model))

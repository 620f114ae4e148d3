"""What is an engine started with? vLLM's arguments for its base model, and the MIG slice that it has."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, replace

from engines.devices.layout import SliceError
from engines.devices.pinning import pin
from engines.vllm_args import engine_args
from fleet.mig import SliceName
from fleet.types import BaseModel


@dataclass(frozen=True, slots=True)
class Recipe:
    """What every engine of one replica is started with, whatever the settings of its base model."""

    shutdown_grace_s: float
    on_cpu: bool  # vLLM is the build for CPUs
    traces_endpoint: str | None
    on_slice: SliceName | None  # None: it is pinned to none

    async def arguments(self, model: BaseModel) -> list[str]:
        """Return the next engine's arguments; on a slice with the KV cache that fits. Raises `SliceError`."""
        if self.on_slice is not None:
            if self.on_cpu:
                raise SliceError(
                    f"slice {self.on_slice} cannot be used: the installed vLLM is the one for CPUs"
                )
            pinned = await asyncio.to_thread(pin, self.on_slice, model)
            os.environ.update(pinned.environment)
            model = replace(model, kv_cache_bytes=pinned.kv_cache_bytes)
        return engine_args(
            model,
            shutdown_grace_s=self.shutdown_grace_s,
            on_cpu=self.on_cpu,
            traces_endpoint=self.traces_endpoint,
        )

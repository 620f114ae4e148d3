"""Keeps the adapters of one engine as the gateway wants them, from its start until its end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence

from engines.built import Built
from engines.loader import AdapterLoader, FolderOf, LoraEngine, Reconciler
from engines.residency import FaultKind
from engines.trial import Trials
from fleet.types import BaseModel

ADAPTER_NUMBERS: Iterator[int] = itertools.count(1)  # vLLM's lora_int_id, never used twice in an engine


def keep_adapters(
    stack: contextlib.AsyncExitStack,
    built: Built,
    tasks: Sequence[str],
    model: BaseModel,
    reconciler: Reconciler,
    blame: Callable[[str, FaultKind, str], None],
    folder_of: FolderOf,
) -> tuple[AdapterLoader, Trials]:
    """Bring the engine to the desired adapters in the background; the stack ends that.

    `blame` is told of an adapter's failures, `folder_of` gives its files.
    """
    from vllm.lora.request import LoRARequest

    engine = built.engine
    lora_engine = LoraEngine(engine, built.app.state.openai_serving_models.lora_requests, LoRARequest)
    loader = AdapterLoader(
        lora_engine,
        slots=model.max_loras,
        places=max(model.max_cpu_loras, model.max_loras),
        numbers=ADAPTER_NUMBERS,
        blame=blame,
        metrics=reconciler.metrics,
        folder_of=folder_of,
    )
    reconciling = asyncio.create_task(reconciler.run(loader))
    stack.push_async_callback(cancel, reconciling)
    stack.callback(lora_engine.declare_dead)
    return loader, Trials(engine, tasks, lora_engine.call)


async def cancel(task: asyncio.Task[None]) -> None:
    """End a task, and wait for its end."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

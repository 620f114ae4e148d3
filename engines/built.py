"""An engine as it was started, and as it runs, with its app and its adapters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry

from engines.heartbeat import Heartbeat
from engines.in_flight import InFlight
from engines.loader import AdapterLoader
from engines.trial import Trials


@dataclass(slots=True, eq=False)
class Built:
    """An engine whose processes run, with one app from its start to its end.

    An app that is made anew for each model would stay in memory: vLLM has the garbage collector pass over all
    that is there once an app has started (0.32, entrypoints/launchers/utils/server_utils.py).
    """

    args: Any  # vLLM's parsed flags
    engine: Any  # vLLM's AsyncLLM
    marked: str  # the replica that its processes are marked with: the one for which they were started
    metrics: CollectorRegistry  # the engine's
    app: Any = None  # vLLM's FastAPI app
    closing: AsyncExitStack = field(default_factory=AsyncExitStack)  # ends the app


Source = Callable[[], Awaitable[Built]]  # where the next engine of a replica comes from


@dataclass(frozen=True, slots=True)
class Running:
    """An engine that has passed its self-test, with its app and its loader."""

    engine: Any  # vLLM's AsyncLLM
    app: Any  # vLLM's FastAPI app
    loader: AdapterLoader | None = None  # None for an engine without slots
    trials: Trials | None = None
    heartbeat: Heartbeat | None = None
    built: Built | None = None
    in_flight: InFlight = field(default_factory=InFlight)

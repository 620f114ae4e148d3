"""An engine as it was started, and as it runs, with its app and its adapters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry

from engines.heartbeat import Heartbeat
from engines.in_flight import InFlight
from engines.loader import AdapterLoader
from engines.trial import Trials


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """An engine whose processes run."""

    args: Any  # vLLM's parsed flags
    engine: Any  # vLLM's AsyncLLM
    marked: str  # the replica that its processes are marked with: the one for which they were started
    metrics: CollectorRegistry  # the engine's


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

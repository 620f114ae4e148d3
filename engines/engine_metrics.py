"""The metrics page of one replica: its engine's own metrics and its adapters'; vLLM's are kept bounded.

vLLM keeps its metrics in the process's registry, and takes those of one engine away when it makes another.
So each engine's are moved to a registry of their own as soon as they are made: engines of several replicas in
one process never show on each other's page.

`vllm:lora_requests_info` has a series for each set of adapters that ever ran or waited together, in each
order: with many adapters that is one for nearly every step. A histogram keeps the sets' sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from engines.loader import AdapterMetrics
from engines.switching.metrics import SwitchingMetrics

# Labels with unbounded values. vLLM's others are configured, or one of a few words.
ENDLESS = frozenset({"running_lora_adapters", "waiting_lora_adapters", "lora_name", "request_id"})
OF_ENGINE = "vllm:"  # what the metrics of an engine begin with
OF_APP = "http_"  # and those of its OpenAI app
# One counter for all engines of a process, labelled with the model of the app that was made last.
OF_PROCESS = frozenset({"vllm:tool_call_parser_invocations"})

_SETS = ("running_lora_adapters", "waiting_lora_adapters")


class EngineMetrics:
    """What one replica shows: of its engine, of the engine's app, of its adapters."""

    def __init__(self, *, alone: bool = True) -> None:
        """With `alone` the process has no other replica, so that the page shows the process as well."""
        self.adapters = AdapterMetrics()
        self.switching = SwitchingMetrics()
        self.engine = CollectorRegistry()  # of the last engine
        self._alone = alone

    def page(self) -> bytes:
        """Return the page, as Prometheus reads it."""
        registries = [
            self.engine,
            self.adapters.registry,
            self.switching.registry,
            *([REGISTRY] if self._alone else []),
        ]
        return b"".join(map(generate_latest, registries))


def take(prefix: str, into: CollectorRegistry, source: CollectorRegistry = REGISTRY) -> None:
    """Move what an engine or its app has just put into the process's registry."""
    for collector in list(source._collector_to_names):
        name = getattr(collector, "_name", "")
        if name.startswith(prefix) and name not in OF_PROCESS:
            source.unregister(collector)
            into.register(collector)


class _Unkept:
    """Accepts every measurement, and keeps none."""

    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: None


_UNKEPT = _Unkept()


def keep_bounded(registry: CollectorRegistry, in_flight: Callable[[int], None]) -> list[str]:
    """Remove metrics with unbounded labels from a page and from memory; return their names.

    vLLM's objects keep their metrics, which make no more series. `in_flight` gets the size of each set of
    adapters.
    """

    def unkept(*_: object, **labels: object) -> _Unkept:
        """Stand in for a metric's `labels`: record the set's size, and make no series."""
        if all(name in labels for name in _SETS):
            in_flight(len({one for name in _SETS for one in str(labels[name]).split(",") if one}))
        return _UNKEPT

    dropped = []
    for collector in list(registry._collector_to_names):
        if ENDLESS.isdisjoint(getattr(collector, "_labelnames", ())):
            continue
        registry.unregister(collector)
        collector.clear()  # type: ignore[attr-defined]
        collector.labels = unkept  # type: ignore[attr-defined]
        dropped.append(collector._name)  # type: ignore[attr-defined]
    return dropped

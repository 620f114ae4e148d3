"""Which of vLLM's metrics stay bounded? Those whose labels name sets of adapters, or requests, do not.

`vllm:lora_requests_info` has a series for each set of adapters that ever ran or waited together, in each
order: with many adapters that is one for nearly every step. How many they were is kept, in a histogram.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry

from engines.loader.metrics import in_flight

# Labels whose values never end. vLLM's others are configured, or one of a few words.
ENDLESS = frozenset({"running_lora_adapters", "waiting_lora_adapters", "lora_name", "request_id"})

_SETS = ("running_lora_adapters", "waiting_lora_adapters")


class _Unkept:
    """Takes every measurement, and keeps none."""

    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: None


_UNKEPT = _Unkept()


def _unkept(*_: object, **labels: object) -> _Unkept:
    """Stand in for a metric's `labels`: note how many adapters a set has, and make no series."""
    if all(name in labels for name in _SETS):
        in_flight(len({one for name in _SETS for one in str(labels[name]).split(",") if one}))
    return _UNKEPT


def keep_bounded(registry: CollectorRegistry = REGISTRY) -> list[str]:
    """Take metrics with endless labels off the page and out of memory; return their names.

    Whoever measures keeps its metric, which makes no more series. Call it for every engine: each has its own.
    """
    dropped = []
    for collector in list(registry._collector_to_names):
        if ENDLESS.isdisjoint(getattr(collector, "_labelnames", ())):
            continue
        registry.unregister(collector)
        collector.clear()  # type: ignore[attr-defined]
        collector.labels = _unkept  # type: ignore[attr-defined]
        dropped.append(collector._name)  # type: ignore[attr-defined]
    return dropped

"""Keeps vLLM's metrics bounded: drops those whose labels name sets of adapters, or requests.

`vllm:lora_requests_info` has a series for each set of adapters that ever ran or waited together, in each
order: with many adapters that is one for nearly every step. A histogram keeps the sets' sizes.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry

from engines.loader.metrics import in_flight

# Labels with unbounded values. vLLM's others are configured, or one of a few words.
ENDLESS = frozenset({"running_lora_adapters", "waiting_lora_adapters", "lora_name", "request_id"})

_SETS = ("running_lora_adapters", "waiting_lora_adapters")


class _Unkept:
    """Accepts every measurement, and keeps none."""

    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: None


_UNKEPT = _Unkept()


def _unkept(*_: object, **labels: object) -> _Unkept:
    """Stand in for a metric's `labels`: record the set's size, and make no series."""
    if all(name in labels for name in _SETS):
        in_flight(len({one for name in _SETS for one in str(labels[name]).split(",") if one}))
    return _UNKEPT


def keep_bounded(registry: CollectorRegistry = REGISTRY) -> list[str]:
    """Remove metrics with unbounded labels from the page and from memory; return their names.

    vLLM's objects keep their metrics, which make no more series. Call it for every engine: each has its own.
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

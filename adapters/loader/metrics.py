"""How long do loads take, how often is an adapter put out, how many are there? For the engine's page."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

LOAD_SECONDS = Histogram(
    "tenantry_adapter_load_seconds",
    "Time to bring an adapter one tier up: 'disk' into host memory, 'host' into a slot.",
    ("tier",),
    buckets=_BUCKETS_S,
)
EVICTIONS = Counter(
    "tenantry_adapter_evictions", "Adapters that made way for another one, by what they left.", ("from",)
)
RESIDENT = Gauge(
    "tenantry_adapters_resident", "Adapters in the engine: in 'host' memory, in a 'slot'.", ("tier",)
)
PINNED = Gauge("tenantry_adapters_pinned", "Adapters that hold a slot for good.")


def evicted(tier: str, count: int = 1) -> None:
    """Count adapters that left `tier`, "slot" or "host", for another one."""
    EVICTIONS.labels(**{"from": tier}).inc(count)


def residents(*, slots: int, host: int, pinned: int) -> None:
    """Show how many adapters are where."""
    RESIDENT.labels("slot").set(slots)
    RESIDENT.labels("host").set(host)
    PINNED.set(pinned)


for _tier in ("slot", "host"):  # there from the start, so that a rate over them begins at zero
    evicted(_tier, 0)
LOAD_SECONDS.labels("disk")
LOAD_SECONDS.labels("host")

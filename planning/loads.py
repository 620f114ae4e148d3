"""What does a unit ask of one device? Its memory, the time it takes, how often it is wanted. Pure.

All at its busiest hour. Loads are fractions of a device: 1 is an engine with a full batch all the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from planning.measuring import hour_lengths
from planning.units import Unit
from planning.values import Device, Model, ModelDemand, ServingCost

CostOf = Callable[[Model, Device], ServingCost]
MOST_SEQUENCES = 256  # vLLM --max-num-seqs, as the fleet's default
MOST_SLOTS = 32  # more cost more per step than waiting for one does (docs/simulator.md)
ENGINE_BYTES = 3 * 2**29  # beside weights, slots and cache: CUDA context, graphs, activations
USABLE = 0.9  # of a device's memory, as vLLM's --gpu-memory-utilization
BURST = 3.0  # standard deviations above the mean that a cache has room for
HOST_PLACES = 128  # adapters in host memory of one engine


@dataclass(frozen=True, slots=True)
class Load:
    """A unit on one kind of device."""

    unit: Unit
    cost: ServingCost
    rate_per_s: float  # requests, at its busiest hour
    alone_s: float  # a request of it, alone on the device: first and last token
    first_s: float  # its prompt alone
    load: float  # part of a device's time with full batches
    active: float  # chance that something of it runs at a moment, alone on a device
    slots: int
    kv_tokens: int  # that its cache needs
    weight_bytes: int  # of each of its devices
    need_bytes: int  # of each of its devices, while it is awake

    @property
    def devices(self) -> int:
        """Devices of one engine."""
        return self.unit.base.tensor_parallel


def peak_rate(demand: ModelDemand, duration_s: float) -> float:
    """Requests a second in the busiest hour."""
    if not demand.hourly:
        return demand.rate(duration_s)
    return float((np.asarray(demand.hourly) / hour_lengths(len(demand.hourly), duration_s)).max())


def load_of(unit: Unit, device: Device, cost_of: CostOf, duration_s: float) -> Load:
    """Return what a unit asks of one kind of device."""
    cost = cost_of(unit.base, device)
    rates = [(one, peak_rate(one, duration_s)) for one in unit.demands]
    rate = sum(part for _, part in rates)
    prompt = _mean(rates, lambda d: d.prompt.mean * (1 - d.cached))
    base = unit.base.name
    of_adapters = _mean(rates, lambda d: 0.0 if d.model == base else d.prompt.mean * (1 - d.cached))
    completion = max(1.0, _mean(rates, lambda d: d.completion.mean))
    held = _mean(rates, lambda d: d.prompt.mean) + completion
    longest = max(d.prompt.p99 + d.completion.p99 for d in unit.demands)
    slots = slots_of(unit)
    first_s = cost.prefill_s(prompt, of_adapters)
    alone_s = first_s + completion * cost.step_s(1, min(1, slots), slots)
    at_once = rate * 2 * alone_s
    parts = unit.base.tensor_parallel
    weight_bytes = unit.base.weight_bytes // parts
    slot_bytes = unit.base.slots_bytes(slots, unit.most_rank) // parts
    room = device.memory_bytes * USABLE - weight_bytes - slot_bytes - ENGINE_BYTES
    fit = max(1.0, room * parts / max(1, unit.base.kv_bytes_per_token) / held)
    batch = min(float(MOST_SEQUENCES), fit)
    # What does not fit into one batch runs on another copy, or waits: no engine holds it.
    usual = held * min(batch, at_once + BURST * math.sqrt(at_once))
    kv_tokens = max(math.ceil(longest), unit.base.max_model_len or 0, int(usual))
    cache_bytes = kv_tokens * unit.base.kv_bytes_per_token // parts
    adapters = min(slots, batch, len(unit.adapters))
    work_s = prompt * cost.prefill_token_s.value + of_adapters * cost.adapter_token_s.value
    work_s += completion * cost.step_s(batch, adapters, slots) / batch
    return Load(
        unit,
        cost,
        rate,
        alone_s,
        first_s,
        rate * work_s,
        1.0 - math.exp(-rate * alone_s),
        slots,
        kv_tokens,
        weight_bytes,
        weight_bytes + cache_bytes + slot_bytes + ENGINE_BYTES,
    )


def slots_of(unit: Unit) -> int:
    """Return how many adapters an engine of a unit runs at once: all, up to a bound."""
    return min(len(unit.adapters), MOST_SLOTS)


def _mean(rates: list[tuple[ModelDemand, float]], of: Callable[[ModelDemand], float]) -> float:
    """Average over requests."""
    whole = sum(rate for _, rate in rates)
    return sum(of(demand) * rate for demand, rate in rates) / whole if whole else 0.0

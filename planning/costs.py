"""What does it take to serve a model on a device? The best figure of each, and where it is from. Pure.

1. Measured: by this fleet, or by a calibration of its engine, of this model or one of its shape.
2. Roofline: bytes to read and multiplications to do, by what the device does at most, times what engines
   reach of that.
3. Given: by hand, or from public measurements.

A figure measured on one device goes to another by the ratio of their rooflines, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from planning.values import Device, Figure, Model, ServingCost, Source, Way

# What engines reach of the data sheet. With these an 8B model in 16 bits on a GPU of 2.02 TB/s has an empty
# step of 12.9 ms; 13.3 ms were measured (vLLM 0.8, the hour-long runs of
# FerranAgulloLopez/GPULLMAdapterOptimization).
BANDWIDTH_REACHED = 0.8
FLOPS_REACHED = 0.6
STEP_S = 3e-3  # scheduling, launching kernels, sampling: each step, whatever is in it
SEQUENCE_S = 2e-5  # sampling and detokenizing, for each sequence
REQUEST_S = 0.01  # gateway, tokenizer, transport
TENSOR_PARALLEL_REACHED = 0.85  # of several devices together, for all-reduces
DISK_BYTES_PER_S = 2e9  # of one NVMe disk
COLD_S = 40.0  # start of a process, compilation and graphs; 23 s eager and 41 s compiled were measured
USUAL_CONTEXT = 1000.0  # tokens of a sequence in mid-answer

# What adapters cost, as parts of an empty step: fitted to the same runs at rank 16 (8 to 384 adapters, as
# many slots): 0.479 ms each active adapter, 0.00039 ms each pair of a sequence and an adapter, 0.0174 ms each
# slot, of 13.27 ms. At rank 8 (452 further runs) the parts are 4.2 %, 0.02 % and 0.35 %: rank hardly matters,
# since the time goes into launching many small kernels. Another public table (5202, 4964, 4240 tokens/s with
# 16, 32, 64 slots) lets expect about half of it.
ADAPTER_PART = 0.0361
SEQUENCE_ADAPTER_PART = 2.9e-5
SLOT_PART = 0.0013
_LOAD_S = 3e-3  # of an adapter into a slot, besides its bytes
_PUBLIC = "fitted to public runs of an 8B model, rank 16"


@dataclass(frozen=True, slots=True)
class Measured:
    """A cost that was measured, and of what."""

    cost: ServingCost
    shape: str  # of the model; "": not known
    device: Device | None  # None: not in the catalogue, so that it goes to no other


@dataclass(frozen=True, slots=True)
class Switched:
    """What switches to a model took on a device, by way."""

    model: str
    shape: str  # "": not known
    device: str  # kind
    ways: Mapping[Way, Figure]


def cost_of(
    model: Model,
    device: Device,
    measured: Iterable[Measured] = (),
    *,
    switched: Iterable[Switched] = (),
    context: float = USUAL_CONTEXT,
) -> ServingCost:
    """Return the cost of a whole model on a device, each figure the best there is.

    `context` is how many tokens a sequence holds on average. Measured are, in this order: the model itself on
    this device, one of its shape there, the model itself elsewhere. What those lack comes from the roofline.
    What its switches took there counts over what those of its shape did; a calibration's counts first.
    """
    cost = _best(model, device, measured, context)
    calibrated = {way: f for way, f in cost.switches.items() if f.source is not Source.ROOFLINE}
    return replace(cost, switches={**cost.switches, **_switched(model, device, switched), **calibrated})


def _switched(model: Model, device: Device, switched: Iterable[Switched]) -> dict[Way, Figure]:
    """Return what switches to a model took on a device, its own over those of its shape."""
    own: dict[Way, Figure] = {}
    alike: dict[Way, Figure] = {}
    for one in switched:
        if one.device != device.kind:
            continue
        if one.model == model.name:
            own.update(one.ways)
        elif model.shape and one.shape == model.shape:
            for way, figure in one.ways.items():
                alike.setdefault(way, _told_of(one.model, figure))
    return {**alike, **own}


def _best(model: Model, device: Device, measured: Iterable[Measured], context: float) -> ServingCost:
    computed = roofline(model, device, context=context)
    ranked = sorted(
        ((rank, one) for one in measured if (rank := _rank(one, model, device)) is not None),
        key=lambda pair: pair[0],
    )
    if not ranked:
        return computed
    rank, best = ranked[0]
    cost = best.cost
    if rank >= _ELSEWHERE and best.device is not None:
        cost = _moved(cost, roofline(model, best.device, context=context), computed)
    elif rank:
        cost = _of_another(cost)
    return replace(
        cost, model=model.name, device=device.kind, switches={**computed.switches, **cost.switches}
    )


def roofline(model: Model, device: Device, *, context: float = USUAL_CONTEXT) -> ServingCost:
    """Return what bytes and multiplications let expect, of a whole model on devices as many as it needs."""
    devices = model.tensor_parallel * (TENSOR_PARALLEL_REACHED if model.tensor_parallel > 1 else 1.0)
    bandwidth = device.bandwidth * BANDWIDTH_REACHED * devices
    flops = device.flops * FLOPS_REACHED * devices
    token_s = 2.0 * model.parameters / flops
    base_s = STEP_S + model.weight_bytes / bandwidth
    adapter_bytes = model.slot_bytes_per_rank * 16

    def computed(value: float) -> Figure:
        return Figure(value, Source.ROOFLINE, f"{device.kind}: {device.source}")

    def public(part: float) -> Figure:
        return Figure(part * base_s, Source.GIVEN, _PUBLIC)

    return ServingCost(
        model=model.name,
        device=device.kind,
        base_s=computed(base_s),
        sequence_s=computed(SEQUENCE_S + token_s + model.kv_bytes_per_token * context / bandwidth),
        prefill_token_s=computed(token_s),
        adapter_token_s=computed(adapter_bytes / flops),  # two operations for each two bytes
        adapter_s=public(ADAPTER_PART),
        sequence_adapter_s=public(SEQUENCE_ADAPTER_PART),
        slot_s=public(SLOT_PART),
        slot_load_s=computed(_LOAD_S + adapter_bytes / device.host_link),
        disk_load_s=computed(adapter_bytes / DISK_BYTES_PER_S),
        request_s=Figure(REQUEST_S, Source.GIVEN, "a gateway on the same machine"),
        switches=_switches(model, device),
    )


def _switches(model: Model, device: Device) -> Mapping[Way, Figure]:
    each = model.weight_bytes / model.tensor_parallel
    read_s = model.weight_bytes / DISK_BYTES_PER_S
    detail = "weights at the pace of the link to the host"
    disk = f"weights from one disk at {DISK_BYTES_PER_S / 1e9:g} GB/s"
    return {
        Way.PUT: Figure(0.3 + each / device.host_link, Source.ROOFLINE, detail),
        Way.RELOAD: Figure(0.5 + read_s, Source.ROOFLINE, disk),
        Way.COLD: Figure(COLD_S + read_s, Source.ROOFLINE, f"{disk}, after a start of {COLD_S:g} s"),
    }


# -- measured figures elsewhere ------------------------------------------------------------------------------

_ELSEWHERE = 2


def _rank(one: Measured, model: Model, device: Device) -> int | None:
    """Return how good a measurement is for a model on a device, 0 the best; None: it says nothing of it."""
    is_same = one.cost.model == model.name
    is_alike = is_same or bool(one.shape and one.shape == model.shape)
    if not is_alike:
        return None
    if one.cost.device == device.kind:
        return 0 if is_same else 1
    return None if one.device is None else (_ELSEWHERE if is_same else _ELSEWHERE + 1)


def _moved(cost: ServingCost, there: ServingCost, here: ServingCost) -> ServingCost:
    """Return a measured cost on another device, each figure by the ratio of what it mostly depends on."""
    by_bytes = here.base_s.value / there.base_s.value
    by_flops = here.prefill_token_s.value / max(there.prefill_token_s.value, 1e-15)

    def scaled(figure: Figure, ratio: float) -> Figure:
        return Figure(figure.value * ratio, Source.ROOFLINE, f"measured on {cost.device}, times {ratio:.2f}")

    return replace(
        cost,
        base_s=scaled(cost.base_s, by_bytes),
        sequence_s=scaled(cost.sequence_s, by_bytes),
        adapter_s=scaled(cost.adapter_s, by_bytes),
        sequence_adapter_s=scaled(cost.sequence_adapter_s, by_bytes),
        slot_s=scaled(cost.slot_s, by_bytes),
        prefill_token_s=scaled(cost.prefill_token_s, by_flops),
        adapter_token_s=scaled(cost.adapter_token_s, by_flops),
        slot_load_s=here.slot_load_s,
        disk_load_s=here.disk_load_s,
        switches=here.switches,
    )


def _of_another(cost: ServingCost) -> ServingCost:
    """Return a cost whose measured figures say that they are of another model of the same shape."""

    def told(figure: Figure) -> Figure:
        return _told_of(cost.model, figure)

    return replace(
        cost,
        base_s=told(cost.base_s),
        sequence_s=told(cost.sequence_s),
        prefill_token_s=told(cost.prefill_token_s),
        adapter_token_s=told(cost.adapter_token_s),
        adapter_s=told(cost.adapter_s),
        sequence_adapter_s=told(cost.sequence_adapter_s),
        slot_s=told(cost.slot_s),
        request_s=told(cost.request_s),
        switches={way: told(figure) for way, figure in cost.switches.items()},
    )


def _told_of(model: str, figure: Figure) -> Figure:
    """Say of a measured figure whose it is."""
    if figure.source is not Source.MEASURED:
        return figure
    return replace(figure, detail=f"of {model}, of the same shape: {figure.detail}")

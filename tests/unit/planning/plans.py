"""Models, demands, machines and costs with round figures, for tests of plans."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engines.devices.profiles import BY_NAME, profiles_of
from fleet.types import Isolation
from planning.values import (
    DAY_S,
    Demand,
    Device,
    Figure,
    Kind,
    Machine,
    Model,
    ModelDemand,
    ServingCost,
    Source,
    Spread,
    Way,
)

GIB = 2**30
GPU = Device("a100-80gb", 80 * GIB, 2e12, 312e12, price_per_hour=2.0, source="round figures")
MIG_GPU = replace(GPU, profiles=profiles_of(BY_NAME["a100-80gb"]))
MACHINE = Machine("box", GPU, 8, 1024 * GIB, None)


def given(value: float) -> Figure:
    """A figure by hand."""
    return Figure(value, Source.GIVEN)


def cost_of(model: Model, device: Device) -> ServingCost:
    """A step reads all weights; a switch in place takes 2 s, a cold start 40 s."""
    base_s = model.weight_bytes / model.tensor_parallel / device.bandwidth
    nothing = given(0.0)
    return ServingCost(
        model.name,
        device.kind,
        given(base_s),
        given(base_s / 100),
        given(2 * model.weight_bytes / 2 / device.flops / 0.5),
        given(base_s / 30),
        nothing,
        given(base_s / 800),
        given(0.007),
        given(0.1),
        given(0.01),
        {Way.PUT: given(2.0), Way.RELOAD: given(8.0), Way.COLD: given(40.0)},
    )


def whole(name: str, gib: float = 16.0, **changes: Any) -> Model:
    """A whole model of one shape with all others of its size."""
    known = Model(
        name,
        Kind.WHOLE,
        "",
        f"/models/{name}",
        f"{gib:g} GiB",
        int(gib * GIB),
        kv_bytes_per_token=131_072,
        slot_bytes_per_rank=2**20,
        max_model_len=4096,
    )
    return replace(known, **changes)


def adapter(name: str, base: str, rank: int = 16) -> Model:
    """An adapter."""
    return Model(name, Kind.ADAPTER, base, f"/adapters/{name}", "16 GiB", 2**25, rank=rank)


def asked(model: str, per_day: float, *tenants: str, **changes: Any) -> ModelDemand:
    """A demand that is the same in each hour of a day."""
    prompt, completion = Spread(500, 400, 1000, 2000, 3000), Spread(150, 120, 300, 600, 1000)
    one = ModelDemand(model, tenants or (f"{model}-inc",), per_day, (per_day / 24,) * 24, prompt, completion)
    return replace(one, **changes)


def dedicated(model: str, per_day: float, *tenants: str, **changes: Any) -> ModelDemand:
    """The same of a tenant that shares nothing."""
    return asked(model, per_day, *tenants, isolation=Isolation.DEDICATED, **changes)


def demand(*models: ModelDemand) -> Demand:
    """A day."""
    return Demand("by hand", None, DAY_S, models)

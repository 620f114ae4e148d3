"""Whole models' weights in host memory, put back in place: all of them, or none is touched."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engines.worker import WorkerExtension, held


class Linear(torch.nn.Module):  # type: ignore[misc]
    """A layer as vLLM has it: on CPUs the weight is packed, and its parameter empty."""

    def __init__(self, value: float, *, packed: bool) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((2, 2), value), requires_grad=False)
        self.register_buffer("scale", torch.tensor(value))
        self.kv_cache = torch.zeros(1000)
        if packed:
            self.weight = torch.nn.Parameter(torch.empty(0), requires_grad=False)
            self.cpu_linear = lambda x: x * value


def network(value: float, *, packed: bool = True) -> Any:
    return torch.nn.ModuleDict({"one": Linear(value, packed=False), "two": Linear(value, packed=packed)})


def values(model: Any) -> tuple[float, float, float]:
    return float(model["one"].weight[0, 0]), float(model["two"].scale), float(model["two"].cpu_linear(1.0))


def reload(model: Any, value: float) -> None:
    """As vLLM does: into the same tensors, and a new packed layer."""
    with torch.no_grad():
        model["one"].weight.fill_(value)
        for layer in model.values():
            layer.scale.fill_(value)
    model["two"].cpu_linear = lambda x: x * value


def test_weights_come_back_packed_ones_too_and_into_the_same_tensors() -> None:
    model = network(1.0)
    place = model["one"].weight.data_ptr()
    of_one = held.copy_of(model)
    reload(model, 2.0)
    of_two = held.copy_of(model)
    for weights, value in ((of_one, 1.0), (of_two, 2.0), (of_one, 1.0)):
        held.put(model, weights)
        assert values(model) == (value, value, value)
    assert model["one"].weight.data_ptr() == place
    assert of_one.size_bytes == 4 * 4 + 2 * 4


def test_nothing_is_touched_where_the_tensors_are_others() -> None:
    model, weights = network(1.0), held.copy_of(network(2.0))
    spoilings: list[Callable[[held.Weights], object]] = [
        lambda w: w.tensors.pop("one.weight"),
        lambda w: w.tensors.update({"one.weight": torch.zeros(3)}),
        lambda w: w.tensors.update({"one.weight": torch.zeros(2, 2, dtype=torch.float64)}),
        lambda w: w.packed.clear(),
    ]
    for spoil in spoilings:
        spoilt = held.Weights(dict(weights.tensors), dict(weights.packed))
        spoil(spoilt)
        with pytest.raises(held.CannotHold):
            held.put(model, spoilt)
        assert values(model) == (1.0, 1.0, 1.0)


def test_weights_that_lie_elsewhere_are_refused() -> None:
    model = network(1.0, packed=False)
    model["two"].weight = torch.nn.Parameter(torch.empty(0), requires_grad=False)
    with pytest.raises(held.CannotHold, match="weights of two where they cannot be copied"):
        held.copy_of(model)
    model = network(1.0)
    model["one"].absorbed = torch.zeros(2, 2)
    with pytest.raises(held.CannotHold, match=r"numbers of one beside its parameters \(absorbed\)"):
        held.copy_of(model)


def test_a_worker_holds_puts_and_drops_and_forgets_what_came_of_the_former_weights() -> None:
    model, forgotten = network(1.0), []
    worker: Any = WorkerExtension()
    worker.model_runner = SimpleNamespace(
        get_model=lambda: model,
        reset_lora_state=lambda: forgotten.append("adapters"),
        reset_encoder_cache=lambda: forgotten.append("encoder"),
        reset_mm_cache=lambda: forgotten.append("media"),
    )
    assert worker.tenantry_hold("a") == 24
    reload(model, 2.0)
    worker.tenantry_put("a")
    assert values(model) == (1.0, 1.0, 1.0) and forgotten == ["adapters", "encoder", "media"]
    worker.tenantry_drop("a")
    worker.tenantry_drop("a")
    with pytest.raises(KeyError):
        worker.tenantry_put("a")

"""Copies of whole models' weights in host memory, and putting one back in place, inside vLLM's worker.

A copy is taken of the weights as the kernels have them, so that putting them back is nothing but copying.
It relies on where vLLM 0.32 keeps weights:

- parameters and buffers of the model's modules;
- on CPUs, a linear layer's weights packed for oneDNN or AMX, in the layer's `cpu_linear`
  (model_executor/layers/utils.py: dispatch_cpu_unquantized_gemm), its parameter left empty. Loading makes a
  new one, so the former is kept as it is.

A model that keeps numbers anywhere else is refused before anything is touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_PACKED = "cpu_linear"
_NOT_WEIGHTS = frozenset({"kv_cache"})
_OWN = frozenset({"_parameters", "_buffers", "_modules"})


class CannotHold(Exception):
    """The weights of this model cannot be copied and put back; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Weights:
    """One model's weights in host memory."""

    tensors: dict[str, Any]
    packed: dict[str, Any] = field(default_factory=dict)  # module -> its `cpu_linear`

    @property
    def size_bytes(self) -> int:
        """Bytes of the copied tensors; packed ones do not tell their size."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


def copy_of(model: Any) -> Weights:
    """Copy a model's weights to host memory. Raises `CannotHold`."""
    import torch

    packed = {name: module.cpu_linear for name, module in model.named_modules() if hasattr(module, _PACKED)}
    _check_nothing_elsewhere(model, packed)
    pinned = torch.cuda.is_available()  # pinned memory is copied at the bus's full speed
    copies = {
        name: tensor.detach().to("cpu", copy=True).pin_memory() if pinned else tensor.detach().clone()
        for name, tensor in _live(model)
    }
    return Weights(copies, packed)


def put(model: Any, weights: Weights) -> None:
    """Copy weights into the model, in place. Raises `CannotHold`, before it touches anything."""
    import torch

    live = dict(_live(model))
    modules = dict(model.named_modules())
    packed = {name for name, module in modules.items() if hasattr(module, _PACKED)}
    if live.keys() != weights.tensors.keys() or packed != weights.packed.keys():
        raise CannotHold("the weights held are not of this model's tensors")
    for name, tensor in live.items():
        held = weights.tensors[name]
        if tensor.shape != held.shape or tensor.dtype != held.dtype:
            raise CannotHold(f"the weights held are of another shape: {name}")
    with torch.no_grad():
        for name, tensor in live.items():
            tensor.copy_(weights.tensors[name], non_blocking=True)
        for name, packed_linear in weights.packed.items():
            setattr(modules[name], _PACKED, packed_linear)
        if torch.cuda.is_available():
            torch.cuda.synchronize()


def _live(model: Any) -> Iterator[tuple[str, Any]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _check_nothing_elsewhere(model: Any, packed: dict[str, Any]) -> None:
    """Refuse weights that are in no parameter, buffer or packed layer."""
    import torch

    for name, module in model.named_modules():
        if name not in packed and any(p.numel() == 0 for p in module.parameters(recurse=False)):
            raise CannotHold(f"vLLM keeps weights of {name} where they cannot be copied")
        if _holds_adapters(module):
            continue
        for attribute, value in vars(module).items():
            if attribute in _OWN or attribute in _NOT_WEIGHTS:
                continue
            tensors = value if isinstance(value, (list, tuple)) else [value]
            if any(isinstance(tensor, torch.Tensor) and tensor.numel() > 1 for tensor in tensors):
                raise CannotHold(f"vLLM keeps numbers of {name} beside its parameters ({attribute})")


def _holds_adapters(module: Any) -> bool:
    """Whether it is vLLM's wrapper that holds adapters' weights; the base layer is a module inside it."""
    return any(kind.__name__ == "BaseLayerWithLoRA" for kind in type(module).__mro__)

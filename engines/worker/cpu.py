"""Keeps adapters away from base-model requests on CPU engines. Importing it corrects vLLM in that process.

vLLM marks tokens of the base model with the adapter index -1. Its CPU operators use that as an index, which
selects the last slot: a base-model request in a batch with adapters is answered with the adapter that is
there, any tenant's (vllm-project/vllm#48421, open for 0.32). The GPU kernels skip such tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from engines.worker import WorkerExtension

OPERATORS = ("bgmv_shrink", "bgmv_expand", "bgmv_expand_slice")


def without_base_model_rows(operator: Callable[..., None]) -> Callable[..., None]:
    """Wrap an operator so that rows whose adapter index is negative contribute nothing.

    Nor do rows without an index of their own: vLLM computes log-probabilities of a prompt with the indices of
    the rows sampled beside it (vllm-project/vllm#16668).
    """

    def wrapped(inputs: Any, weights: Any, output: Any, indices: Any, *args: Any, **options: Any) -> None:
        if len(indices) != len(inputs):
            return
        base = indices < 0
        if base.any():
            inputs = inputs.masked_fill(base.unsqueeze(-1), 0)
        operator(inputs, weights, output, indices, *args, **options)

    return wrapped


def correct(*modules: ModuleType) -> None:
    """Replace the operators in modules that have them; the first one defines them."""
    for name in OPERATORS:
        corrected = without_base_model_rows(getattr(modules[0], name))
        for module in modules:
            if not hasattr(module, name):
                raise RuntimeError(
                    f"vLLM's {module.__name__} has no {name}: check this correction against it"
                )
            setattr(module, name, corrected)


class CpuWorkerExtension(WorkerExtension):
    """The same calls; this one's module has corrected the operators by the time vLLM finds it."""


def _correct_vllm() -> None:
    from vllm.lora.ops.torch_ops import lora_ops
    from vllm.lora.punica_wrapper import punica_cpu

    correct(lora_ops, punica_cpu)


_correct_vllm()  # at import: vLLM offers no later moment before the model is built

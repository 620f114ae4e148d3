"""Reads what the models of a fleet are: headers and configurations of those that are on this machine.

Of what is not here nothing is fetched: a hub's model that was never downloaded, an adapter in an object
store. Such are told in a sentence, and planned with what the fleet file says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from adapters.base_model import CONFIG_FILE, find_weight_bytes, folder_of, read_json, read_shape, read_tensors
from adapters.checkpoint import open_checkpoint, readable
from adapters.errors import AdapterError
from engines.switching.reading import ModelUnreadable, read_contents
from fleet.types import Adapter, BaseModel, Fleet
from planning.values import Kind, Model
from planning.weights import kv_bytes_per_token, max_tokens, parameters_of, shape_of

_FLOAT32 = ("float32", "float")


@dataclass(frozen=True, slots=True)
class FleetModels:
    """The models of a fleet."""

    models: tuple[Model, ...]
    notes: tuple[str, ...]  # a sentence for each of which something is not known
    unread: Mapping[str, str]  # why a model, or the base of an adapter, cannot be planned


def fleet_models(fleet: Fleet, told: Iterable[Model] = ()) -> FleetModels:
    """Return the models of a fleet; those that are `told` stay as they are."""
    known = {model.name: model for model in told}
    notes: list[str] = []
    unread: dict[str, str] = {}
    for base in fleet.base_models.values():
        if base.name not in known:
            try:
                known[base.name] = whole_model(base)
            except AdapterError as error:
                unread[base.name] = f"{base.name} cannot be planned: {error}"
    for adapter in fleet.adapters.values():
        if adapter.base_model in unread:
            unread[adapter.name] = unread[adapter.base_model]
        elif adapter.name not in known:
            base = fleet.base_models[adapter.base_model]
            known[adapter.name] = _adapter(adapter, known[adapter.base_model], base.max_lora_rank, notes)
    notes = [*(unread[name] for name in fleet.base_models if name in unread), *notes]
    return FleetModels(tuple(known.values()), tuple(notes), unread)


def whole_model(base: BaseModel) -> Model:
    """Return what the files of a base model say. Raises `AdapterError` where they are not here, or wrong."""
    folder = folder_of(base.source, base.revision)
    if folder is None or not folder.is_dir():
        raise AdapterError(f"{base.source} is not on this machine; download it, or plan where it is")
    weight_bytes = find_weight_bytes(base.source, base.revision, dtype=base.dtype)
    if weight_bytes is None:
        raise AdapterError("it has no weights in safetensors")
    try:
        config, tensors = read_json(folder / CONFIG_FILE), read_tensors(folder)
        kv = kv_bytes_per_token(config, item_bytes=4 if base.dtype in _FLOAT32 else 2)
    except OSError as error:
        raise AdapterError(f"its files cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise AdapterError(str(error)) from error
    longest = max_tokens(config)
    if base.max_model_len is not None:
        longest = min(base.max_model_len, longest or base.max_model_len)
    return Model(
        name=base.name,
        kind=Kind.WHOLE,
        base="",
        source=base.source,
        shape=_shape(folder),
        weight_bytes=weight_bytes,
        kv_bytes_per_token=kv,
        parameters=parameters_of(config, tensors),
        slot_bytes_per_rank=_slot_bytes_per_rank(folder),
        max_model_len=longest,
        tensor_parallel=base.tensor_parallel_size,
    )


def _shape(folder: Path) -> str:
    try:
        return shape_of(read_contents(folder))
    except ModelUnreadable:
        return ""


def _slot_bytes_per_rank(folder: Path) -> int:
    """Return what one slot takes for each of its ranks; 0 where the model's modules cannot be told."""
    try:
        modules = read_shape(folder).modules.values()
    except AdapterError:
        return 0
    sizes = sum(((one.inputs or 0) + (one.outputs or 0)) * max(one.experts, 1) for one in modules)
    return sizes * 2


def _adapter(adapter: Adapter, base: Model, max_rank: int, notes: list[str]) -> Model:
    rank, size = max_rank, base.slot_bytes_per_rank * max_rank
    folder = Path(adapter.source)
    if folder.is_absolute() and folder.is_dir():
        try:
            with readable():
                checkpoint = open_checkpoint(folder)
                rank, size = checkpoint.config.rank, checkpoint.weights.stat().st_size
        except AdapterError as error:
            notes.append(f"{adapter.name} is no adapter that can be served: {error}")
    else:
        notes.append(f"{adapter.name} is not on this machine: its rank is taken to be {rank}.")
    return Model(
        name=adapter.name,
        kind=Kind.ADAPTER,
        base=base.name,
        source=adapter.source,
        shape=base.shape,
        weight_bytes=size,
        rank=rank,
        max_model_len=base.max_model_len,
    )

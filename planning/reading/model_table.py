"""Reads models from a table by hand: YAML with what a model's files would say, where they are not here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planning.reading.yaml_file import read_yaml
from planning.requests import DemandError
from planning.values import Kind, Model

MAX_MODELS = 20_000
_GIB = 2**30
_BYTES = 2  # of a parameter in 16 bits
_WHOLE = frozenset(
    {"name", "parameters", "gib", "kv_kib_per_token", "shape", "max_model_len", "tensor_parallel", "source"}
    | {"slot_mib_per_rank", "could_be", "could_be_rank"}
)
_ADAPTER = frozenset({"name", "base", "rank", "source"})
_MANY = "count"  # so many alike; `{n}` in the name is their number, from 1


def read_models(path: Path) -> list[Model]:
    """Return the models of a file. Raises `DemandError` that names what is wrong, and `OSError`."""
    try:
        document = read_yaml(path)
    except DemandError as error:
        raise DemandError(f"{path}: {error}") from None
    told = document.data
    entries = told.get("models") if isinstance(told, dict) else None
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise DemandError(f"{path}: it must have `models`, a list of them, each with `name`")
    found: dict[str, Model] = {}
    for index, entry in enumerate(entries):
        where = f"{path}, line {document.lines['models', index]}"
        for model in _models(where, entry):
            if model.name in found:
                raise DemandError(f"{where}: there is a `{model.name}` already")
            found[model.name] = model
    return list(found.values())


def _models(where: str, entry: Mapping[str, Any]) -> list[Model]:
    count = _whole_number(where, entry, _MANY, MAX_MODELS, default=1)
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise DemandError(f"{where}: `name` is missing")
    if count > 1 and "{n}" not in name:
        raise DemandError(f"{where}: {count} models need `{{n}}` in their name")
    is_adapter = "base" in entry
    if is_adapter and (not isinstance(entry["base"], str) or not entry["base"]):
        raise DemandError(f"{where}: `base` must be the name of a whole model; without it this is one")
    make = _adapter if is_adapter else _whole
    allowed = (_ADAPTER if is_adapter else _WHOLE) | {_MANY}
    unknown = sorted(set(map(str, entry)) - allowed)
    if unknown:
        raise DemandError(f"{where}: {unknown[0]!a} is unknown; there are {', '.join(sorted(allowed))}")
    return [make(where, entry, name.replace("{n}", str(number))) for number in range(1, count + 1)]


def _whole(where: str, entry: Mapping[str, Any], name: str) -> Model:
    parameters = _number(where, entry, "parameters", 1e14, least=1)
    gib = _number(where, entry, "gib", 1e6, default=parameters * _BYTES / _GIB)
    longest = _whole_number(where, entry, "max_model_len", 10**8, default=0, least=0)
    could_be = str(entry.get("could_be", ""))
    return Model(
        name,
        Kind.WHOLE,
        "",
        str(entry.get("source", "")),
        str(entry.get("shape", "")),
        int(gib * _GIB),
        int(_number(where, entry, "kv_kib_per_token", 1e6) * 1024),
        int(parameters),
        slot_bytes_per_rank=int(_number(where, entry, "slot_mib_per_rank", 1e4, default=0) * 2**20),
        max_model_len=longest or None,
        tensor_parallel=_whole_number(where, entry, "tensor_parallel", 64, default=1),
        could_be=could_be,
        could_be_rank=_whole_number(where, entry, "could_be_rank", 4096) if could_be else 0,
    )


def _adapter(where: str, entry: Mapping[str, Any], name: str) -> Model:
    rank = _whole_number(where, entry, "rank", 4096, default=16)
    return Model(name, Kind.ADAPTER, str(entry["base"]), str(entry.get("source", "")), "", 0, rank=rank)


def _whole_number(
    where: str, entry: Mapping[str, Any], key: str, most: int, *, default: int | None = None, least: int = 1
) -> int:
    value = _number(where, entry, key, most, default, least=least)
    if value != int(value):
        raise DemandError(f"{where}: `{key}` must be a whole number from {least} to {most}")
    return int(value)


def _number(
    where: str,
    entry: Mapping[str, Any],
    key: str,
    most: float,
    default: float | None = None,
    *,
    least: float = 0,
) -> float:
    value = entry.get(key, default)
    if isinstance(value, str):
        try:
            value = float(value)  # YAML takes 8e9 for text
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise DemandError(f"{where}: `{key}` must be a number from {least:g} to {most:g}")
    return float(value)

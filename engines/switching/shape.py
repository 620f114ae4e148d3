"""Are two whole models of the same shape, so that one's weights can take the place of the other's? Pure.

Fine-tunes of one base model are: their tensors have the same names, types and shapes, and all that an engine
reads beside them is the same. vLLM (0.32) checks none of this: given a model of another shape it loads a
part, fails, and answers wrongly from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Say where a model comes from and what wrote it, not what it is; `use_cache` is the training's.
_IGNORED = frozenset({"_name_or_path", "name_or_path", "_commit_hash", "use_cache", "tokenizer_file"})
_RENAMED = {"torch_dtype": "dtype"}  # transformers 5
MAX_DEPTH = 50


@dataclass(frozen=True, slots=True)
class Contents:
    """What an engine reads of a whole model, without the numbers themselves."""

    config: Any  # of config.json, in plain form
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]  # name -> type, shape
    others: Mapping[str, Any]  # file -> a JSON object in plain form, or the sha256 of anything else
    weight_bytes: int = 0

    @property
    def is_quantised(self) -> bool:
        """Whether the checkpoint says that its weights are."""
        return isinstance(self.config, dict) and "quantization_config" in self.config


def plain(value: Any, depth: int = 0) -> Any:
    """Return a JSON value without names, paths and versions of tools. Raises `ValueError` where too deep."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(value, list):
        return [plain(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        _RENAMED.get(key, key): plain(item, depth + 1)
        for key, item in value.items()
        if key not in _IGNORED and not key.endswith("_version")
    }


def why_other_shape(one: Contents, other: Contents) -> str:
    """Return the first reason why they are not of the same shape, or "" if they are."""
    return (
        _first_difference("config.json", one.config, other.config)
        or _tensors_differ(one.tensors, other.tensors)
        or _files_differ(one.others, other.others)
    )


def _first_difference(where: str, one: Any, other: Any) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            if key not in one or key not in other:
                return f"{where}: only one has {_short(key)}"
            if found := _first_difference(f"{where}: {_short(key)}", one[key], other[key]):
                return found
        return ""
    if type(one) is type(other) and one == other:
        return ""
    return f"{where} is {_short(one)} and {_short(other)}"


def _tensors_differ(
    one: Mapping[str, tuple[str, tuple[int, ...]]], other: Mapping[str, tuple[str, tuple[int, ...]]]
) -> str:
    for name in sorted(one.keys() | other.keys()):
        if name not in one or name not in other:
            return f"only one has the tensor {_short(name)}"
        if one[name] != other[name]:
            (kind, shape), (other_kind, other_shape) = one[name], other[name]
            others = f"{other_kind} {list(other_shape)}"
            return f"tensor {_short(name)} is {kind} {list(shape)} in one and {others} in the other"
    return ""


def _files_differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    for name in sorted(one.keys() | other.keys()):
        if name not in one or name not in other:
            return f"only one has {name}"
        if isinstance(one[name], dict) and isinstance(other[name], dict):
            if found := _first_difference(name, one[name], other[name]):
                return found
        elif one[name] != other[name]:
            return f"{name} is not the same"
    return ""


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

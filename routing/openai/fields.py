"""Checks that the fields of a body have the JSON types that vLLM takes, before an engine sees it.

Some of vLLM's validators look into fields before checking their types, and break. Only the types of fields
that are present are checked here; vLLM checks the values. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engines.protocol import Kind
from routing.errors import InvalidRequest
from routing.openai.vllm_fields import FIELDS

_TYPES = {"n": type(None), "b": bool, "i": int, "f": float, "s": str, "a": list, "o": dict}
_NESTS = frozenset((list, dict))
_WORDS = {"a": "an array", "o": "an object", "s": "a string", "n": "null"}


@dataclass(frozen=True, slots=True)
class _Spec:
    """The JSON types that vLLM takes at a place in the body."""

    types: frozenset[type]
    fields: Mapping[str, _Spec]
    items: _Spec | None
    words: str  # for the message
    is_plain: bool  # nothing inside it is checked


def _spec(told: Any) -> _Spec:
    letters = told if isinstance(told, str) else told[""]
    inner = {} if isinstance(told, str) else {name: _spec(each) for name, each in told.items() if name}
    items = inner.pop("[]", None)
    types = frozenset(_TYPES[letter] for letter in letters)
    return _Spec(types, inner, items, _words(letters), not inner and items is None)


def _words(letters: str) -> str:
    words = [_WORDS[letter] for letter in "aosn" if letter in letters]
    if "i" in letters:
        words = ["a number or a boolean", *(word for word in words if word != "a string")]
    return " or ".join(words)


_Found = tuple[str, _Spec]
_SPECS = {kind: {name: _spec(told) for name, told in fields.items()} for kind, fields in FIELDS.items()}


def check(kind: Kind, payload: Mapping[str, Any]) -> None:
    """Raise `InvalidRequest` that names the first field of the wrong type."""
    found = _in_fields(payload, _SPECS[kind])
    if found is not None:
        path, spec = found[0].removeprefix("."), found[1]
        raise InvalidRequest(f"`{path}` must be {spec.words}.", param=path, code="invalid_type")


def _in_fields(value: Mapping[str, Any], specs: Mapping[str, _Spec]) -> _Found | None:
    """Find a value of the wrong type. Returns its path from here, and the types allowed there."""
    for name, inner in value.items():
        spec = specs.get(name)
        if spec is None:
            continue
        if type(inner) not in spec.types:
            return f".{name}", spec
        if not spec.is_plain and type(inner) in _NESTS and inner:
            found = _inside(inner, spec)
            if found is not None:
                return f".{name}{found[0]}", found[1]
    return None


def _inside(value: Any, spec: _Spec) -> _Found | None:
    if type(value) is dict:
        return _in_fields(value, spec.fields)
    items = spec.items
    if type(value) is not list or items is None:
        return None
    if not items.types.issuperset(map(type, value)):
        wrong = next(number for number, item in enumerate(value) if type(item) not in items.types)
        return f"[{wrong}]", items
    if not items.is_plain:
        for number, item in enumerate(value):
            found = _inside(item, items)
            if found is not None:
                return f"[{number}]{found[0]}", found[1]
    return None

"""Which rank and scale does each module have where the config gives them by pattern? Computed once, by name.

vLLM matches every key of `rank_pattern` and `alpha_pattern` as a regular expression with every module, in the
loop that serves all requests (0.32, `PEFTHelper._match_pattern`). A client's patterns are matched here
instead, under a time limit; where vLLM could be slow, it gets the names that were found.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import regex  # vLLM's, which can be told to give up

from adapters.errors import AdapterError
from adapters.tensors import short

TIME_LIMIT_S = 2.0  # for all patterns of an adapter
MAX_PATTERN_LENGTH = 4096
V = TypeVar("V", int, float)

# vLLM matches these fast: names, simple patterns, and alternatives of names. With 1000 keys and modules it
# took over 20 s, with 300 half a second, since its cache of compiled patterns holds some hundreds.
_MAX_KEYS = 300
_MAX_STEPS = 4_000_000  # names in keys, times modules
_NAME = r"(?:[\w-]|\\?\.)+"
_NAMES = re.compile(rf"{_NAME}(?:\|{_NAME})*", re.ASCII)
_SIMPLE = re.compile(r"(?:\\d\+|\[0-9\]\+|[\w.\-^$|()\[\]]|\\[.dw])+", re.ASCII)
_MAX_SIMPLE_LENGTH = 256


@dataclass(frozen=True, slots=True)
class Patterns(Generic[V]):
    """One of the two mappings, in its order: the first key that matches counts, as in PEFT and vLLM."""

    what: str  # its name in messages
    values: Mapping[str, V]
    _names: dict[str, int] = field(default_factory=dict, init=False)  # plain key -> its place
    _keys: list[tuple[int, regex.Pattern[str]]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        """Compile. Raises `AdapterError`."""
        for place, key in enumerate(self.values):
            if re.fullmatch(_NAME, key, re.ASCII):
                self._names.setdefault(key.replace("\\.", "."), place)
            else:
                self._keys.append((place, self._compiled(key)))

    def found(self, modules: Iterable[str], deadline_s: float) -> dict[str, V]:
        """Return the value of each module that has one. Raises `AdapterError` at the deadline (monotonic)."""
        values = list(self.values.values())
        found = {}
        for module in modules:
            place = self._place_of(module, deadline_s)
            if place is not None:
                found[module] = values[place]
        return found

    def is_fast(self, modules: int) -> bool:
        """Whether vLLM can match this with that many modules without delaying requests."""
        names = sum(key.count("|") + 1 for key in self.values)
        return (
            len(self.values) <= _MAX_KEYS
            and names * modules <= _MAX_STEPS
            and all(_NAMES.fullmatch(key) or _is_simple(key) for key in self.values)
        )

    def named(self, found: Mapping[str, V], modules: Collection[str]) -> dict[str, V]:
        """Return the same rule as names of modules, grouped by value. Raises `AdapterError`."""
        by_value: dict[V, list[str]] = {}
        for module, value in found.items():
            by_value.setdefault(value, []).append(module.replace(".", "\\."))
        named = {"|".join(sorted(names)): value for value, names in by_value.items()}
        if not Patterns(self.what, named).is_fast(len(modules)):
            raise AdapterError(
                f"{self.what} gives {len(found)} modules {len(named)} different values, too many to be "
                "matched fast; give more modules the same"
            )
        for module in modules:
            for end in _endings(module):
                if end in found and found[end] != found.get(module):
                    raise AdapterError(f"{self.what}: {short(end)} is the end of another module's name, too")
        return named

    def _place_of(self, module: str, deadline_s: float) -> int | None:
        places = (self._names.get(end) for end in _endings(module))
        first = min((place for place in places if place is not None), default=None)
        for place, pattern in self._keys:
            if first is not None and place > first:
                break
            left_s = deadline_s - time.monotonic()
            try:
                if left_s <= 0:
                    raise TimeoutError
                if pattern.match(module, timeout=left_s, concurrent=True):
                    return place
            except TimeoutError:
                raise AdapterError(
                    f"{self.what} has patterns that take more than {TIME_LIMIT_S:g} s to match; use names of "
                    "modules"
                ) from None
        return first

    def _compiled(self, key: str) -> regex.Pattern[str]:
        """Compile as vLLM does."""
        try:
            if len(key) <= MAX_PATTERN_LENGTH or _NAMES.fullmatch(key):
                return regex.compile(rf"(.*\.)?({key})$")
        except (regex.error, RecursionError, OverflowError):
            pass
        raise AdapterError(f"{self.what}: {short(key)} is no pattern; use names of modules")


def _endings(module: str) -> Iterator[str]:
    """Every name that stands for this module."""
    parts = module.split(".")
    return (".".join(parts[start:]) for start in range(len(parts)))


def _is_simple(key: str) -> bool:
    return (
        len(key) <= _MAX_SIMPLE_LENGTH
        and _SIMPLE.fullmatch(key) is not None
        and key.count("+") <= 2
        and key.count("(") <= 2
    )


_PREFIX = "base_model.model."  # PEFT's own; vLLM takes names with and without it
_SUFFIXES = {  # vLLM 0.32, `parse_fine_tuned_lora_name` in `lora/utils.py`
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_embedding_A": "A",
    ".lora_embedding_B": "B",
}


def split_name(tensor: str) -> tuple[str, str] | None:
    """Return a tensor's module, as the adapter names it, and its half, A or B."""
    for suffix, half in _SUFFIXES.items():
        if tensor.endswith(suffix):
            return tensor.removesuffix(suffix).removeprefix(_PREFIX), half
    return None


def parameter_of(module: str) -> str:
    """Return the name that patterns are matched with: for fused experts, the parameter's."""
    if module.endswith(".experts.base_layer"):
        return module.removesuffix(".base_layer") + ".gate_up_proj"
    return f"{module}.down_proj" if module.endswith(".experts") else module

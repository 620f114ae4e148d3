"""How is a difference said, in the words of a fleet file: `requests_per_minute 60 -> 120`? Pure.

`tenantry diff` and `apply`, the log, events and the answers about tenants all say it so. Shows no secret: of
a key the beginning of its hash, of addresses that may hold a password nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fleet.key_hash import FINGERPRINT_CHARS

_HIDDEN = frozenset({"source", "database", "adapter_sources", "endpoint"})  # may hold a password
_KEYS = frozenset({"api_keys", "operator_keys"})
_PARTS = {"tenants": "tenant", "replicas": "replica"}  # of a pool; they join it and leave it
_SECTIONS = {
    "base_models": "base model",
    "adapters": "adapter",
    "tenants": "tenant",
    "pools": "pool",
    "prices": "price of",
}
_ALIASES = frozenset({"models", "aliases"})
_SHOWN_CHARS = 100


def subject_of(section: str, name: str) -> str:
    """Say what differs: a section's part, such as `tenant shop`; or the section, if it has no names."""
    return f"{_SECTIONS.get(section, section)} {name}" if name else section


def in_words(differing: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Say differences by the paths of their values, such as `weight` and `caps.max_queued`."""
    return [text for path, (was, now) in differing.items() for text in words_of(path, was, now)]


def words_of(path: str, was: Any, now: Any) -> Iterator[str]:
    """Say what differs in one value; None: there is none."""
    key, _, inner = path.partition(".")
    word = "alias " if key in _ALIASES else ""
    before, after = was or (), now or ()
    if inner:
        yield _one(word, inner, was, now)
    elif key in _KEYS:
        yield from _keys(before, after)
    elif key in _PARTS:
        yield from _places(_PARTS[key], before, after)
    elif isinstance(before or after, Mapping):
        yield from _each(word, dict(before), dict(after))
    elif key not in _HIDDEN or before or after:  # none, in two ways, is not said
        yield _one(word, key, was, now)


def _one(word: str, name: str, was: Any, now: Any) -> str:
    if not word and name in _HIDDEN:
        return f"{name} changed"
    return f"{word}{name} {_shown(was)} -> {_shown(now)}"


def _each(word: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in {**was, **now}:
        if was.get(name) != now.get(name):
            yield _one(word, name, was.get(name), now.get(name))


def _places(word: str, was: Sequence[str], now: Sequence[str]) -> Iterator[str]:
    before, after = frozenset(was), frozenset(now)
    yield from (f"{word} {name} leaves" for name in was if name not in after)
    yield from (f"{word} {name} joins" for name in now if name not in before)


def _keys(was: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    before, after = ({key["sha256"]: key for key in keys} for keys in (was, now))
    named = {digest: f"key {digest[:FINGERPRINT_CHARS]}..." for digest in sorted({**before, **after})}
    yield from (f"{name} removed" for digest, name in named.items() if digest not in after)
    yield from (f"{name} added" for digest, name in named.items() if digest not in before)
    for digest, name in named.items():
        if digest in before and digest in after:
            yield from _each(f"{name} ", before[digest], after[digest])


def _shown(value: Any) -> str:
    text = _text(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(each)}" for key, each in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:.15g}" if isinstance(value, float) else str(value)

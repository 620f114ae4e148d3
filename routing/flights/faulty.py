"""Has this request broken engines before? What a tenant sent is remembered by its shape, and refused at once.

Of the content, which differs every time, only the form counts: roles and types of parts. Of all other fields
the values count as well, so that a tenant's good requests do not look like its bad ones. A body with no field
but the usual ones is remembered as it is.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import orjson

from engines.protocol import FORMS, Kind
from routing.openai.bodies import DROPPED_FIELDS, OVERWRITTEN_FIELDS, PROMPT_CACHE_KEY, USERS

MAX_SHAPES = 64  # of a tenant; the oldest are forgotten
FORGET_S = 600.0  # the engine may be another one by then
CONTENT = ("messages", "prompt", "input", "instructions", "system")
# Fields that nearly every client sends; alone they break nothing.
USUAL = frozenset(
    [
        *("stream", "stream_options", "temperature", "top_p", "n", "seed", "stop", "store"),
        *(*USERS, PROMPT_CACHE_KEY),
        *("max_tokens", "max_completion_tokens", "max_output_tokens"),
        *("presence_penalty", "frequency_penalty", *DROPPED_FIELDS, *OVERWRITTEN_FIELDS),
    ]
)
_UNSEEN = frozenset(
    {*USERS, PROMPT_CACHE_KEY, "seed", *OVERWRITTEN_FIELDS, *DROPPED_FIELDS}
)  # by the engine, or it breaks nothing
MAX_DEPTH = 6


class Faulty:
    """Shapes of the requests that broke engines, by tenant."""

    def __init__(self) -> None:
        self._shapes: dict[str, OrderedDict[bytes, float]] = {}

    def remember(self, tenant: str, kind: Kind, body: bytes, now_s: float) -> None:
        """Note that a request of a tenant broke engines which answer others; `body` is what they got."""
        shapes = self._shapes.setdefault(tenant, OrderedDict())
        shape = shape_of(kind, body)
        shapes[shape] = now_s
        shapes.move_to_end(shape)
        if len(shapes) > MAX_SHAPES:
            shapes.popitem(last=False)

    def knows(self, tenant: str, kind: Kind, body: bytes, now_s: float) -> bool:
        """Whether one like this did so not long ago."""
        shapes = self._shapes.get(tenant)
        if not shapes:
            return False
        shape = shape_of(kind, body)
        at_s = shapes.get(shape)
        if at_s is not None and now_s - at_s > FORGET_S:
            del shapes[shape]
            at_s = None
        return at_s is not None


def shape_of(kind: Kind, body: bytes) -> bytes:
    """What requests have in common that break engines alike; `body` is what an engine gets."""
    if kind in FORMS:  # of a recording the form says nothing: it is remembered as it is
        return hashlib.blake2b(body, digest_size=16, person=kind.name.encode()).digest()
    payload = orjson.loads(body)
    unusual = payload.keys() - USUAL - set(CONTENT)
    shape = {
        name: _form(value, 0) if unusual and name in CONTENT else value
        for name, value in payload.items()
        if name not in _UNSEEN
    }
    text = orjson.dumps(shape, option=orjson.OPT_SORT_KEYS)  # no deeper than the body, which was written
    return hashlib.blake2b(text, digest_size=16, person=kind.name.encode()).digest()


def _form(value: Any, depth: int) -> Any:
    """The form of a content: names and types, without its text."""
    if isinstance(value, Mapping):
        if depth >= MAX_DEPTH:
            return "object"
        inner = {name: _form(each, depth + 1) for name, each in value.items()}
        return inner | {name: value[name] for name in ("role", "type") if isinstance(value.get(name), str)}
    if isinstance(value, list):
        forms = {} if depth >= MAX_DEPTH else {repr(_form(each, depth + 1)): None for each in value}
        return sorted(forms)
    return type(value).__name__

"""Reads forms with a recording, for models that write down speech or translate it, as vLLM 0.32 takes them.

Only vLLM's own fields go on, each once and with a value of its type; what else a client sends is left out, as
vLLM does. The recording is not looked into, and its name goes nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engines.forms import FILE
from engines.protocol import Kind
from fleet.content import Media
from routing.errors import InvalidRequest, OverLimit
from routing.openai import bodies, prompts
from routing.openai.endpoints import ENDPOINTS
from routing.openai.limits import LARGEST_NUMBER, SMALLEST_NUMBER

GRANULARITIES = "timestamp_granularities[]"  # the one field that may come several times
# vLLM's fields beside those that the gateway writes itself (model, usage of streams) or drops (`vllm_xargs`).
TEXTS = ("language", "to_language", "prompt", "hotwords", "response_format")
BOOLEANS = (
    *("stream", "stream_include_usage", "stream_continuous_usage_stats"),
    *("use_beam_search", "include_stop_str_in_output", "watermarking"),
)
INTEGERS = ("n", "top_k", "seed", "max_completion_tokens")
NUMBERS = (
    *("temperature", "top_p", "min_p", "length_penalty"),
    *("frequency_penalty", "repetition_penalty", "presence_penalty"),
)
_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})  # as pydantic reads them
_FALSE = frozenset({"0", "false", "f", "no", "n", "off"})
_OWN = ("model", *bodies.USERS)  # read here as well


def parse(
    kind: Kind, given: Mapping[str, str], lists: Mapping[str, Sequence[str]], recording: bytes | None
) -> bodies.Call:
    """Read a form's fields and its file. Raises `InvalidRequest` that names the field."""
    if recording is None:
        raise InvalidRequest(f"`{FILE}` is required.", param=FILE, code="missing_required_parameter")
    if not recording:
        raise InvalidRequest(f"`{FILE}` must not be empty.", param=FILE, code="invalid_value")
    payload = _payload(given)
    if lists.get(GRANULARITIES):
        payload[GRANULARITIES] = list(lists[GRANULARITIES])
    wants_usage = payload.pop("stream_include_usage", False)
    running = payload.pop("stream_continuous_usage_stats", False)
    texts = sum(len(payload.get(name, "").encode()) for name in ENDPOINTS[kind].beside)
    size = prompts.PromptSize(text_bytes=texts, audios=1)
    user = bodies.user_of(payload)
    return bodies.Call(
        kind=kind,
        endpoint=ENDPOINTS[kind],
        payload=payload,
        content=FILE,
        model=payload.get("model"),
        stream=payload.get("stream", False),
        wants_usage=wants_usage,
        wants_running_usage=wants_usage and running,
        sequences=max(1, payload.get("n", 1)) if payload.get("use_beam_search") else 1,
        size=size,
        user=user,
        sticky=user,
        max_completion_tokens=payload.get("max_completion_tokens"),
        recording=recording,
    )


def check_size(recording: bytes, allowed: Media) -> None:
    """Raise `OverLimit` for a recording that is larger than a base model's media may be."""
    if len(recording) > allowed.max_bytes:
        raise OverLimit(
            f"`{FILE}` has {len(recording)} bytes; the most that is taken is {allowed.max_bytes}.", param=FILE
        )


def _payload(given: Mapping[str, str]) -> dict[str, Any]:
    """Return the known fields with their values; an empty one counts as not sent, as in vLLM's forms."""
    payload = {name: read(given[name]) for names, read in _READERS for name in names if given.get(name)}
    for name, value in payload.items():
        if value is None:
            raise _wrong(name)
    if payload.get("n", 1) < 1 or payload.get("max_completion_tokens", 1) < 1:
        name = "n" if payload.get("n", 1) < 1 else "max_completion_tokens"
        raise InvalidRequest(f"`{name}` must be at least 1.", param=name, code="invalid_value")
    return payload


def _boolean(text: str) -> bool | None:
    return text.lower() in _TRUE if text.lower() in _TRUE | _FALSE else None


def _integer(text: str) -> int | None:
    try:
        value = int(text) if len(text) <= 20 and text.isascii() else None
    except ValueError:
        return None
    return value if value is not None and SMALLEST_NUMBER <= value <= LARGEST_NUMBER else None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _wrong(name: str) -> InvalidRequest:
    words = "a boolean" if name in BOOLEANS else "an integer" if name in INTEGERS else "a number"
    return InvalidRequest(f"`{name}` must be {words}.", param=name, code="invalid_type")


# What reads the values of which fields; None: it is none of that type.
_READERS: tuple[tuple[tuple[str, ...], Callable[[str], Any]], ...] = (
    ((*_OWN, *TEXTS), str),
    (BOOLEANS, _boolean),
    (INTEGERS, _integer),
    (NUMBERS, _number),
)

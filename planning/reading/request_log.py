"""Reads requests from logs of one JSON object a line, as several programs write them.

Known are this gateway's own log, LiteLLM's spend logs, OpenAI's answers as such or as a batch's output file
has them, and whatever says `model`, a time and a `usage` alike.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from planning.reading.trace_file import MAX_READ, number_of, time_of
from planning.requests import DemandError, Requests
from planning.served import Served

_SNIFFED_LINES = 20  # programs say something else as they start
MAX_LINE_BYTES = 4 * 2**20
_BEGINS = ("arrived_at", "startTime", "start_time", "request_time", "created", "created_at")
_ENDS = ("endTime", "end_time", "time", "timestamp", "ts")
_TOOK = ("total_s", "duration_s", "latency_s")
_PROMPT = ("prompt_tokens", "input_tokens")
_COMPLETION = ("completion_tokens", "output_tokens")
_TENANT = ("tenant", "team_id", "end_user", "user")
Naming = Callable[[str, str, str], str]  # tenant, model, adapter -> the name of the model to plan for


def plain_name(tenant: str, model: str, adapter: str) -> str:
    """Return the model that a line means where no fleet is known: a tenant's names are its own."""
    name = adapter or model
    return f"{tenant}/{name}" if tenant and name else name


def read_log(path: Path, naming: Naming = plain_name, served: Served | None = None) -> Requests:
    """Return the requests of a log; what this gateway's engines did with them goes to `served`.

    Lines that are no JSON object, or of no request, are passed over.

    Raises `DemandError` where no line is a request, and `OSError`.
    """
    found = Requests()
    lines = 0
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES):
            lines += 1
            if len(found) >= MAX_READ:
                raise DemandError(
                    f"it has more than {MAX_READ} requests: give a part of it, such as one week"
                )
            if (entry := _object(line)) is not None:
                _add(found, entry, naming)
                if served is not None:
                    _add_served(served, entry, naming)
    if not found:
        raise DemandError(
            f"none of its {lines} lines is a request: a JSON object with `model`, a time and a `usage`"
        )
    return found


def is_log(first: bytes) -> bool:
    """Whether a file that begins so has a JSON object on one of its first lines."""
    return any(_object(line) is not None for line in first.splitlines()[:_SNIFFED_LINES])


def _object(line: bytes) -> Mapping[str, Any] | None:
    start = line.find(b"{")
    if start < 0:
        return None
    try:
        value = json.loads(line[start:])
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _add(found: Requests, entry: Mapping[str, Any], naming: Naming) -> None:
    body = entry
    for name in ("response", "body"):  # an answer inside a line about it; a batch's output has both
        if isinstance(inner := body.get(name), dict):
            body = inner
    layers = (entry, body, usage if isinstance(usage := body.get("usage"), dict) else {})
    model, adapter, tenant = (_text(layers, names) for names in (("model",), ("adapter",), _TENANT))
    if not model:
        return
    took_s = _number(layers, _TOOK)
    ended_s, begun_s = _time(layers, _ENDS), _time(layers, _BEGINS)
    if not math.isfinite(begun_s):
        begun_s = ended_s - took_s if math.isfinite(took_s) else ended_s
    elif not math.isfinite(took_s):
        took_s = ended_s - begun_s
    prompt, completion = _number(layers, _PROMPT), _number(layers, _COMPLETION)
    if not (math.isfinite(prompt) or math.isfinite(begun_s)):
        return
    found.add(
        begun_s,
        naming(tenant, model, adapter),
        0.0 if math.isnan(prompt) else prompt,
        0.0 if math.isnan(completion) else completion,
        cached=_cached(layers),
        tenant=tenant,
        took_s=took_s,
    )


def _add_served(served: Served, entry: Mapping[str, Any], naming: Naming) -> None:
    """Note what an engine did, where the line is this gateway's and its first try was answered."""
    replica, adapter = entry.get("replica"), str(entry.get("adapter") or "")
    if not isinstance(replica, str) or entry.get("outcome") != "completed" or entry.get("failed_on"):
        return
    numbers = ("total_s", "queue_s", "first_byte_s", "prompt_tokens", "cached_tokens", "completion_tokens")
    total_s, queue_s, first_s, prompt, cached, completion = (number_of(entry.get(name)) for name in numbers)
    name = naming(str(entry.get("tenant") or ""), str(entry.get("model") or ""), adapter)
    served.add(
        replica,
        name,
        name if adapter else "",
        granted_s=time_of(entry.get("time")) - total_s + queue_s,
        run_s=total_s - queue_s,
        tokens=(max(0.0, prompt - cached), completion),
        first_s=first_s - queue_s if entry.get("stream") else math.nan,
    )


def _cached(layers: tuple[Mapping[str, Any], ...]) -> float:
    for name in ("prompt_tokens_details", "input_tokens_details"):
        for layer in layers:
            if isinstance(details := layer.get(name), dict):
                value = number_of(details.get("cached_tokens"))
                return value if math.isfinite(value) else 0.0
    value = _number(layers, ("cached_tokens",))
    return value if math.isfinite(value) else 0.0


def _first(layers: tuple[Mapping[str, Any], ...], names: tuple[str, ...]) -> Any:
    return next((layer[name] for name in names for layer in layers if layer.get(name) is not None), None)


def _number(layers: tuple[Mapping[str, Any], ...], names: tuple[str, ...]) -> float:
    return number_of(_first(layers, names))


def _time(layers: tuple[Mapping[str, Any], ...], names: tuple[str, ...]) -> float:
    return time_of(_first(layers, names))


def _text(layers: tuple[Mapping[str, Any], ...], names: tuple[str, ...]) -> str:
    value = _first(layers, names)
    # JSON may name halves of characters, which no file and no terminal takes.
    return value.strip().encode(errors="replace").decode() if isinstance(value, str) else ""

"""Reads requests from CSV: time, model, prompt and completion, under the names that traces give them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from planning.requests import DemandError, Requests

MAX_READ = 2_000_000  # requests of one file: half a gigabyte while they are read
NAMES: Mapping[str, frozenset[str]] = {
    "time": frozenset({"time", "time_s", "timestamp", "arrived_at", "arrival_time", "start_time"}),
    "model": frozenset({"model", "model_name", "adapter"}),
    "prompt": frozenset({"prompt", "prompt_tokens", "contexttokens", "request tokens", "input_tokens", "in"}),
    "completion": frozenset(
        {"completion", "completion_tokens", "generatedtokens", "response tokens", "output_tokens", "out"}
    ),
    "cached": frozenset({"cached", "cached_tokens"}),
    "tenant": frozenset({"tenant", "user", "team"}),
}
NEEDED = ("time", "prompt", "completion")
_UNIX_FROM_S = 631_152_000.0  # 1990; smaller times count from any other begin
_LATEST_S = 1e11  # a Unix time this large would be after the year 5000
_UNITS = (1.0, 1e3, 1e6, 1e9)  # seconds, and finer ones


def is_trace(header: list[str]) -> bool:
    """Whether these are a trace's columns."""
    return not missing(header)


def missing(header: list[str]) -> list[str]:
    """Return the columns of a trace that are not among these."""
    places = _places(header)
    return [name for name in NEEDED if name not in places]


def read_trace(path: Path) -> tuple[Requests, bool]:
    """Return the requests of a file, and whether their times are Unix times.

    A file without a column of models is of one, called as the file. A number that cannot be read counts as
    missing. Raises `DemandError` and `OSError`.
    """
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = csv.reader(file)
        try:
            header = next((row for row in rows if any(row)), [])
            found = _requests(rows, _places(header), len(header), path.stem)
        except csv.Error as error:
            raise DemandError(f"line {rows.line_num} is no CSV: {error}") from None
    return found, bool(found) and min(filter(math.isfinite, found.time_s), default=0.0) >= _UNIX_FROM_S


def _requests(rows: Iterator[list[str]], places: Mapping[str, int], width: int, name: str) -> Requests:
    """Return the requests of rows; of one with more cells than columns nobody knows which is which."""
    found = Requests()
    for row in rows:
        if not any(row):
            continue
        if len(found) >= MAX_READ:
            raise DemandError(f"it has more than {MAX_READ} requests: give a part of it, such as one week")
        row = [] if any(row[width:]) else row
        cell = {column: row[place].strip() for column, place in places.items() if place < len(row)}
        found.add(
            time_of(cell.get("time", "")),
            cell.get("model", "") if "model" in places else name,
            number_of(cell.get("prompt", "")),
            number_of(cell.get("completion", "")),
            cached=number_of(cell["cached"]) if cell.get("cached") else 0.0,
            tenant=cell.get("tenant", ""),
        )
    return found


def time_of(value: object) -> float:
    """Return a time in seconds; NaN for what is none.

    A number is taken as it is, in seconds or, where it is as large as that, in milliseconds, microseconds or
    nanoseconds. A text is a number or ISO 8601, UTC unless it says otherwise.
    """
    seconds = number_of(value)
    if math.isfinite(seconds):
        return next((seconds / unit for unit in _UNITS if abs(seconds) < unit * _LATEST_S), math.nan)
    if not isinstance(value, str):
        return math.nan
    try:
        moment = datetime.fromisoformat(value.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, OSError):
        return math.nan


def number_of(value: object) -> float:
    """Return a number, or a text that is one; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _places(header: list[str]) -> dict[str, int]:
    names = [name.strip().lower() for name in header]
    return {
        column: names.index(next(name for name in names if name in spellings))
        for column, spellings in NAMES.items()
        if not spellings.isdisjoint(names)
    }

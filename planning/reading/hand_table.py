"""Reads a small table that somebody wrote: model, requests a day, tokens in and out; CSV or YAML."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fleet.types import Isolation
from planning.measuring import NOTHING, usual_spread
from planning.reading.trace_file import number_of
from planning.reading.yaml_file import read_yaml
from planning.requests import MAX_MODELS, MAX_TOKENS, DemandError
from planning.values import DAY_S, Demand, ModelDemand

MAX_BYTES = 16 * 2**20
MAX_PER_DAY = 1e9  # eleven thousand a second for one model
COLUMNS = {
    "model": "its name in the fleet",
    "requests/day": "how many requests a day",
    "in": "prompt tokens of one on average",
    "out": "completion tokens of one on average",
    "cached": "part of the prompt tokens in the prefix cache, 0..1; 0 without it",
    "burst": "coefficient of variation of the times between requests; 1 without it",
    "ttft_s": "objective for the first token, seconds",
    "tenant": "who asks for it",
    "isolation": "dedicated, or shared",
    "group": "models of different groups share no device",
}
NEEDED = ("model", "requests/day", "in", "out")
_SPELLINGS = {
    "requests per day": "requests/day",
    "requests_per_day": "requests/day",
    "rpd": "requests/day",
    "prompt": "in",
    "completion": "out",
}
_NO_HOURS = (
    "A table by hand knows no time of day: every hour is taken to be alike, and lengths as chats have them."
)


def is_table(header: Sequence[str]) -> bool:
    """Whether these are such a table's columns."""
    return not missing(header)


def read_table(path: Path) -> Demand:
    """Return the demand of a table. Raises `DemandError` that names the line or entry, and `OSError`."""
    if path.stat().st_size > MAX_BYTES:
        raise DemandError(f"it is larger than {MAX_BYTES // 2**20} MiB, which no table by hand is")
    entries = _of_yaml(path) if path.suffix.lower() in (".yaml", ".yml") else _of_csv(path)
    models: dict[str, ModelDemand] = {}
    for where, entry in entries:
        _once(where, entry)
        one = _model(where, {_spelled(name): value for name, value in entry.items()})
        if one.model in models:
            raise DemandError(f"{where}: {one.model!a} is there twice")
        models[one.model] = one
    if not models:
        raise DemandError("it names no model")
    if len(models) > MAX_MODELS:
        raise DemandError(f"it names more than {MAX_MODELS} models")
    ordered = tuple(models[name] for name in sorted(models))
    return Demand(f"table {path.name}", None, DAY_S, ordered, notes=(_NO_HOURS,))


def missing(header: Sequence[str]) -> list[str]:
    """Return the columns of a table that are not among these."""
    return [name for name in NEEDED if name not in {_spelled(column) for column in header}]


def _once(where: str, names: Iterable[str]) -> None:
    """Refuse a column that is there twice, in whatever spelling."""
    twice = [name for name, count in Counter(map(_spelled, names)).items() if count > 1]
    if twice:
        raise DemandError(f"{where}: `{twice[0]}` is there twice")


def _of_csv(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = csv.reader(file)
        found: list[tuple[str, Mapping[str, Any]]] = []
        try:
            header = next((row for row in rows if _is_filled(row)), [])
            _once(f"line {rows.line_num}", header)
            for row in rows:
                if _is_filled(row[len(header) :]):
                    raise DemandError(
                        f"line {rows.line_num} has more cells than there are columns: write numbers without "
                        "commas, and names with commas in quotes"
                    )
                if _is_filled(row):
                    found.append((f"line {rows.line_num}", dict(zip(header, row, strict=False))))
        except csv.Error as error:
            raise DemandError(f"line {rows.line_num} is no CSV: {error}") from None
        return found


def _is_filled(row: Iterable[str]) -> bool:
    return any(cell.strip() for cell in row)


def _of_yaml(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    document = read_yaml(path)
    found = document.data
    if isinstance(found, dict):  # name -> the rest
        entries = [
            (document.lines[name,], {"model": name, **_mapping(value)}) for name, value in found.items()
        ]
    elif isinstance(found, list):
        entries = [(document.lines[index,], _mapping(value)) for index, value in enumerate(found)]
    else:
        entries = [(1, {})]
    for line, entry in entries:
        if not entry or entry.keys() == {"model"}:
            raise DemandError(
                f"line {line}: it must be a list of models, each with `model`, `requests/day`, `in` and `out`"
            )
    return [(f"line {line}", entry) for line, entry in entries]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _model(where: str, entry: Mapping[str, Any]) -> ModelDemand:
    name = _text(where, entry, "model")
    if not name:
        raise DemandError(f"{where} has no `model`")
    unknown = sorted(entry.keys() - COLUMNS.keys())
    if unknown:
        raise DemandError(f"{where}: {unknown[0]!a} is unknown; there are {', '.join(COLUMNS)}")
    per_day = _number(where, entry, "requests/day", MAX_PER_DAY)
    prompt, completion = _number(where, entry, "in", MAX_TOKENS), _number(where, entry, "out", MAX_TOKENS)
    isolation = (_text(where, entry, "isolation") or Isolation.SHARED.value).lower()
    if isolation not in tuple(Isolation):
        raise DemandError(f"{where}: isolation is {isolation!a}; it can be {' or '.join(Isolation)}")
    objective = _number(where, entry, "ttft_s", DAY_S, default=0.0)
    tenant = _text(where, entry, "tenant")
    return ModelDemand(
        model=name,
        tenants=(tenant,) if tenant else (),
        requests=per_day,
        hourly=(per_day / 24,) * 24,
        prompt=usual_spread(prompt) if prompt else NOTHING,
        completion=usual_spread(completion) if completion else NOTHING,
        cached=_number(where, entry, "cached", 1.0, default=0.0),
        burstiness=_number(where, entry, "burst", 100.0, default=1.0) or 1.0,
        ttft_s=objective or None,
        isolation=Isolation(isolation),
        group=_text(where, entry, "group"),
    )


def _text(where: str, entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    if isinstance(value, list | dict):
        raise DemandError(f"{where}: `{name}` is a list; it is one text")
    return "" if value is None else str(value).strip()


def _number(
    where: str, entry: Mapping[str, Any], name: str, most: float, *, default: float | None = None
) -> float:
    value = entry.get(name)
    if value in (None, ""):
        if default is None:
            raise DemandError(f"{where} has no `{name}`: {COLUMNS[name]}")
        return default
    number = number_of(value.replace("_", "") if isinstance(value, str) else value)
    if not (math.isfinite(number) and 0 <= number <= most):
        raise DemandError(f"{where}: `{name}` is {str(value)[:40]!a}; it is a number from 0 to {most:g}")
    return number


def _spelled(name: str) -> str:
    plain = name.strip().lower()
    return _SPELLINGS.get(plain, plain)

"""Reads and writes costs that were measured, as JSON: what `tenantry plan calibrate` leaves for plans."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from planning.catalogue import known
from planning.costs import Measured
from planning.requests import DemandError
from planning.values import Figure, ServingCost, Source, Way

MAX_BYTES = 16 * 2**20
_FIGURES = tuple(field.name for field in fields(ServingCost) if field.name.endswith("_s"))
_MOST_S = 86_400.0


def written(measured: Iterable[Measured]) -> str:
    """Return what `read_costs` reads."""
    costs = [{"shape": one.shape, **asdict(one.cost)} for one in measured]
    return json.dumps({"costs": costs}, indent=1) + "\n"


def read_costs(path: Path) -> list[Measured]:
    """Return the costs of a file. Raises `DemandError` that names what is wrong, and `OSError`."""
    if path.stat().st_size > MAX_BYTES:
        raise DemandError(f"{path.name} is larger than {MAX_BYTES // 2**20} MiB")
    try:
        told = json.loads(path.read_text())
        entries = told["costs"]
        return [_measured(entry) for entry in entries]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise DemandError(
            f"{path.name} is no file of costs ({type(error).__name__}: {str(error)[:120]}); "
            "`tenantry plan calibrate` writes one"
        ) from None


def _measured(entry: Mapping[str, Any]) -> Measured:
    figures = {name: _figure(name, entry[name]) for name in _FIGURES if name in entry}
    switches = {Way(way): _figure(way, value) for way, value in entry.get("switches", {}).items()}
    cost = ServingCost(str(entry["model"]), str(entry["device"]), **figures, switches=switches)
    return Measured(cost, str(entry.get("shape", "")), known(cost.device))


def _figure(name: str, entry: Mapping[str, Any]) -> Figure:
    value = float(entry["value"])
    if not (math.isfinite(value) and 0 <= value <= _MOST_S):
        raise ValueError(f"{name} is {value}")
    return Figure(value, Source(entry["source"]), str(entry.get("detail", "")))

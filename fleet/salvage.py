"""Finds the valid parts of a refused fleet file, so that they can be checked further. Pure.

A part with an error in it is left out whole, since its meaning is unknown. The names in
it are still looked at, and so is its source.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from fleet import prices, schema, settings
from fleet.problems import KeyPath

PARTS: dict[str, type[BaseModel]] = {
    "base_models": schema.BaseModelSection,
    "adapters": schema.AdapterSection,
    "tenants": schema.TenantSection,
    "pools": schema.PoolSection,
}
_SINGLE: dict[str, type[BaseModel]] = {
    "gateway": settings.GatewaySection,
    "state": settings.StateSection,
    "usage": settings.UsageSection,
}


@dataclass(frozen=True, slots=True)
class Salvage:
    """The valid parts of a file, and the others."""

    file: schema.FleetFile  # may lack whole sections
    unknown: frozenset[str]  # unreadable sections: any name may be in them
    left_out: tuple[tuple[KeyPath, dict[str, Any]], ...]  # parts with errors, as they are written
    wrong: frozenset[KeyPath]  # where the errors are

    def is_wrong(self, section: str) -> bool:
        """Whether a section has an error, so that it was left out or is not whole."""
        return _touched((section,), self.wrong)

    def texts(self) -> Iterator[tuple[KeyPath, str]]:
        """Yield the texts in the parts that were left out, except the refused ones."""
        for path, values in self.left_out:
            for text_path, text in _texts(path, values):
                if not any(text_path[:length] in self.wrong for length in range(1, len(text_path) + 1)):
                    yield text_path, text


def salvage(data: dict[str, Any], errors: Sequence[ErrorDetails]) -> Salvage:
    """Keep the parts without errors."""
    wrong = frozenset(tuple(error["loc"]) for error in errors)
    unknown = frozenset(path[0] for path in wrong if len(path) == 1 and path[0] in PARTS)
    standing: dict[str, Any] = {}
    left_out: list[tuple[KeyPath, dict[str, Any]]] = []
    for section, kind in PARTS.items():
        values = data.get(section)
        parts = standing.setdefault(section, {})
        for name, value in values.items() if isinstance(values, dict) else ():
            if not _touched((section, name), wrong):
                parts[name] = kind.model_validate(value)
            elif isinstance(value, dict):
                left_out.append(((section, name), value))
    for section, kind in _SINGLE.items():
        standing[section] = kind.model_validate({} if _touched((section,), wrong) else data.get(section, {}))
    standing["prices"] = _prices(None if _touched(("prices",), wrong) else data.get("prices"))
    file = schema.FleetFile.model_construct(**standing)
    return Salvage(file, frozenset(map(str, unknown)), tuple(left_out), wrong)


def _prices(value: Any) -> prices.PricesSection | None:
    return None if value is None else prices.PricesSection.model_validate(value)


def _touched(path: KeyPath, wrong: frozenset[KeyPath]) -> bool:
    return any(one[: len(path)] == path for one in wrong)


def _texts(path: KeyPath, value: Any) -> Iterator[tuple[KeyPath, str]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _texts((*path, key), inner)
    if isinstance(value, str):
        yield path, value

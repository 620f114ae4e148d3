"""Which usage is asked for, and how is it answered? What a query may say, and the answer's shape. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from fleet.money import written
from routing.errors import InvalidRequest

DIMENSIONS = ("day", "tenant", "key", "model", "adapter", "version", "pool", "outcome")
FOR_TENANTS = ("day", "key", "model", "adapter", "version", "outcome")
MEASURES = (
    "requests",
    "estimated_requests",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "queue_s",
    "run_s",
    "slot_s",
    "engine_s",
    "switch_s",
    "priced_requests",
    "cost",
)
COUNTS = frozenset(name for name in MEASURES if not name.endswith("_s"))
DEFAULT_DAYS = 30
MAX_DAYS = 1100  # three years and a bit
MAX_ROWS = 10_000
# Dimensions that were asked for, then measures; a cost is a decimal number as text, null where nothing had
# a price.
UsageLine = dict[str, Any]


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Sums over some days, both included, split by some dimensions."""

    first: date
    last: date
    group_by: tuple[str, ...]  # in the order of DIMENSIONS
    tenant: str | None = None  # its account; None: all of them
    former: bool = False  # and the accounts of those that had the tenant's name before or after it


def read_query(
    fields: Mapping[str, str | None],
    *,
    now_s: float,
    tenant: str | None,
    allowed: Sequence[str] = DIMENSIONS,
    former: bool = False,
) -> UsageQuery:
    """Read `from`, `to` and `group_by`. Raises `InvalidRequest` that names what is wrong.

    Without `to` the last day is today, UTC; without `from` the first is 29 days earlier.
    """
    last = _day(fields, "to") or datetime.fromtimestamp(now_s, UTC).date()
    first = _day(fields, "from") or _days_before(last, DEFAULT_DAYS - 1)
    if first > last:
        raise _invalid("from", f"`from` ({first}) is after `to` ({last}).")
    if (last - first).days >= MAX_DAYS:
        raise _invalid("from", f"At most {MAX_DAYS} days can be asked for at once.")
    return UsageQuery(first, last, _dimensions(fields.get("group_by"), allowed), tenant, former)


def only_known(given: Iterable[tuple[str, str]], known: Sequence[str]) -> dict[str, str]:
    """Return the parameters of a URL, each given once. Raises `InvalidRequest` for any other."""
    fields: dict[str, str] = {}
    for name, value in given:
        if name not in known:
            shown = name[:100]
            raise InvalidRequest(
                f"`{shown}` is unknown; there are {', '.join(known)}.", param=shown, code="unknown_parameter"
            )
        if name in fields:
            raise _invalid(name, f"`{name}` was given twice.")
        fields[name] = value
    return fields


def answer(query: UsageQuery, lines: Sequence[UsageLine], currency: str | None = None) -> dict[str, Any]:
    """Build the answer: the lines and their total. Raises `InvalidRequest` where there are too many."""
    if len(lines) > MAX_ROWS:
        raise _invalid(
            "group_by", f"That makes more than {MAX_ROWS} lines; ask for fewer days, or split by less."
        )
    return {
        "object": "list",
        "from": query.first.isoformat(),
        "to": query.last.isoformat(),
        "group_by": list(query.group_by),
        "currency": currency,
        "data": [_with_cost(line) for line in lines],
        "total": _with_cost({name: _rounded(name, sum(line[name] for line in lines)) for name in MEASURES}),
    }


def line(group_by: Sequence[str], values: Sequence[Any]) -> UsageLine:
    """Build one line of dimensions and measures, in that order; an adapter or a key that is none is null."""
    dimensions = dict(zip(group_by, values, strict=False))
    if "adapter" in dimensions:
        dimensions["adapter"] = dimensions["adapter"] or None
    if "key" in dimensions:
        dimensions["key"] = dimensions["key"] or None
    if "version" in dimensions:
        dimensions["version"] = dimensions["version"] or None
    measures = zip(MEASURES, values[len(group_by) :], strict=True)
    return dimensions | {name: _rounded(name, value or 0) for name, value in measures}


def _with_cost(line: UsageLine) -> UsageLine:
    """Write a line's cost as answers have it."""
    return line | {"cost": written(line["cost"]) if line["priced_requests"] else None}


def _rounded(name: str, value: Any) -> int | float:
    return int(value) if name in COUNTS else round(float(value), 6)


def _day(fields: Mapping[str, str | None], name: str) -> date | None:
    text = fields.get(name)
    if text is None:
        return None
    try:
        day = date.fromisoformat(text)
        if day.isoformat() != text:  # ISO 8601 has other ways to write a day
            raise ValueError
    except ValueError:
        raise _invalid(name, f"`{name}` must be a day like 2026-01-31, UTC.") from None
    return day


def _days_before(day: date, days: int) -> date:
    try:
        return day - timedelta(days)
    except OverflowError:
        return date.min


def _dimensions(text: str | None, allowed: Sequence[str]) -> tuple[str, ...]:
    wanted = {name.strip() for name in text.split(",")} if text else set()
    unknown = sorted(wanted - set(allowed))
    if unknown:
        raise _invalid("group_by", f"`group_by` takes {', '.join(allowed)}, separated by commas.")
    return tuple(name for name in DIMENSIONS if name in wanted)


def _invalid(param: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, param=param, code="invalid_value")

"""Reads counters by the hour from a Prometheus server, through its HTTP API."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import httpx

from planning.measuring import how_little
from planning.reading.counters import FAMILIES, Family, of_counters
from planning.reading.request_log import Naming, plain_name
from planning.requests import MAX_MODELS, DemandError
from planning.values import DAY_S, HOUR_S, Demand

WINDOW_S = 14 * DAY_S  # asked for where nothing else is said; Prometheus keeps 15 days by itself
MAX_WINDOW_S = 180 * DAY_S  # a query answers with at most 11 000 points of a series
TIMEOUT_S = 60.0
_NAMES = ("requests", "prompt", "completion", "cached")


def read_prometheus(
    url: str,
    client: httpx.Client,
    *,
    now_s: float,
    over_s: float = WINDOW_S,
    naming: Naming = plain_name,
) -> Demand:
    """Return the demand of the last `over_s` seconds, hour by hour. Raises `DemandError`.

    Whole hours count, and those before the first request do not.
    """
    if not HOUR_S <= over_s <= MAX_WINDOW_S:
        raise DemandError(f"between an hour and {MAX_WINDOW_S / DAY_S:.0f} days can be asked for at once")
    hours = int(over_s // HOUR_S)
    asked = _Asked(url, client, math.floor(now_s / HOUR_S) * HOUR_S, hours, naming)
    for family in FAMILIES:
        table = {name: asked.by_hour(family, name) for name in _NAMES}
        if any(sum(counts) > 0 for counts in table["requests"].values()):
            return _demand(asked, family, table)
    programs = ", ".join(family.program for family in FAMILIES)
    raise DemandError(f"it has no request of {programs} in the last {hours} hours")


class _Asked:
    """Questions about the same hours to one server."""

    def __init__(self, url: str, client: httpx.Client, ends_s: float, hours: int, naming: Naming) -> None:
        self.url, self.ends_s, self.hours = url, ends_s, hours
        self.tenants: dict[str, set[str]] = defaultdict(set)
        self._client, self._naming = client, naming

    def by_hour(self, family: Family, name: str) -> dict[str, list[float]]:
        """Return a counter's growth in each hour, by model. Raises `DemandError`."""
        counter = getattr(family, name)
        if not counter:
            return {}
        query = f'sum by ({", ".join(family.labels)}) (increase({{__name__="{counter}_total"}}[1h]))'
        begins_s = self.ends_s - (self.hours - 1) * HOUR_S
        found: dict[str, list[float]] = defaultdict(lambda: [0.0] * self.hours)
        times = {"start": begins_s, "end": self.ends_s, "step": HOUR_S}
        for series in _asked(self.url, self._client, {"query": query, **times}):
            labels = {str(key): str(value) for key, value in series.get("metric", {}).items()}
            model, tenant = family.owner(labels, self._naming)
            if model:
                self.tenants[model] |= {tenant} - {""}
                _add(found[model], series.get("values", ()), begins_s)
        if len(found) > MAX_MODELS:
            raise DemandError(f"it names more than {MAX_MODELS} models")
        return found


def _add(hours: list[float], values: Iterable[Sequence[Any]], begins_s: float) -> None:
    """Add (Unix time, growth of the hour before as text) to hours, of which the first ends at `begins_s`."""
    for at_s, value in values:
        hour, grown = round((float(at_s) - begins_s) / HOUR_S), float(value)
        if 0 <= hour < len(hours) and math.isfinite(grown) and grown > 0:
            hours[hour] += grown


def _asked(url: str, client: httpx.Client, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Ask for a range. Raises `DemandError` for anything but a matrix."""
    address = f"{url.rstrip('/')}/api/v1/query_range"
    try:
        answer = client.post(address, data=dict(params), timeout=TIMEOUT_S)
    except httpx.HTTPError as error:
        raise DemandError(f"it does not answer: {str(error) or type(error).__name__}") from None
    try:
        told = answer.json()
    except ValueError:
        raise DemandError(
            f"it answers with status {answer.status_code} and no JSON: is it Prometheus's address?"
        ) from None
    if not isinstance(told, dict) or told.get("status") != "success":
        what = str(told.get("error", "") if isinstance(told, dict) else "")[:200]
        raise DemandError(f"it refuses the query (status {answer.status_code}): {what or 'no reason given'}")
    try:
        result = told["data"]["result"]
        return [series for series in result if isinstance(series, dict)]
    except (KeyError, TypeError):
        raise DemandError("its answer has no result: is it Prometheus's address?") from None


def _demand(asked: _Asked, family: Family, table: Mapping[str, Mapping[str, list[float]]]) -> Demand:
    requests = table["requests"]
    first = min(hour for counts in requests.values() for hour, count in enumerate(counts) if count > 0)
    models = []
    for model, counts in sorted(requests.items()):
        hourly = tuple(counts[first:])
        if sum(hourly) > 0:
            counted = {name: sum(table[name].get(model, [])[first:]) for name in _NAMES}
            models.append(of_counters(model, asked.tenants[model], counted, hourly))
    duration_s = (asked.hours - first) * HOUR_S
    notes = (
        "Counters tell no bursts and no lengths but their means: lengths are taken as chats have them.",
        *how_little(duration_s, models),
    )
    source = f"{family.program}'s counters in {httpx.URL(asked.url).host or 'Prometheus'}"
    return Demand(source, asked.ends_s - duration_s, duration_s, tuple(models), notes=notes)

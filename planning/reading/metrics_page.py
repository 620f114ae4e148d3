"""Reads a page of counters as Prometheus scrapes it: of vLLM, LiteLLM or this gateway.

A page tells sums since its program started: how much, and hardly when.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from planning.measuring import LEAST_S
from planning.reading.counters import FAMILIES, Family, of_counters
from planning.reading.request_log import Naming, plain_name
from planning.requests import DemandError
from planning.values import HOUR_S, Demand, Spread
from planning.words import span

MAX_BYTES = 64 * 2**20
MAX_AGE_S = 3 * 365 * 86_400.0
_STARTED = "process_start_time_seconds"
_HISTOGRAMS = ("vllm:request_prompt_tokens", "vllm:request_generation_tokens")
Samples = Mapping[str, Sequence[tuple[Mapping[str, str], float]]]


def is_page(first: str) -> bool:
    """Whether a text that begins so is a page of metrics."""
    return first.lstrip().startswith(("# HELP", "# TYPE"))


def read_page(
    text: str, source: str, *, now_s: float, over_s: float | None = None, naming: Naming = plain_name
) -> Demand:
    """Return the demand of a page; its counters run since `over_s` ago, or else since the start it tells.

    Raises `DemandError`.
    """
    samples = _samples(text)
    family = next((one for one in FAMILIES if f"{one.requests}_total" in samples), None)
    if family is None:
        known = ", ".join(f"{one.program}'s ({one.requests}_total)" for one in FAMILIES)
        raise DemandError(f"it has no counter of requests by model; known are {known}")
    duration_s = over_s if over_s is not None else _age_s(samples, now_s)
    counted, tenants = _counted(samples, family, naming)
    spreads = _spreads(samples, family, naming) if family.program == "vLLM" else {}
    hours = max(1, math.ceil(duration_s / HOUR_S))
    models = []
    for name, each in sorted(counted.items()):
        requests = each.get("requests", 0.0)
        if requests > 0:
            hourly = _evenly(requests, duration_s, hours)
            models.append(of_counters(name, tenants[name], each, hourly, spreads.get(name, (None, None))))
    if not models:
        raise DemandError("its counters of requests are all 0")
    note = (
        "A page of counters tells no time of day and no bursts: every hour is taken to be alike. Prometheus "
        "(its URL) or the ledger tell more."
    )
    return Demand(f"{family.program}'s counters, {source}", None, duration_s, tuple(models), notes=(note,))


def _samples(text: str) -> dict[str, list[tuple[Mapping[str, str], float]]]:
    """Return the samples that count, by name."""
    found: dict[str, list[tuple[Mapping[str, str], float]]] = defaultdict(list)
    wanted = {f"{name}_total" for family in FAMILIES for name in family.counters}
    wanted |= {f"{name}_bucket" for name in _HISTOGRAMS} | {_STARTED}
    try:
        for metric in text_string_to_metric_families(text):
            for sample in metric.samples:
                if sample.name in wanted and math.isfinite(sample.value) and sample.value >= 0:
                    found[sample.name].append((sample.labels, sample.value))
    except ValueError as error:
        raise DemandError(f"it is no page of metrics: {' '.join(str(error).split())[:200]}") from None
    return found


def _age_s(samples: Samples, now_s: float) -> float:
    started = [value for _, value in samples.get(_STARTED, ())]
    if not started:
        raise DemandError(
            f"it does not say since when it counts ({_STARTED} is missing): say so with --over, such as 7d"
        )
    age_s = now_s - min(started)
    if not LEAST_S <= age_s <= MAX_AGE_S:
        raise DemandError(
            f"its program started {span(age_s)} ago by this machine's clock, which is too short or too long: "
            "say with --over how long its counters have run"
        )
    return age_s


def _counted(
    samples: Samples, family: Family, naming: Naming
) -> tuple[dict[str, dict[str, float]], dict[str, set[str]]]:
    """Return the sums of each model, and who asked for it."""
    counted: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    tenants: dict[str, set[str]] = defaultdict(set)
    for name in ("requests", "prompt", "completion", "cached"):
        for labels, value in samples.get(f"{getattr(family, name)}_total", ()):
            model, tenant = family.owner(labels, naming)
            if model:
                counted[model][name] += value
                tenants[model] |= {tenant} - {""}
    return counted, tenants


def _evenly(requests: float, duration_s: float, hours: int) -> tuple[float, ...]:
    """Spread requests evenly over hours, of which the last one may be shorter."""
    lengths = [min(HOUR_S, duration_s - HOUR_S * hour) for hour in range(hours)]
    return tuple(requests * length / duration_s for length in lengths)


def _spreads(
    samples: Samples, family: Family, naming: Naming
) -> dict[str, tuple[Spread | None, Spread | None]]:
    """Return the distributions that histograms show, of prompt and completion."""
    found = []
    for histogram in _HISTOGRAMS:
        buckets: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
        for labels, value in samples.get(f"{histogram}_bucket", ()):
            buckets[family.owner(labels, naming)[0]][_bound(labels)] += value
        found.append({name: of_buckets(each.items()) for name, each in buckets.items()})
    return {name: (found[0].get(name), found[1].get(name)) for name in found[0].keys() | found[1].keys()}


def of_buckets(buckets: Iterable[tuple[float, float]]) -> Spread | None:
    """Return the distribution of a histogram of (upper bound, how many are below); None of an empty one.

    Between two bounds values are taken to lie evenly.
    """
    ordered = sorted((bound, count) for bound, count in buckets if not math.isnan(bound))
    total = ordered[-1][1] if ordered else 0.0
    if total <= 0:
        return None
    finite = [bound for bound, _ in ordered if math.isfinite(bound)]
    edges = [0.0, *(min(bound, 2 * finite[-1]) if finite else 1.0 for bound, _ in ordered)]
    below = [0.0, *(count for _, count in ordered)]
    mean = sum(
        (low + high) / 2 * max(0.0, right - left)
        for low, high, left, right in zip(edges, edges[1:], below, below[1:], strict=False)
    )
    p50, p90, p99, most = (_quantile(edges, below, part * total) for part in (0.5, 0.9, 0.99, 1.0))
    return Spread(mean / total, p50, p90, p99, most)


def _quantile(edges: Sequence[float], below: Sequence[float], count: float) -> float:
    for i in range(1, len(edges)):
        if below[i] >= count:
            inside = below[i] - below[i - 1]
            part = (count - below[i - 1]) / inside if inside > 0 else 1.0
            return edges[i - 1] + part * (edges[i] - edges[i - 1])
    return edges[-1]


def _bound(labels: Mapping[str, Any]) -> float:
    try:
        return float(labels.get("le", "nan"))
    except ValueError:
        return math.nan

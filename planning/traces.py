"""Requests to simulate: those that were recorded, a part of them, or such as rates let expect. Pure.

No public trace names models, and a table by hand has no arrivals: those are made, from a seed, with each
model's hourly rates, bursts and lengths.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np
from numpy.typing import NDArray

from planning.measuring import stretched
from planning.requests import Floats
from planning.values import Demand, ModelDemand, Spread, Trace

MAX_REQUESTS = 2_000_000  # made at once: some 100 MB


def synthetic(
    demand: Demand, *, seed: int, begin_s: float = 0.0, duration_s: float, growth: float = 1.0
) -> Trace:
    """Make requests as a demand lets expect in a part of its time, `growth` times as many.

    Times of the trace begin with 0 at `begin_s`. Past the demand's end its hours begin anew. Raises
    `ValueError` where there would be more than MAX_REQUESTS.
    """
    expected = [_expected(one, demand.duration_s, begin_s, duration_s) for one in demand.models]
    if growth * sum(float(each[1][-1]) for each in expected) > MAX_REQUESTS:
        raise ValueError(f"more than {MAX_REQUESTS} requests: simulate a shorter time")
    parts = []
    for index, (one, (edges, counts)) in enumerate(zip(demand.models, expected, strict=True)):
        chance = np.random.default_rng((seed, index))
        times = np.interp(
            _arrivals(chance, growth * float(counts[-1]), one.burstiness), growth * counts, edges
        )
        parts.append(_requests(chance, times, one, index))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)] if parts else [np.empty(0)] * 5
    order = np.argsort(columns[0], kind="stable")
    time_s, model, prompt, cached, completion = (column[order] for column in columns)
    return Trace(
        tuple(one.model for one in demand.models),
        time_s,
        *(column.astype(np.int32) for column in (model, prompt, cached, completion)),
    )


def busiest(trace: Trace, duration_s: float) -> Trace:
    """Return the part of a trace of this length with the most tokens; its times begin with 0."""
    if not len(trace) or trace.time_s[-1] <= duration_s:
        return trace
    work = np.concatenate(([0.0], np.cumsum(trace.prompt + trace.completion, dtype=np.float64)))
    ends = np.searchsorted(trace.time_s, trace.time_s + duration_s, side="left")
    first = int(np.argmax(work[ends] - work[:-1]))
    return part(trace, float(trace.time_s[first]), duration_s)


def part(trace: Trace, begin_s: float, duration_s: float) -> Trace:
    """Return the requests of some time; its times begin with 0."""
    first, end = np.searchsorted(trace.time_s, (begin_s, begin_s + duration_s), side="left")
    chosen = slice(int(first), int(end))
    return replace(
        trace,
        time_s=trace.time_s[chosen] - begin_s,
        model=trace.model[chosen],
        prompt=trace.prompt[chosen],
        cached=trace.cached[chosen],
        completion=trace.completion[chosen],
    )


def grown(trace: Trace, growth: float) -> Trace:
    """Return the same requests in less time, or in more: `growth` times as many a second."""
    if growth <= 0:
        raise ValueError("growth must be above 0")
    return replace(trace, time_s=trace.time_s / growth)


def _expected(one: ModelDemand, period_s: float, begin_s: float, duration_s: float) -> tuple[Floats, Floats]:
    """Return times from `begin_s` on, and how many arrivals are expected until each."""
    edges, counts = stretched(one.hourly, period_s)
    repeats = max(1, ceil((begin_s + duration_s) / period_s))
    all_edges = np.concatenate(
        [edges[: -1 if i < repeats - 1 else None] + i * period_s for i in range(repeats)]
    )
    all_counts = np.concatenate(
        [counts[: -1 if i < repeats - 1 else None] + i * counts[-1] for i in range(repeats)]
    )
    inside = all_edges[(all_edges > begin_s) & (all_edges < begin_s + duration_s)]
    wanted = np.concatenate(([begin_s], inside, [begin_s + duration_s]))
    found = np.interp(wanted, all_edges, all_counts)
    return wanted - begin_s, found - found[0]


def _arrivals(chance: np.random.Generator, count: float, burstiness: float) -> Floats:
    """Return arrivals of a renewal process of rate 1 in [0, count): gaps by a Gamma law, mean 1.

    It starts long before 0, so that where a burst begins is by chance.
    """
    if count <= 0:
        return np.empty(0)
    shape = 1.0 / max(burstiness, 0.05) ** 2
    found: list[Floats] = []
    # The first arrival is a part of a gap that was chosen in proportion to its length (Cox, 1962).
    at = float(chance.gamma(shape + 1.0) / shape * chance.random())
    while at < count:
        gaps = chance.gamma(shape, 1.0 / shape, size=int((count - at) * 1.1) + 16)
        times = at + np.concatenate(([0.0], np.cumsum(gaps)))
        found.append(times[:-1])
        at = float(times[-1])
    times = np.concatenate(found) if found else np.empty(0)
    return times[times < count]


def _requests(
    chance: np.random.Generator, times: Floats, one: ModelDemand, index: int
) -> tuple[NDArray[np.float64], ...]:
    prompt = np.maximum(1.0, _lengths(chance, one.prompt, len(times)))
    completion = np.maximum(1.0, _lengths(chance, one.completion, len(times)))
    return times, np.full(len(times), float(index)), prompt, prompt * one.cached, completion


def _lengths(chance: np.random.Generator, spread: Spread, count: int) -> Floats:
    """Draw from a distribution that has these quantiles, and its logarithm straight between them."""
    if spread.most <= 0:
        return np.ones(count)
    values = np.maximum.accumulate(np.log(np.maximum(1.0, [spread.p50, spread.p90, spread.p99, spread.most])))
    least = max(0.0, 2 * values[0] - values[2])  # as far below the median as the 99th percentile is above
    drawn = np.interp(chance.random(count), (0.0, 0.5, 0.9, 0.99, 1.0), (least, *values))
    return np.asarray(np.exp(drawn), dtype=np.float64)

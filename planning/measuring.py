"""What do requests say of the demand? Rates by the hour, lengths, bursts, and how little is known. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from planning.requests import Floats, Sifted
from planning.values import DAY_S, HOUR_S, Demand, ModelDemand, Spread, Trace
from planning.words import lasting

FEW = 20  # requests of a model below which its lengths and bursts are guesses
LEAST_S = 60.0  # a demand is taken to last at least this long
USUAL_SIGMA = 1.0  # of log-normal lengths whose mean alone is known: p99 to p50 is 10, as in chats
NOTHING = Spread(0.0, 0.0, 0.0, 0.0, 0.0)
_MOST_BURSTY = 50.0  # coefficients of variation above this are of a handful of bursts


def measured(found: Sifted, source: str, *, unix: bool = True, ends_s: float | None = None) -> Demand:
    """Return the demand that requests show.

    `unix` says whether their times are Unix times. `ends_s`, in their times, is when the recording ended;
    without it the last arrival is the end.
    """
    last = float(found.time_s[-1]) if ends_s is None else ends_s - found.begins_s
    duration_s = max(last, float(found.time_s[-1]), LEAST_S)
    order = np.argsort(found.model, kind="stable")
    rows_of = np.split(order, np.searchsorted(found.model[order], np.arange(1, len(found.models))))
    trace = Trace(
        models=found.models,
        time_s=found.time_s,
        model=found.model,
        prompt=_filled(found.prompt, rows_of),
        cached=found.cached,
        completion=_filled(found.completion, rows_of),
    )
    models = tuple(
        _of_model(found, rows, name, duration_s) for name, rows in zip(found.models, rows_of, strict=True)
    )
    notes = (*found.notes, *how_little(duration_s, models))
    return Demand(source, found.begins_s if unix else None, duration_s, models, trace, notes)


def how_little(duration_s: float, models: Sequence[ModelDemand]) -> list[str]:
    """Say what so short a time and so few requests do not tell."""
    notes = []
    if duration_s < DAY_S:
        notes.append(
            f"It covers {lasting(duration_s)}: nothing is known of the other hours of a day; peaks "
            "and who peaks together may look quite different."
        )
    elif duration_s < 6.5 * DAY_S:
        notes.append(
            f"It covers {lasting(duration_s)}: nothing is known of the rest of a week, nor of growth."
        )
    few = [one.model for one in models if one.requests < FEW]
    if few:
        notes.append(
            f"{len(few)} of {len(models)} models had fewer than {FEW} requests: their lengths and "
            "bursts are guesses."
        )
    return notes


def spread_of(tokens: NDArray[np.int32]) -> Spread:
    """Return the distribution of some token counts; of none, zeros."""
    if not len(tokens):
        return NOTHING
    p50, p90, p99 = (float(value) for value in np.quantile(tokens, (0.5, 0.9, 0.99)))
    return Spread(float(tokens.mean()), p50, p90, p99, float(tokens.max()))


def usual_spread(mean: float) -> Spread:
    """Return a distribution as lengths usually have it, for a mean alone: log-normal."""
    median = mean * math.exp(-(USUAL_SIGMA**2) / 2)
    p90, p99, most = (median * math.exp(USUAL_SIGMA * z) for z in (1.2816, 2.3263, 3.2905))
    return Spread(mean, median, p90, p99, most)


def hourly_counts(times: Floats, duration_s: float) -> tuple[float, ...]:
    """Return the arrivals in each hour from time 0."""
    hours = max(1, math.ceil(duration_s / HOUR_S))
    where = np.minimum(times // HOUR_S, hours - 1).astype(np.int64)
    return tuple(float(count) for count in np.bincount(where, minlength=hours))


def burstiness_of(times: Floats, hourly: Sequence[float], duration_s: float) -> float:
    """Return the coefficient of variation of the times between arrivals, the rhythm of hours taken out.

    Time is stretched so that each hour has as many arrivals as another; what varies then are bursts.
    """
    if len(times) < FEW:
        return 1.0
    gaps = np.diff(np.interp(times, *stretched(hourly, duration_s)))
    mean = float(gaps.mean())
    return min(_MOST_BURSTY, float(gaps.std()) / mean) if mean > 0 else _MOST_BURSTY


def stretched(hourly: Sequence[float], duration_s: float) -> tuple[Floats, Floats]:
    """Return times, and how many arrivals are expected until each: a line through the ends of the hours."""
    edges = np.minimum(np.arange(len(hourly) + 1) * HOUR_S, duration_s)
    return edges, np.concatenate(([0.0], np.cumsum(hourly)))


def hour_lengths(hours: int, duration_s: float) -> Floats:
    """Return the seconds of each hour; the last one may be a part of one."""
    lengths = np.full(max(1, hours), HOUR_S)
    left = duration_s - HOUR_S * (len(lengths) - 1)
    # An hour that has only just begun says nothing: its few requests would be a huge rate.
    lengths[-1] = max(left, HOUR_S / 4) if len(lengths) > 1 else max(left, 1.0)
    return lengths


def concurrency_of(begin_s: Floats, took_s: Floats) -> float | None:
    """Return the most requests in flight for 99 % of the time; None where their ends are not known."""
    known = np.isfinite(took_s)
    if not known.any():
        return None
    begin = begin_s[known]
    end = begin + np.maximum(took_s[known], 0.0)
    moments = np.concatenate((begin, end))
    change = np.concatenate((np.ones(len(begin)), -np.ones(len(end))))
    order = np.lexsort((change, moments))
    moments, level = moments[order], np.cumsum(change[order])[:-1]
    lasting = np.diff(moments)
    if not lasting.sum() > 0:
        return float(level.max(initial=1.0))
    by_level = np.argsort(level, kind="stable")
    passed = np.cumsum(lasting[by_level])
    return float(level[by_level][np.searchsorted(passed, 0.99 * passed[-1])])


def _of_model(found: Sifted, rows: NDArray[np.intp], name: str, duration_s: float) -> ModelDemand:
    times = found.time_s[rows]
    hourly = hourly_counts(times, duration_s)
    prompts, completions, cached = found.prompt[rows], found.completion[rows], found.cached[rows]
    tenants = sorted({found.tenants[i] for i in np.unique(found.tenant[rows])} - {""})
    return ModelDemand(
        model=name,
        tenants=tuple(tenants),
        requests=float(len(rows)),
        hourly=hourly,
        prompt=spread_of(prompts[prompts > 0]),
        completion=spread_of(completions[completions > 0]),
        cached=float(cached.sum() / max(1, prompts.sum())),
        burstiness=burstiness_of(times, hourly, duration_s),
        concurrency=concurrency_of(times, found.took_s[rows]),
    )


def _filled(tokens: NDArray[np.int32], rows_of: Sequence[NDArray[np.intp]]) -> NDArray[np.int32]:
    """Give requests without a token count the median of their model, or of all, and at least 1."""
    known = tokens > 0
    if known.all():
        return tokens
    usual = max(1, int(np.median(tokens[known]))) if known.any() else 1
    filled = tokens.copy()
    for rows in rows_of:
        of_model = tokens[rows[known[rows]]]
        filled[rows[~known[rows]]] = max(1, int(np.median(of_model))) if len(of_model) else usual
    return filled

"""Which costs do served requests show? Least squares over what engines did. Pure.

The time of a request on an engine is the sum of what each of its steps had in it: a step for each token of
its answer, so much longer for each sequence and each adapter that ran beside it, and longer by the prompts
that were prefilled meanwhile, its own and others', those for adapters by more. How many ran beside it follows
from when requests began and ended.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
from numpy.typing import NDArray

from planning.costs import Measured, Switched, roofline
from planning.requests import Floats
from planning.served import Came, Served
from planning.values import Device, Figure, Kind, Model, ServingCost, Source, Way

LEAST = 100  # requests of a base model below which nothing is fitted
TRIMMED = 0.05  # part of the requests that fit worst and do not count: a stall is no cost
TERMS = ("request_s", "prefill_token_s", "base_s", "sequence_s", "adapter_s", "adapter_token_s")
MOST_ROWS = 200_000  # the newest ones count
_VARIES = 0.05  # of its mean: what a column must vary to be told from the base


@dataclass(frozen=True, slots=True)
class Fit:
    """Costs that were fitted."""

    values: Mapping[str, float]  # seconds, by the names in TERMS; those that could not be told are not there
    requests: int
    error: float  # relative, at the median


def fitted(served: Served, base_of: Mapping[str, str], *, least: int = LEAST) -> dict[str, Fit]:
    """Return the costs of each base model that served at least so many. `base_of` is by adapter."""
    found = {}
    replicas = np.asarray(served.replica)
    bases = np.asarray([base_of.get(name, name) for name in served.model])
    rows_of: dict[str, list[tuple[Floats, Floats]]] = {}
    for replica in np.unique(replicas):
        chosen = np.flatnonzero(replicas == replica)
        terms, took_s = _terms(served, chosen)
        for base in np.unique(bases[chosen]):
            of_base = np.tile(bases[chosen] == base, len(took_s) // len(chosen))
            rows_of.setdefault(str(base), []).append((terms[of_base], took_s[of_base]))
    for base, parts in rows_of.items():
        terms = np.concatenate([terms for terms, _ in parts])[-MOST_ROWS:]
        took_s = np.concatenate([took_s for _, took_s in parts])[-MOST_ROWS:]
        good = np.isfinite(took_s)
        if good.sum() >= least:
            found[base] = fit_terms(terms[good], took_s[good])
    return found


def measured_by(
    served: Served, models: Iterable[Model], device: Device, detail: str, *, least: int = LEAST
) -> list[Measured]:
    """Return the costs that requests show of whole models on the kind of device that served all of them.

    `models` are those of the fleet, adapters among them. What cannot be told of a cost is the roofline's.
    """
    known = list(models)
    base_of = {model.name: model.base for model in known if model.kind is Kind.ADAPTER}
    fits = fitted(served, base_of, least=least)
    return [
        Measured(as_cost(fits[model.name], roofline(model, device), detail), model.shape, device)
        for model in known
        if model.kind is Kind.WHOLE and model.name in fits
    ]


def switched_by(came: Iterable[Came], models: Iterable[Model], device: Device, detail: str) -> list[Switched]:
    """Return what switches to each whole model took on a device, by way: the median of hosts and pairs."""
    seconds: dict[str, dict[Way, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in came:
        if one.way in tuple(Way) and 0 < one.took_s < math.inf:
            seconds[one.model][Way(one.way)].append(one.took_s)
    return [
        Switched(
            model.name,
            model.shape,
            device.kind,
            {
                way: Figure(median(each), Source.MEASURED, f"{detail}, after {len(each)} other models")
                for way, each in seconds[model.name].items()
            },
        )
        for model in models
        if model.kind is Kind.WHOLE and model.name in seconds
    ]


def fit_terms(terms: Floats, took_s: Floats) -> Fit:
    """Fit times to columns in the order of TERMS: relative errors, no cost below 0, outliers left out."""
    kept = np.ones(len(took_s), dtype=bool)
    values: dict[str, float] = {}
    errors = np.zeros(len(took_s))
    for _ in range(3):
        values = _fit_once(terms[kept], took_s[kept])
        expected = terms @ np.array([values.get(name, 0.0) for name in TERMS])
        errors = np.abs(expected / took_s - 1.0)
        kept = errors <= np.quantile(errors, 1 - TRIMMED)
    return Fit(values, len(took_s), float(np.median(errors)))


def as_cost(fit: Fit, computed: ServingCost, detail: str) -> ServingCost:
    """Return a computed cost with the figures that were fitted in the place of its own."""
    told = f"{detail}, {fit.requests} requests, off by {fit.error:.0%} at the median"

    def figure(name: str, known: Figure) -> Figure:
        return Figure(fit.values[name], Source.MEASURED, told) if name in fit.values else known

    zero = Figure(0.0, Source.MEASURED, "part of what each adapter costs")
    return replace(
        computed,
        request_s=figure("request_s", computed.request_s),
        prefill_token_s=figure("prefill_token_s", computed.prefill_token_s),
        adapter_token_s=figure("adapter_token_s", computed.adapter_token_s),
        base_s=figure("base_s", computed.base_s),
        sequence_s=figure("sequence_s", computed.sequence_s),
        adapter_s=figure("adapter_s", computed.adapter_s),
        sequence_adapter_s=zero if "adapter_s" in fit.values else computed.sequence_adapter_s,
    )


def nonnegative(terms: Floats, wanted: Floats) -> Floats:
    """Solve least squares of relative errors; a coefficient that would be below 0 is 0."""
    found = np.zeros(terms.shape[1])
    free = list(range(terms.shape[1]))
    scaled, ones = terms / wanted[:, None], np.ones(len(wanted))
    size = np.linalg.norm(scaled, axis=0)
    size[size == 0] = 1.0
    while free:
        solved, *_ = np.linalg.lstsq(scaled[:, free] / size[free], ones, rcond=1e-10)
        below = {index for index, value in zip(free, solved, strict=True) if value < 0}
        if not below:
            found[free] = solved / size[free]
            break
        free = [index for index in free if index not in below]
    return found


def _fit_once(terms: Floats, took_s: Floats) -> dict[str, float]:
    """Fit the terms that can be told: those that vary, the base always."""
    ones, prefill, base, sequence, adapter, adapter_token = range(len(TERMS))
    chosen = [ones, prefill, base]
    if _does_vary(terms[:, adapter_token] / np.maximum(terms[:, prefill], 1e-9)):
        chosen.append(adapter_token)
    per_step = terms / np.maximum(terms[:, [base]], 1e-9)
    if _does_vary(per_step[:, sequence]):
        chosen.append(sequence)
        if _does_vary(per_step[:, adapter]):
            chosen.append(adapter)
    values = nonnegative(terms[:, chosen], took_s)
    return {TERMS[index]: float(value) for index, value in zip(chosen, values, strict=True)}


def _does_vary(column: Floats) -> bool:
    mean = float(np.abs(column).mean())
    return mean > 0 and float(column.std()) > _VARIES * mean


def _terms(served: Served, chosen: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Return the columns of TERMS for one replica's requests and their times; once to the end.

    Where the first token's time is known, those follow as further rows, NaN where it is not.
    """
    begin, run, fresh, tokens, first = (
        np.asarray(column, dtype=np.float64)[chosen]
        for column in (served.granted_s, served.run_s, served.fresh, served.completion, served.first_s)
    )
    adapters = [served.adapter[index] for index in chosen]
    fresh_of_adapters = np.where([bool(name) for name in adapters], fresh, 0.0)
    end = begin + run
    running, active = _levels(begin, end, adapters)
    at_first = begin + np.where(np.isfinite(first), first, run)

    def columns(steps: Floats, until: Floats) -> Floats:
        beside, adapters_beside = running.mean(begin, until), active.mean(begin, until)
        # Who comes while others run waits for the end of their step first: half of one on average.
        taken = steps + 0.5 * np.clip(beside - 1.0, 0.0, 1.0)
        prefilled = _prefilled(begin, fresh, begin, until)
        of_adapters = _prefilled(begin, fresh_of_adapters, begin, until)
        each = (np.ones(len(run)), prefilled, taken, taken * beside, taken * adapters_beside, of_adapters)
        return np.stack(each, 1)

    return (
        np.concatenate((columns(tokens, end), columns(np.ones(len(run)), at_first))),
        np.concatenate((run, first)),
    )


@dataclass(frozen=True, slots=True)
class _Level:
    """Something that changes in steps, as its integral over time."""

    times: Floats
    integral: Floats

    def mean(self, begin: Floats, end: Floats) -> Floats:
        """Return its mean over each of some times."""
        lasted = np.maximum(end - begin, 1e-9)
        found: Floats = (
            np.interp(end, self.times, self.integral) - np.interp(begin, self.times, self.integral)
        ) / lasted
        return found


def _levels(begin: Floats, end: Floats, adapters: Sequence[str]) -> tuple[_Level, _Level]:
    """Return how many sequences, and how many different adapters, ran at each time."""
    times = np.concatenate((begin, end))
    order = np.argsort(times, kind="stable")
    count = len(begin)
    running, active = np.zeros(len(times)), np.zeros(len(times))
    using: Counter[str] = Counter()
    level = 0
    for place, index in enumerate(order):
        adapter = adapters[index % count]
        change = 1 if index < count else -1
        level += change
        if adapter:
            using[adapter] += change
            if not using[adapter]:
                del using[adapter]
        running[place], active[place] = level, len(using)
    moments = times[order]
    lasted = np.diff(moments)

    def integrated(levels: Floats) -> _Level:
        return _Level(moments, np.concatenate(([0.0], np.cumsum(levels[:-1] * lasted))))

    return integrated(running), integrated(active)


def _prefilled(begin: Floats, fresh: Floats, since: Floats, until: Floats) -> Floats:
    """Return the fresh prompt tokens of all requests that began in each of some times, both ends included."""
    order = np.argsort(begin, kind="stable")
    total = np.concatenate(([0.0], np.cumsum(fresh[order])))
    low = np.searchsorted(begin[order], since, side="left")
    high = np.searchsorted(begin[order], until, side="right")
    found: Floats = total[high] - total[low]
    return found

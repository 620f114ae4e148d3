"""Who is busy when, how sparse, and who peaks together? Pure.

Models that are busy at different hours can share a device; those that peak together need room for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planning.measuring import hour_lengths
from planning.values import HOUR_S, Demand, ModelDemand

TOGETHER = 0.6  # correlation of hourly rates from which two models are said to peak together
APART = -0.3  # and below which they are said to take turns by themselves
LEAST_HOURS = 12  # for a correlation to mean anything
COMPARED = 200  # models of the largest demand that are compared in pairs
ACTIVE = 0.2  # of its busiest hour: what makes an hour one in which a model is active


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When one model is asked for."""

    model: str
    rate: float  # requests a second on average
    busiest_rate: float  # in its busiest hour
    busiest_hour: int | None  # of the day, UTC; None: the time of day is not known
    idle: float  # part of the hours without a request, 0..1
    active: float  # part of the hours with at least ACTIVE of the busiest one's requests
    tokens_per_s: float  # prompt tokens that are not cached, and completion tokens, on average


@dataclass(frozen=True, slots=True)
class Pair:
    """Two models and how alike their hours are."""

    one: str
    other: str
    correlation: float  # of hourly requests, -1..1


@dataclass(frozen=True, slots=True)
class Sharing:
    """What hours say about sharing."""

    together: tuple[Pair, ...]  # those that peak together most, first
    apart: tuple[Pair, ...]  # those that take turns by themselves, first
    headroom: float  # all models' busiest hours added up, over the busiest hour of all together; 1: no gain
    compared: int  # models


def rhythms(demand: Demand) -> list[Rhythm]:
    """Return when each model is asked for, the one with the most tokens first."""
    found = [rhythm_of(one, demand) for one in demand.models]
    return sorted(found, key=lambda one: (-one.tokens_per_s, one.model))


def rhythm_of(one: ModelDemand, demand: Demand) -> Rhythm:
    """Return when a model is asked for."""
    lengths = hour_lengths(demand.hours, demand.duration_s)
    hourly = np.asarray(one.hourly)
    rates = hourly / lengths
    top = int(np.argmax(rates))
    hour = None
    if demand.begins_s is not None and hourly[top] > 0:
        hour = int((demand.begins_s + top * HOUR_S) // HOUR_S) % 24
    rate = one.rate(demand.duration_s)
    return Rhythm(
        model=one.model,
        rate=rate,
        busiest_rate=float(rates[top]),
        busiest_hour=hour,
        idle=float(np.mean(hourly == 0)),
        active=float(np.mean(rates >= ACTIVE * rates[top])) if rates[top] > 0 else 0.0,
        tokens_per_s=rate * (one.prompt.mean * (1 - one.cached) + one.completion.mean),
    )


def sharing(demand: Demand, *, most: int = 10) -> Sharing:
    """Return who peaks together and who does not: at most so many pairs of each, of the largest models."""
    by_size = sorted(demand.models, key=lambda one: (-one.requests, one.model))[:COMPARED]
    lengths = hour_lengths(demand.hours, demand.duration_s)
    work = np.array([np.asarray(one.hourly) / lengths * _tokens(one) for one in demand.models])
    together_peak = float(work.sum(axis=0).max()) if len(work) else 0.0
    headroom = float(work.max(axis=1).sum()) / together_peak if together_peak > 0 else 1.0
    if demand.hours < LEAST_HOURS or _is_even(demand):
        return Sharing((), (), headroom, 0)
    matrix = correlations(by_size, demand)
    pairs = [
        Pair(by_size[i].model, by_size[j].model, float(matrix[i, j]))
        for i in range(len(by_size))
        for j in range(i + 1, len(by_size))
    ]
    pairs.sort(key=lambda pair: -pair.correlation)
    together = tuple(pair for pair in pairs[:most] if pair.correlation >= TOGETHER)
    apart = tuple(pair for pair in pairs[: -most - 1 : -1] if pair.correlation <= APART)
    return Sharing(together, apart, headroom, len(by_size))


def correlations(models: Sequence[ModelDemand], demand: Demand) -> NDArray[np.float64]:
    """Return the correlation of hourly rates of each two models; 0 for one whose hours are all alike."""
    lengths = hour_lengths(demand.hours, demand.duration_s)
    rates = np.array([np.asarray(one.hourly) / lengths for one in models])
    rates = rates - rates.mean(axis=1, keepdims=True)
    size = np.linalg.norm(rates, axis=1, keepdims=True)
    unit = np.divide(rates, size, out=np.zeros_like(rates), where=size > 1e-12 * max(1.0, float(size.max())))
    found: NDArray[np.float64] = np.clip(unit @ unit.T, -1.0, 1.0)
    return found


def _is_even(demand: Demand) -> bool:
    """Whether hours are alike, as a source has them that knows no time of day."""
    whole = [one.hourly[:-1] for one in demand.models]  # the last one may be a part of one
    return all(max(hours) - min(hours) <= 1e-9 * max(hours) for hours in whole)


def _tokens(one: ModelDemand) -> float:
    return one.prompt.mean * (1 - one.cached) + one.completion.mean

"""Who asks for which model, and when? Seeded calls."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.simulator.models.devices import Call
from benchmarks.simulator.workloads import poisson_arrivals, popularity

MEAN_TOKENS, SIGMA = 150.0, 0.8  # log-normal lengths of answers
MOST_TOKENS = 1500.0
ON_S, OFF_S = 30.0, 270.0  # a bursty model is asked for during so long, then not for so long, on average


def steady(models: int, zipf: float, rate_per_s: float, duration_s: float, seed: int) -> list[Call]:
    """Poisson arrivals; the i-th model is asked for in proportion to 1 / i ** zipf."""
    chance = np.random.default_rng(seed)
    found = []
    for model, part in zip(chance.permutation(models), popularity(models, zipf), strict=True):
        arrivals = poisson_arrivals(chance, float(part) * rate_per_s, duration_s)
        found += [(float(at_s), int(model)) for at_s in arrivals]
    return _calls(chance, found)


def bursty(models: int, zipf: float, rate_per_s: float, duration_s: float, seed: int) -> list[Call]:
    """As `steady` on average, but each model gets its calls in bursts."""
    chance = np.random.default_rng(seed)
    found = []
    for model, part in zip(chance.permutation(models), popularity(models, zipf), strict=True):
        rate = float(part) * rate_per_s * (ON_S + OFF_S) / ON_S
        begin_s = float(chance.uniform(-OFF_S, OFF_S))
        while begin_s < duration_s:
            length_s = float(chance.exponential(ON_S))
            arrivals = begin_s + poisson_arrivals(chance, rate, length_s)
            found += [(float(at_s), int(model)) for at_s in arrivals if 0 <= at_s < duration_s]
            begin_s += length_s + float(chance.exponential(OFF_S))
    return _calls(chance, found)


def _calls(chance: np.random.Generator, found: list[tuple[float, int]]) -> list[Call]:
    found.sort()
    median = math.log(MEAN_TOKENS) - SIGMA**2 / 2
    tokens = np.clip(chance.lognormal(median, SIGMA, len(found)), 4, MOST_TOKENS)
    return [
        Call(model, at_s, float(length), tenant=f"t{model}")
        for (at_s, model), length in zip(found, tokens, strict=True)
    ]

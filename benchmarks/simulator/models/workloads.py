"""Who asks for which model, and when? Seeded calls."""

from __future__ import annotations

import csv
import math
from datetime import UTC, datetime
from pathlib import Path

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


def traced(
    models: int, zipf: float, rate_per_s: float, duration_s: float, seed: int, *, trace: Path
) -> list[Call]:
    """A part of a public trace: its arrivals, stretched to the rate, and its lengths of answers.

    No public trace says which model was asked for, so each call's is drawn by Zipf's law. `trace` is a CSV of
    Azure's: TIMESTAMP, ContextTokens, GeneratedTokens. Raises OSError and ValueError where it is none.
    """
    chance = np.random.default_rng(seed)
    with trace.open(newline="") as file:
        rows = [(_seconds(row["TIMESTAMP"]), float(row["GeneratedTokens"])) for row in csv.DictReader(file)]
    if len(rows) < 2 or rows[-1][0] <= rows[0][0]:
        raise ValueError(f"{trace} holds no arrivals")
    stretch = len(rows) / (rows[-1][0] - rows[0][0]) / rate_per_s
    at_s = np.array([(seconds - rows[0][0]) * stretch for seconds, _ in rows])
    begin_s = float(chance.uniform(0.0, max(0.0, float(at_s[-1]) - duration_s)))
    parts, order = popularity(models, zipf), chance.permutation(models)
    return [
        Call(int(model), float(at - begin_s), min(MOST_TOKENS, max(4.0, tokens)), tenant=f"t{model}")
        for at, (_, tokens) in zip(at_s, rows, strict=True)
        if begin_s <= at < begin_s + duration_s
        for model in (order[chance.choice(models, p=parts)],)
    ]


def _seconds(timestamp: str) -> float:
    """Unix time of Azure's `2023-11-16 18:17:03.9799600`, UTC."""
    whole, _, part = timestamp.partition(".")
    return datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp() + float(f"0.{part or 0}")


def _calls(chance: np.random.Generator, found: list[tuple[float, int]]) -> list[Call]:
    found.sort()
    median = math.log(MEAN_TOKENS) - SIGMA**2 / 2
    tokens = np.clip(chance.lognormal(median, SIGMA, len(found)), 4, MOST_TOKENS)
    return [
        Call(model, at_s, float(length), tenant=f"t{model}")
        for (at_s, model), length in zip(found, tokens, strict=True)
    ]

"""The calls of a day, from a public trace. Seeded."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from benchmarks.simulator.workloads import popularity
from planning.reading.trace_file import read_trace
from simulation.driver import Call

HOUR_S, DAY_S = 3600.0, 86_400.0
WHOLE_S = 0.8 * DAY_S  # a trace of at least this is taken as it is
NIGHT = 0.1  # of the busiest hour's calls, in the quietest
QUIETEST_H = 4.0
LONGEST_TOKENS = 6000  # prompts are cut there: a replica of the benchmark holds ten such


def day_of(trace: Path, *, adapters: int, zipf: float, seed: int, duration_s: float = DAY_S) -> list[Call]:
    """Every call of the first day of a trace, or of the first part of it.

    A trace that is shorter than a day is played again and again; each time only a part of its calls comes, as
    many as the hour of the day lets expect (`busy`). No public trace says which adapter was asked for, so
    each call's is drawn by Zipf's law. Raises OSError, and ValueError where the file is no trace.
    """
    requests, _ = read_trace(trace)
    order = sorted(range(len(requests)), key=requests.time_s.__getitem__)
    if not order or requests.time_s[order[-1]] <= requests.time_s[order[0]]:
        raise ValueError(f"{trace} holds no arrivals")
    span_s = requests.time_s[order[-1]] - requests.time_s[order[0]]
    whole, chance, calls = span_s >= WHOLE_S, np.random.default_rng(seed), list[Call]()
    for lap in range(1 if whole else math.ceil(duration_s / span_s)):
        chosen = chance.choice(adapters, size=len(order), p=popularity(adapters, zipf))
        for row, adapter, draw in zip(order, chosen, chance.random(len(order)), strict=True):
            at_s = lap * span_s + requests.time_s[row] - requests.time_s[order[0]]
            if at_s < duration_s and (whole or draw < busy(at_s)):
                prompt = min(LONGEST_TOKENS, max(1, int(requests.prompt[row])))
                completion = max(1, int(requests.completion[row]))
                calls.append(Call(at_s, f"t{adapter}", f"a{adapter}", prompt, completion))
    return calls


def busy(at_s: float) -> float:
    """Return how busy a time of the day is, from `NIGHT` to 1 of the busiest hour: a plain wave."""
    hour = at_s / HOUR_S
    return NIGHT + (1.0 - NIGHT) * (0.5 - 0.5 * math.cos(2.0 * math.pi * (hour - QUIETEST_H) / 24.0))

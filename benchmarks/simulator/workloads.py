"""Who asks for what, and when? Seeded calls: Zipf's law, Poisson arrivals, lengths as traced.

No public trace names adapters, so popularity is drawn, as in S-LoRA's and dLoRA's workloads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from simulation.driver import Call

NOISY = "noisy"  # the tenant that floods


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Independent log-normal lengths, cut off at the most seen."""

    prompt_median: float
    prompt_sigma: float
    prompt_most: int
    completion_median: float
    completion_sigma: float
    completion_most: int

    def draw(self, chance: np.random.Generator, count: int) -> list[tuple[int, int]]:
        """(prompt tokens, completion tokens) of so many requests, at least 1 each."""
        prompts = chance.lognormal(math.log(self.prompt_median), self.prompt_sigma, count)
        completions = chance.lognormal(math.log(self.completion_median), self.completion_sigma, count)
        cut = zip(
            np.clip(prompts, 1, self.prompt_most), np.clip(completions, 1, self.completion_most), strict=True
        )
        return [(int(prompt), int(completion)) for prompt, completion in cut]


# Fitted to the logarithms of the Azure conversation trace of 2023; the two lengths hardly go together there.
CONV = LogNormal(760, 0.985, 14_050, 151, 0.859, 1000)


def sharegpt(prompt_mean: float, completion_mean: float) -> LogNormal:
    """Lengths like those of the measured runs, which say the means alone: ShareGPT, 4 to 2048 tokens.

    The spread of the completions is the one at which the time to first token with 8 slots and 128 adapters is
    as measured; the runs were then compared at all others.
    """
    prompt_sigma, completion_sigma = 1.0, 0.8
    return LogNormal(
        prompt_mean * math.exp(-(prompt_sigma**2) / 2),
        prompt_sigma,
        1024,
        completion_mean * math.exp(-(completion_sigma**2) / 2),
        completion_sigma,
        2048,
    )


@dataclass(frozen=True, slots=True)
class Flood:
    """One tenant that asks for far more than its share."""

    rate_per_s: float
    adapters: int = 1


@dataclass(frozen=True, slots=True)
class Workload:
    """What arrives at the fleet. Adapter `a<i>` belongs to tenant `t<i>`; those of a flood to `NOISY`."""

    adapters: int
    rate_per_s: float  # of all of them together
    lengths: LogNormal
    duration_s: float = 600.0
    zipf: float = 1.0  # the i-th adapter is asked for in proportion to 1 / i ** zipf; 0: all alike
    levels_per_s: tuple[float, ...] = ()  # instead of a rate and Zipf: each is that of an equal part of them
    flood: Flood | None = None

    def rates_per_s(self) -> list[float]:
        """Of each adapter."""
        if self.levels_per_s:
            return [self.levels_per_s[index % len(self.levels_per_s)] for index in range(self.adapters)]
        return [float(part) * self.rate_per_s for part in popularity(self.adapters, self.zipf)]

    def tenants(self) -> dict[str, list[str]]:
        """Tenant -> its adapters."""
        owned = {f"t{index}": [f"a{index}"] for index in range(self.adapters)}
        if self.flood is not None:
            owned[NOISY] = [f"n{index}" for index in range(self.flood.adapters)]
        return owned

    def calls(self, seed: int) -> list[Call]:
        """All calls in the order in which they arrive; the same for the same seed."""
        chance = np.random.default_rng(seed)
        found = [
            (float(at_s), f"t{index}", f"a{index}")
            for index, rate in enumerate(self.rates_per_s())
            for at_s in poisson_arrivals(chance, rate, self.duration_s)
        ]
        if self.flood is not None:
            found += self._flood(chance, self.flood)
        found.sort()
        drawn = self.lengths.draw(chance, len(found))
        return [
            Call(at_s, tenant, adapter, prompt, completion)
            for (at_s, tenant, adapter), (prompt, completion) in zip(found, drawn, strict=True)
        ]

    def _flood(self, chance: np.random.Generator, flood: Flood) -> list[tuple[float, str, str]]:
        arrivals = poisson_arrivals(chance, flood.rate_per_s, self.duration_s)
        adapters = chance.integers(0, flood.adapters, len(arrivals))
        return [(float(at_s), NOISY, f"n{index}") for at_s, index in zip(arrivals, adapters, strict=True)]


def popularity(count: int, zipf: float) -> np.ndarray:
    """Parts of the requests that go to each, most popular first; they add up to 1."""
    weights = 1.0 / np.arange(1, count + 1) ** zipf
    parts: np.ndarray = weights / weights.sum()
    return parts


def poisson_arrivals(chance: np.random.Generator, rate_per_s: float, duration_s: float) -> np.ndarray:
    """Times in 0..`duration_s` of a Poisson process of that rate."""
    span_s = 2.0 * duration_s  # the first half goes before
    expected = rate_per_s * span_s
    times = np.empty(0)
    last_s = 0.0
    while last_s < span_s:
        count = int(expected + 4.0 * math.sqrt(expected)) + 8
        times = np.concatenate((times, last_s + np.cumsum(chance.exponential(1.0 / rate_per_s, count))))
        last_s = float(times[-1])
    inside: np.ndarray = times[(times >= duration_s) & (times < span_s)] - duration_s
    return inside

"""What did a run come to? Latency, goodput, fairness and loads of the calls that count; decides nothing.

Calls count that arrive after the warm-up and before the end of the workload. They are followed until they
end, so a queue that has grown shows in full; tokens and service are what came out before the workload's end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.simulator.workloads import NOISY
from benchmarks.stats import fairness
from fleet.types import Band
from simulation.driver import Call
from simulation.engine import Engine

COMPLETION_PRICE = 2.0  # of a token, in prompt tokens, as in VTC (Sheng et al., OSDI 2024)
SETTLING_S = 30.0  # calls that arrive later than that before the end are not asked for their service


@dataclass(frozen=True, slots=True)
class Window:
    """Which calls count, in seconds of the run, and what is asked of them."""

    begin_s: float
    end_s: float
    ttft_slo_s: float = 2.0
    tpot_slo_s: float = 0.060

    @property
    def length_s(self) -> float:
        """How long it is."""
        return self.end_s - self.begin_s


@dataclass(frozen=True, slots=True)
class Figures:
    """One run in numbers. Times to first token are of calls that had one."""

    ttft_mean_s: float
    ttft_p50_s: float
    ttft_p99_s: float
    neighbours_p99_s: float  # of every tenant but the one that floods
    goodput_per_s: float  # calls within both objectives
    goodput_share: float  # the same as a part of those that arrived
    neighbours_goodput_share: float
    tokens_per_s: float  # of completions
    itl_ms: float
    loads_per_call: float  # into slots
    disk_loads_per_call: float
    jain: float  # of the tenants of the standard band; 1: all served alike
    refused_share: float
    unserved_share: float  # neither refused nor finished when the run was given up
    band_goodput_share: dict[str, float]  # of the calls of each band
    band_p99_s: dict[str, float]


def figures(
    calls: Sequence[Call],
    engines: Iterable[Engine],
    window: Window,
    bands: Mapping[str, Band] | None = None,
) -> Figures:
    """Sum a run up; `bands` are of tenants that are not standard. Raises ValueError where no call counts."""
    counted = [call for call in calls if window.begin_s <= call.at_s < window.end_s]
    if not counted:
        raise ValueError("no call arrives between the warm-up and the end: make the run longer")
    neighbours = [call for call in counted if call.tenant != NOISY]
    totals = [engine.totals for engine in engines]
    gaps = sum(total.gaps for total in totals)
    by_band: dict[str, list[Call]] = defaultdict(list)
    for call in counted:
        by_band[(bands or {}).get(call.tenant, Band.STANDARD).value].append(call)
    sent = max(1, sum(call.sequence is not None for call in calls))
    return Figures(
        ttft_mean_s=_ttft(counted, np.mean),
        ttft_p50_s=_ttft(counted, np.median),
        ttft_p99_s=_ttft(counted, _p99),
        neighbours_p99_s=_ttft(neighbours, _p99),
        goodput_per_s=sum(_good(call, window) for call in counted) / window.length_s,
        goodput_share=_share(counted, lambda call: _good(call, window)),
        neighbours_goodput_share=_share(neighbours, lambda call: _good(call, window)),
        tokens_per_s=_tokens(calls, window) / window.length_s,
        itl_ms=1000 * sum(total.gaps_s for total in totals) / max(1, gaps),
        loads_per_call=sum(total.gpu_loads for total in totals) / sent,
        disk_loads_per_call=sum(total.disk_loads for total in totals) / sent,
        jain=served_alike(by_band[Band.STANDARD.value], window),
        refused_share=_share(counted, lambda call: call.refused_s is not None),
        unserved_share=_share(counted, lambda call: call.refused_s is None and call.finished_s is None),
        band_goodput_share={
            band: _share(members, lambda call: _good(call, window)) for band, members in by_band.items()
        },
        band_p99_s={band: _ttft(members, _p99) for band, members in by_band.items()},
    )


def _ttft(calls: Iterable[Call], of: Callable[[list[float]], float]) -> float:
    times = [call.ttft_s for call in calls if call.ttft_s is not None]
    return float(of(times)) if times else float("nan")


def _p99(times: list[float]) -> float:
    return float(np.percentile(times, 99))


def _share(calls: Sequence[Call], of: Callable[[Call], bool]) -> float:
    return sum(map(of, calls)) / max(1, len(calls))


def _good(call: Call, window: Window) -> bool:
    ttft_s, tpot_s = call.ttft_s, call.tpot_s
    if ttft_s is None or tpot_s is None:
        return False
    return ttft_s <= window.ttft_slo_s and tpot_s <= window.tpot_slo_s


def _tokens(calls: Iterable[Call], window: Window) -> int:
    finished = ((call.finished_s, call.completion_tokens) for call in calls)
    return sum(
        tokens for at_s, tokens in finished if at_s is not None and window.begin_s <= at_s < window.end_s
    )


def served_alike(calls: Iterable[Call], window: Window) -> float:
    """How fair service was (`fairness`); 0 where nothing was served."""
    asked: dict[str, float] = defaultdict(float)
    served: dict[str, float] = defaultdict(float)
    for call in calls:
        if call.at_s >= window.end_s - SETTLING_S:
            continue
        price = call.prompt_tokens + COMPLETION_PRICE * call.completion_tokens
        asked[call.tenant] += price
        if call.finished_s is not None and call.finished_s < window.end_s:
            served[call.tenant] += price
    tenants = sorted(asked, key=lambda tenant: (asked[tenant], tenant))
    return fairness([served[tenant] for tenant in tenants], [asked[tenant] for tenant in tenants]) or 0.0

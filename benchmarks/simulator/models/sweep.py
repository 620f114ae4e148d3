"""Every rule on one to sixteen devices, under each load, at each cost of a switch, made in portions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.portions import Done, Key
from benchmarks.simulator.models.comparison import COLUMNS, Figures, run
from benchmarks.simulator.models.scenarios import POLICIES, Fleet
from benchmarks.simulator.models.workloads import bursty, traced

DEVICES = (1, 2, 4, 8, 16)
SWITCH_S = (0.5, 2.0, 5.0)
MODELS, RATE_PER_S = 6, 0.6  # of each device
TRACES = {"conversations": "az23_conv.csv", "code": "az23_code.csv"}
PLAIN, OBJECTIVE, BEST, WORST = "ours, no objective", "ours", "llama-swap", "LRU"


def fleets(devices: Sequence[int], traces: Path | None) -> dict[str, Fleet]:
    """All fleets with so many devices, by name; those by traces where their folder is given."""
    found = [
        Fleet(f"Zipf, {n} device{'s' * (n > 1)}, {cost:g} s", MODELS * n, n, RATE_PER_S * n, cost)
        for n in devices
        for cost in SWITCH_S
    ]
    found += [
        replace(each, name=each.name.replace("Zipf", "bursts"), workload=bursty) for each in list(found)
    ]
    for load, file in TRACES.items() if traces is not None else ():
        workload = partial(traced, trace=(traces or Path()) / file)
        plain = [each for each in found if each.name.startswith("Zipf")]
        found += [replace(each, name=each.name.replace("Zipf", load), workload=workload) for each in plain]
    return {each.name: each for each in found}


def to_do(done: Mapping[Key, Any], known: Mapping[str, Fleet], seeds: int) -> Iterator[Key]:
    """Give the runs that are left: all of a seed before those of the next one, small fleets first."""
    for seed in range(1, seeds + 1):
        for name in sorted(known, key=lambda name: known[name].devices):
            yield from (key for policy in POLICIES if (key := (name, policy, seed)) not in done)


def make(known: Mapping[str, Fleet], key: Key) -> tuple[Key, dict[str, Any]]:
    """Make one run."""
    name, policy, seed = key
    return key, asdict(run((known[name], policy, seed)).figures)


# -- how it reads ------------------------------------------------------------------------------------------


def tables(done: Done, known: Mapping[str, Fleet]) -> Iterator[str]:
    """Give the lines of three Markdown texts: each rule on the whole, ours fleet by fleet, where it loses."""
    names = [name for name in known if all(_seeds(done, name, policy) for policy in POLICIES)]
    if not names:
        return
    yield from _on_the_whole(done, known, names)
    yield ""
    yield from _fleet_by_fleet(done, names)
    yield ""
    yield from _losses(done, names)


def _on_the_whole(done: Done, known: Mapping[str, Fleet], names: Sequence[str]) -> Iterator[str]:
    yield f"| a switch takes | rule | {' | '.join(title for title, _, _ in COLUMNS)} |"
    yield "|---" * (2 + len(COLUMNS)) + "|"
    for cost in SWITCH_S:
        alike = [name for name in names if known[name].switch_s == cost]
        for policy in POLICIES if alike else ():
            cells = (
                f"{fmean(_mean(done, name, policy, of) for name in alike) * (100 if percent else 1):.3g}"
                + (" %" if percent else "")
                for _, of, percent in COLUMNS
            )
            yield f"| {cost:g} s | {policy} | {' | '.join(cells)} |"


def _fleet_by_fleet(done: Done, names: Sequence[str]) -> Iterator[str]:
    yield (
        f"| fleet | seeds | {BEST}: in time, p99 | {PLAIN}: in time, p99 | {OBJECTIVE}: in time, p99 | "
        f"both against {WORST}: in time |"
    )
    yield "|---" * 6 + "|"
    for name in names:
        good, p99 = (partial(_times, done, name, of) for of in (_good, _p99))
        yield (
            f"| {name} | {_seeds(done, name, BEST)} "
            f"| {_mean(done, name, BEST, _good):.1%}, {_mean(done, name, BEST, _p99):.1f} s "
            f"| {good(PLAIN, BEST)}, {p99(PLAIN, BEST)} | {good(OBJECTIVE, BEST)}, {p99(OBJECTIVE, BEST)} "
            f"| {good(PLAIN, WORST)}, {good(OBJECTIVE, WORST)} |"
        )


def _losses(done: Done, names: Sequence[str]) -> Iterator[str]:
    for policy in (PLAIN, OBJECTIVE):
        others = [other for other in POLICIES if other not in (PLAIN, OBJECTIVE)]
        fewer = [
            name
            for name in names
            if _mean(done, name, policy, _good) < max(_mean(done, name, o, _good) for o in others)
        ]
        longer = [
            name for name in names if _mean(done, name, policy, _p99) > _mean(done, name, BEST, _p99) * 1.02
        ]
        yield f"{policy}: fewer in time than the best other one in {len(fewer)} of {len(names)} fleets"
        yield from (f"- {name}" for name in fewer)
        yield f"{policy}: a p99 longer than {BEST}'s by more than 2 % in {len(longer)} of {len(names)} fleets"
        yield from (f"- {name}" for name in longer)


def _good(figures: Figures) -> float:
    return figures.good


def _p99(figures: Figures) -> float:
    return figures.p99_s


def _times(done: Done, name: str, of: Callable[[Figures], float], policy: str, other: str) -> str:
    return f"{_mean(done, name, policy, of) / max(1e-9, _mean(done, name, other, of)):.2f} times"


def _seeds(done: Done, name: str, policy: str) -> int:
    return sum(key[:2] == (name, policy) for key in done)


def _mean(done: Done, name: str, policy: str, of: Callable[[Figures], float]) -> float:
    return fmean(of(Figures(**figures)) for key, figures in done.items() if key[:2] == (name, policy))

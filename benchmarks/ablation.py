"""Does each rule of the scheduler earn its place? Simulates with one rule off at a time.

A rule is off while one function or constant of the policies has a neutral form; the product has no switch for
that. Each seed makes the same calls with a rule and without it, so the two are compared seed by seed. The
placebo breaks ties otherwise: what it moves is noise. A rule that changed nothing in a scenario's first
seed is not run with the others. Runs are kept in a file, so that they can be made in portions.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any

import typer

from benchmarks.machine import origin
from benchmarks.simulator.costs import StepCosts
from benchmarks.simulator.runs import PROCESSES, Task, run
from benchmarks.simulator.scenarios import OURS, Scenario, scenarios
from benchmarks.simulator.workloads import Flood, Workload
from routing.scheduling import (
    accounts,
    affinity,
    drains,
    fairness,
    filters,
    group,
    leases,
    locality,
    scorers,
    selection,
    view,
)
from routing.scheduling.affinity import Lead
from routing.scheduling.backlog import Backlog
from routing.scheduling.drains import Drains
from routing.scheduling.fairness import VirtualCounters
from routing.scheduling.floods import detection
from routing.scheduling.floods.detection import Floods
from routing.scheduling.floods.turns import Turn
from routing.scheduling.group import Group
from routing.scheduling.health import first_tokens
from routing.scheduling.health.limit import ConcurrencyLimit
from routing.scheduling.leases import SlotHolders, SlotNeed
from routing.scheduling.selection import WITH_SLOT
from routing.scheduling.state import Engine

NOTHING = "nothing"  # is off
SURE_AFTER = 1  # seeds without any change
MOVES = 0.03
# Two-sided 95 % of Student's t, by the number of seeds.
STUDENT = {2: 12.7, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
# Name, field of `Figures`, and whether more is better.
HEADLINES = (
    ("p99", "ttft_p99_s", False),
    ("victims' p99", "victims_p99_s", False),
    ("goodput", "goodput_per_s", True),
    ("tokens/s", "tokens_per_s", True),
)
# Seconds of the scenarios that `compare` simulates for longer. Fleets of sixteen replicas are a quarter of
# themselves: replicas, adapters, and what arrives.
SECONDS, OTHER_SECONDS = 60.0, {"starved": 200.0, "overload": 15.0, "slots": 80.0, "two-engines": 60.0}
LARGE, PART = 16, 4

Change = tuple[Any, str, Any]  # an owner, its attribute, and the neutral form of that


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, and what stands for it while it is off."""

    name: str
    changes: tuple[Change, ...] = ()
    settings: Mapping[str, float] = field(default_factory=dict)

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """Do without it for a while."""
        before = [(owner, name, getattr(owner, name)) for owner, name, _ in self.changes]
        try:
            for owner, name, neutral in self.changes:
                setattr(owner, name, neutral)
            yield
        finally:
            for owner, name, value in reversed(before):
                setattr(owner, name, value)


def off(name: str, *changes: Change, **settings: float) -> Rule:
    """A rule by its name."""
    return Rule(name, changes, settings)


def always(value: Any) -> Callable[..., Any]:
    """A function with one answer."""
    return lambda *args, **kwargs: value


def places(**scores: float) -> Change:
    """Score some places of an adapter otherwise."""
    return (scorers, "SCORES", {place: scores.get(place.name, s) for place, s in affinity.SCORES.items()})


def gives_no_own(
    self: SlotHolders, need: SlotNeed, wait_s: float, *, found: Any = SlotHolders.must_give
) -> Any:
    """Give no slot of the same tenant before `slot_wait_s`."""
    gives, tenant = found(self, need, wait_s), need.request.target.tenant
    return lambda lease: gives(lease) and (lease.tenant != tenant or need.waited_too_long(wait_s))


def no_flood_holds(self: Drains, *, found: Any = Drains.slot_holders) -> SlotHolders:
    """Say of no holder that it floods."""
    return replace(found(self), flooding=frozenset())


def no_second_slot(self: Drains, queue: str, *, found: Any = Drains._heads) -> Any:
    """Leave out adapters that run elsewhere."""
    return () if queue == WITH_SLOT else found(self, queue)


def anywhere(*args: Any, found: Any = leases.slot_to_drain, **options: Any) -> Any:
    """Choose a slot as if no engine had the adapter in memory."""
    return found(*args, **options | {"where_in_memory": False})


def for_any(self: Drains, need: SlotNeed, holders: SlotHolders, *, where_in_memory: bool) -> Any:
    """Choose a slot for a flood that may not use it, too."""
    wait_s = self._settings.slot_wait_s
    return leases.slot_to_drain(
        self._engines, need, holders, slot_wait_s=wait_s, where_in_memory=where_in_memory
    )


def promised(engine: Engine, view: Any) -> str | None:
    """Give every free slot to the adapter for which one drains."""
    return engine.slot_drain and engine.slot_drain.adapter


def other_key(request: Any) -> str:
    """Give an adapter other homes."""
    return f"{request.target.adapter_id}'"


PLACEBO = off(
    "placebo: ties are broken otherwise", (group, "home_key", other_key), (scorers, "home_key", other_key)
)
RULES = (
    PLACEBO,
    off("arrival: any affinity", places(RUNNING=0.0, RESIDENT=0.0, HOME=0.0)),
    off("arrival: where it runs before where it is in memory", places(RUNNING=0.5)),
    off("arrival: where it is in memory", places(RESIDENT=0.0)),
    off("arrival: two homes", places(HOME=0.0)),
    off("arrival: where it runs up to `HOT_LOAD`", (affinity, "HOT_LOAD", 0.0)),
    off("arrival: `SPARE_LOAD` is never too much", (view, "SPARE_LOAD", 0.0)),
    off("arrival: `load_slack`", load_slack=1e9),
    off("arrival: least load", (Engine, "load", property(always(0.0)))),
    off("arrival, place: `READ_WAIT_S`", (locality, "READ_WAIT_S", 0.0)),
    off("arrival, place: `KV_FULL`", (filters, "KV_FULL", math.inf)),
    off("place: least service", (VirtualCounters, "__getitem__", always(0.0))),
    off("place: a completion token counts twice", (fairness, "COMPLETION_TOKEN_PRICE", 1.0)),
    off("place: who comes back is lifted", (VirtualCounters, "lift", always(None))),
    off("place: lengths of answers are learned", (group, "smoothed", lambda mean, newest: mean)),
    off("place: `aging_tokens_per_s`", aging_tokens_per_s=0.0),
    off("place: who is served ages anew", (Backlog, "restart_age", always(None))),
    off("place: `locality_bonus_tokens`", locality_bonus_tokens=0.0),
    off("place: a slot leads", (Lead, "RUNS_HERE", 0.0)),
    off("place: memory leads", (Lead, "IN_MEMORY", 0.0)),
    off("place: a second slot is behind", (Lead, "RUNS_ELSEWHERE", 0.0)),
    off("place: 16 are looked at", (selection, "LOOKED_AT", 1), (drains, "LOOKED_AT", 1)),
    off("place: `lower_band_share`", lower_band_share=0.0),
    off("slots: cleared at all", (drains, "slot_to_drain", always(None))),
    off("slots: 2, balance", (SlotHolders, "_without_one", always(-math.inf))),
    off("slots: 3, order", (SlotHolders, "must_give", gives_no_own)),
    off("slots: 4, time (`slot_wait_s`)", (SlotNeed, "waited_too_long", always(False))),
    off("slots: patience", (leases, "PATIENCE", 0.0)),
    off("slots: floods are not waited for", (Drains, "slot_holders", no_flood_holds)),
    off("slots: in memory first", (drains, "slot_to_drain", anywhere)),
    off(
        "slots: for the many", (Drains, "_most_lost_first", lambda self, heads: [head[2:] for head in heads])
    ),
    off("slots: a second one after `slot_wait_s`", (Drains, "_heads", no_second_slot)),
    off("slots: of whom it disturbs least", (SlotHolders, "order_of_eviction", always(0))),
    off("slots: at arrival, not at the sweep", (Drains, "begin_for", always(None))),
    off("slots: not for a flood that may not run", (Drains, "_choose", for_any)),
    off(
        "slots: a flood's adapters take turns",
        (filters, "promised_to", promised),
        (selection, "promised_to", promised),
    ),
    off("floods", (Floods, "refresh", always(None))),
    off("floods: `burst_share`", burst_share=1.0),
    off("floods: bound while others crowd", (detection._Demand, "is_crowded", property(always(False)))),
    off("floods: bound while others do not", (detection, "FLOODS_AFTER_S", math.inf)),
    off("floods: which only after two seconds", (detection, "FLOODS_AFTER_S", 0.0)),
    off("floods: end at half of the factor", (detection, "FLOOD_ENDS", detection.FLOOD_FACTOR)),
    off("floods: have sent as much", (detection._Demand, "bursts", always(True))),
    off("floods: are held down", (Floods, "_is_held_down", always(False))),
    off("floods: `MOST_TENANTS`", (detection, "MOST_TENANTS", math.inf)),
    off("floods: others are smoothed", (detection, "CALM_S", 1e-9)),
    off("floods: by turns", (Turn, "pass_time", always(None)), (detection, "AT_ONCE", 1.0)),
    off("floods: leave room", (filters, "_leaves_room", always(True))),
    off("floods: leave slots", (filters, "_leaves_a_slot", always(True))),
    off("floods: fill `SPARE_LOAD`", (filters, "SPARE_LOAD", 0.0)),
    off("health: outliers are halved", (group, "outliers", always(frozenset()))),
    off("health: first tokens by epochs", (first_tokens, "EPOCH_S", 0.0)),
    off("limit by `slo.itl_s`", (ConcurrencyLimit, "decide", always(None))),
    off("forecast: shedding by `slo.ttft_s`", (Group, "sheds", always(None))),
    off("forecast: of work", (Group, "predicted_wait_s", Group._wait_for_slot_s)),
    off("forecast: of slots", (Group, "_wait_for_slot_s", always(None))),
    off("overflow: multiples", (accounts, "may_grow", always(True))),
)
BY_NAME = {NOTHING: Rule(NOTHING)} | {rule.name: rule for rule in RULES}

Key = tuple[str, str, int]  # rule that is off, scenario, seed


def all_scenarios() -> dict[str, Scenario]:
    """Those with our scheduler, as long and as large as they are simulated here."""
    return {
        f"{name} {one.label}".strip(): brief(one, OTHER_SECONDS.get(name, SECONDS))
        for name, group in scenarios().items()
        for one in group
    }


def brief(scenario: Scenario, duration_s: float) -> Scenario:
    """Make a scenario shorter, and a large one a part of itself."""
    workload = replace(scenario.workload, duration_s=duration_s)
    if scenario.replicas < LARGE or not isinstance(workload, Workload):
        return replace(scenario, workload=workload)
    flood = workload.flood
    if flood is not None:
        flood = Flood(flood.rate_per_s / PART, max(1, flood.adapters // PART))
    workload = replace(
        workload, adapters=workload.adapters // PART, rate_per_s=workload.rate_per_s / PART, flood=flood
    )
    return replace(scenario, replicas=scenario.replicas // PART, workload=workload)


def simulate(key: Key) -> tuple[Key, dict[str, Any]]:
    """Make one run."""
    name, scenario, seed = key
    rule = BY_NAME[name]
    with rule.switched_off():
        found = run(Task(all_scenarios()[scenario], OURS, seed, StepCosts(), rule.settings))
    return key, asdict(found.figures)


def to_do(done: Mapping[Key, Any], rules: list[str], seeds: int) -> Iterator[Key]:
    """Give what is to be run: nothing more of a rule that has changed nothing so far."""
    for seed in range(1, seeds + 1):
        for name in (NOTHING, *rules):
            for scenario in all_scenarios():
                before = [(name, scenario, s) for s in range(1, SURE_AFTER + 1)]
                same = all(
                    key in done and str(done[key]) == str(done.get((NOTHING, *key[1:]))) for key in before
                )
                if (name, scenario, seed) not in done and (name == NOTHING or not same):
                    yield name, scenario, seed


def moved(done: Mapping[Key, Any], name: str) -> list[tuple[float, str]]:
    """What a rule's absence moves beyond the spread of the seeds, most first: worse is positive."""
    found = []
    for scenario in all_scenarios():
        seeds = [s for rule, where, s in done if (rule, where) == (name, scenario)]
        for title, figure, more_is_better in HEADLINES:
            pairs = [(done[name, scenario, s][figure], done[NOTHING, scenario, s][figure]) for s in seeds]
            logs = [math.log(max(1e-9, a) / max(1e-9, b)) for a, b in pairs if not math.isnan(a + b)]
            if len(logs) < 2:
                continue
            middle, half = fmean(logs), STUDENT[len(logs)] * stdev(logs) / math.sqrt(len(logs))
            if abs(math.expm1(middle)) >= MOVES and abs(middle) > half:
                change, low, high = (100 * math.expm1(log) for log in (middle, middle - half, middle + half))
                text = f"`{scenario}` {title} {change:+.0f} % ({low:.0f}..{high:.0f})"
                found.append((-middle if more_is_better else middle, text))
    return sorted(found, key=lambda one: -abs(one[0]))


def table(done: Mapping[Key, Any], rules: list[str]) -> Iterator[str]:
    """Give the lines of a Markdown table: what each rule's absence makes worse and better."""
    yield "| without | worse | better |"
    yield "|---|---|---|"
    for name in rules:
        found = moved(done, name)
        cells = [[text for by, text in found if by * sign > 0] for sign in (1, -1)]
        shown = ("; ".join(cell[:2]) + (f"; {len(cell) - 2} more" if cell[2:] else "") for cell in cells)
        yield f"| {name} | {' | '.join(shown)} |"


def main(
    results: Annotated[Path, typer.Option(help="File of the runs that were made; it is gone on with.")],
    seeds: Annotated[int, typer.Option(min=2, max=max(STUDENT))] = 5,
    names: Annotated[list[str] | None, typer.Option("--rule", help="One of them; all without it.")] = None,
    for_s: Annotated[float, typer.Option(help="Begin no run later than that.")] = math.inf,
    processes: Annotated[int, typer.Option(min=1)] = PROCESSES,
) -> None:
    """Simulate the scheduler with one rule off at a time, and print a Markdown table."""
    rules, end_s = names or [rule.name for rule in RULES], time.monotonic() + for_s
    results.touch()
    done = {tuple(key): figures for key, figures in map(json.loads, results.read_text().splitlines())}
    with results.open("a") as file, ProcessPoolExecutor(processes) as workers:
        while time.monotonic() < end_s and (keys := list(to_do(done, rules, seeds))[: 8 * processes]):
            for key, figures in workers.map(simulate, keys):
                done[key] = figures
                file.write(json.dumps([key, figures]) + "\n")
    for line in origin().lines():
        typer.echo(line)
    left = len(list(to_do(done, rules, seeds)))
    typer.echo(f"seeds      1..{seeds}, {left} runs are left\n")
    typer.echo("\n".join(table(done, rules)))


if __name__ == "__main__":
    typer.run(main)

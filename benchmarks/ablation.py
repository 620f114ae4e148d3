"""Does each rule of the scheduler earn its place? Simulates with one rule off at a time.

Each seed makes the same calls with a rule and without it, so the two are compared seed by seed. The placebo
breaks ties otherwise: what it moves is noise. A rule that changed nothing in a scenario's first seed is not
run with the others. Runs are kept in a file, so that they can be made in portions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from statistics import fmean, stdev
from typing import Annotated, Any

import typer

from benchmarks.ablation_rules import RULES, Rule
from benchmarks.machine import origin
from benchmarks.portions import FOR_EVER, ForSeconds, Key, ResultsFile, go_on
from benchmarks.simulator.runs import PROCESSES, Task, run
from benchmarks.simulator.scenarios import OURS, Scenario, scenarios
from benchmarks.simulator.workloads import Flood, Workload
from simulation.costs import StepCosts

NOTHING = "nothing"  # is off
SURE_AFTER = 1  # seeds without any change
MOVES = 0.03
# Two-sided 95 % of Student's t, by the number of seeds.
STUDENT = {2: 12.7, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
# Name, field of `Figures`, and whether more is better.
HEADLINES = (
    ("p99", "ttft_p99_s", False),
    ("neighbours' p99", "neighbours_p99_s", False),
    ("goodput", "goodput_per_s", True),
    ("tokens/s", "tokens_per_s", True),
)
# Seconds of the scenarios that `compare` simulates for longer. Fleets of sixteen replicas are a quarter of
# themselves: replicas, adapters, and what arrives.
SECONDS, OTHER_SECONDS = 60.0, {"starved": 200.0, "overload": 15.0, "slots": 80.0, "two-engines": 60.0}
LARGE, PART = 16, 4

BY_NAME = {NOTHING: Rule(NOTHING)} | {rule.name: rule for rule in RULES}


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
    name, scenario, seed = key  # a rule that is off, a scenario, a seed
    rule = BY_NAME[name]
    with rule.switched_off():
        found = run(Task(all_scenarios()[scenario], OURS, seed, StepCosts(), rule.settings))
    return key, asdict(found.figures)


def changed_nothing(done: Mapping[Key, Any], name: str, scenario: str) -> bool:
    """Whether all figures are the same without a rule, in the seeds that say it."""
    with_it, without = (
        [str(done.get((rule, scenario, seed + 1))) for seed in range(SURE_AFTER)] for rule in (NOTHING, name)
    )
    return with_it == without and str(None) not in without


def to_do(done: Mapping[Key, Any], rules: list[str], seeds: int) -> Iterator[Key]:
    """Give what is to be run: nothing more of a rule that has changed nothing so far."""
    for seed in range(1, seeds + 1):
        for name in (NOTHING, *rules):
            for scenario in all_scenarios():
                if (name, scenario, seed) in done:
                    continue
                if name == NOTHING or not changed_nothing(done, name, scenario):
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
    yield "| without | seeds | worse | better |"
    yield "|---|---|---|---|"
    for name in rules:
        seeds = len({seed for rule, _, seed in done if rule == name})
        if all(changed_nothing(done, name, scenario) for scenario in all_scenarios()):
            yield f"| {name} | {seeds} | changes nothing | |"
        else:
            found = moved(done, name)
            worse, better = (_most([text for by, text in found if by * sign > 0]) for sign in (1, -1))
            yield f"| {name} | {seeds} | {worse} | {better} |"


def _most(texts: list[str]) -> str:
    return "; ".join(texts[:2]) + (f"; {len(texts) - 2} more" if texts[2:] else "")


def main(
    results: ResultsFile,
    seeds: Annotated[int, typer.Option(min=2, max=max(STUDENT))] = 5,
    names: Annotated[list[str] | None, typer.Option("--rule", help="One of them; all without it.")] = None,
    for_s: ForSeconds = FOR_EVER,
    processes: Annotated[int, typer.Option(min=1)] = PROCESSES,
) -> None:
    """Simulate the scheduler with one rule off at a time, and print a Markdown table."""
    rules = names or [rule.name for rule in RULES]
    done = go_on(results, for_s, processes, lambda done: to_do(done, rules, seeds), simulate)
    for line in origin().lines():
        typer.echo(line)
    left = len(list(to_do(done, rules, seeds)))
    typer.echo(f"seeds      1..{seeds}, {left} runs are left\n")
    typer.echo("\n".join(table(done, rules)))


if __name__ == "__main__":
    typer.run(main)

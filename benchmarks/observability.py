"""What does observing cost the gateway: metrics, log line, usage ledger, the console's figures?

Two gateways run side by side on one CPU, one as it is, one that observes nothing (`unobserved.py`); the same
load goes to each in turn, in an order that is shuffled in every round. Their ratio in a round is the figure;
single rows move with the machine. Both are started anew several times: where a process lies in memory makes
it faster or slower by some hundredths for as long as it lives. Tracing is off, as it is unless turned on.

    python -m benchmarks.observability
"""

from __future__ import annotations

import functools
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.status import Status
from rich.table import Table

from benchmarks.gateway import Plan, measure, two_cpus
from benchmarks.gateway_report import CHAT_PER_S, CPU_PER_CHAT
from benchmarks.output import JsonFile, benchmark, show
from benchmarks.processes import free_port
from benchmarks.rounds import Measurement, Rounds
from benchmarks.scenarios import CHAT_32
from benchmarks.stats import with_range
from benchmarks.targets import Stage, start_gateway, start_mock

OBSERVED, UNOBSERVED = "observed", "unobserved"


SERVICES = {OBSERVED: "service:Gateway", UNOBSERVED: "benchmarks.unobserved:Gateway"}


def run(stage: Stage, plan: Plan, chance: random.Random, say: Callable[[str], None]) -> Iterator[Measurement]:
    """Start both gateways, measure them round by round, and end them."""
    with stage:
        say("starting")
        mock = start_mock(stage, free_port())
        names = chance.sample([*SERVICES], len(SERVICES))
        targets = [start_gateway(stage, name, SERVICES[name]) for name in names]
        for number in range(plan.rounds):
            for target in chance.sample(targets, len(targets)):
                say(f"round {number + 1} of {plan.rounds}: {target.name}")
                yield measure(stage, mock, target, CHAT_32, plan)


def render(report: Rounds) -> Table:
    """One row per gateway, then one over the other."""
    table = Table(title="median (least..most) of all rounds")
    for column in ("", CHAT_PER_S.name, CPU_PER_CHAT.name):
        table.add_column(column, justify="right" if column else "left")
    for name in (OBSERVED, UNOBSERVED):
        table.add_row(
            name, *(with_range(report.summary(name, figure)) for figure in (CHAT_PER_S, CPU_PER_CHAT))
        )
    table.add_section()
    ratios = (report.ratio(OBSERVED, UNOBSERVED, figure) for figure in (CHAT_PER_S, CPU_PER_CHAT))
    table.add_row("observed, of unobserved", *map(with_range, ratios))
    return table


def _say(status: Status, where: str, what: str) -> None:
    status.update(f"{where}, {what}")


def main(
    starts: Annotated[int, typer.Option(min=1, help="How often both are started anew.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="How often both are measured after a start.")] = 4,
    seconds: Annotated[float, typer.Option(min=0.1, help="What each measurement counts for.")] = 3.0,
    seed: Annotated[int, typer.Option(help="Of the prompts and the order.")] = 1,
    json_file: JsonFile = None,
) -> None:
    """Compare the gateway with one that observes nothing."""
    report, chance, plan = Rounds(), random.Random(seed), Plan(rounds, seconds, seed)
    with benchmark(), Console(stderr=True).status("starting") as status:
        for start in range(starts):
            say = functools.partial(_say, status, f"start {start + 1} of {starts}")
            with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                stage = Stage(Path(folder), *two_cpus())
                report.measurements.extend(run(stage, plan, chance, say))
    show(report, render(report), json_file)


if __name__ == "__main__":
    typer.run(main)

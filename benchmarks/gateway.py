"""What does the gateway cost? `python -m benchmarks.gateway` puts it in front of a mock engine and drives it.

Beside it, in the same rounds, run the mock alone and a proxy without tenancy, so that every figure has a
neighbour measured on the same machine in the same minute. Targets are pinned on one CPU, load and mock on
another. It says nothing about engines: `python -m benchmarks.engine` does.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.endpoint import Target
from benchmarks.gateway_report import render
from benchmarks.output import JsonFile, benchmark, show
from benchmarks.peers import PEERS, check_names, start_peer
from benchmarks.processes import busy_seconds, cpu_seconds, free_port, resident_bytes
from benchmarks.rounds import Measurement, Rounds
from benchmarks.scenarios import SCENARIOS, Scenario, bodies
from benchmarks.targets import Stage, start_gateway, start_mock, start_plain_proxy
from benchmarks.tools import ToolError, run_load

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


@dataclass(frozen=True, slots=True)
class Plan:
    """How often, how long and in which order everything is measured."""

    rounds: int
    seconds: float
    seed: int
    scenarios: Sequence[Scenario] = SCENARIOS

    def steps(self, targets: Sequence[Target]) -> Iterator[tuple[int, Scenario, Target]]:
        """Every scenario against every target in every round, the order of targets shuffled each time."""
        chance = random.Random(self.seed)
        for round_number in range(self.rounds):
            for scenario in self.scenarios:
                for target in chance.sample(targets, len(targets)):
                    yield round_number, scenario, target


@dataclass(frozen=True, slots=True)
class Clocks:
    """Time used so far, in seconds."""

    wall_s: float
    busy_s: float  # by everybody, on the CPUs of the benchmark
    target_s: float
    ours_s: float  # target, mock and this process; the load generator tells its own

    @classmethod
    def read(cls, stage: Stage, mock: Target, target: Target) -> Clocks:
        """Read them all now."""
        busy_s = busy_seconds(Path("/proc/stat").read_text(), stage.cpus)
        target_s = cpu_seconds(target.pid) if target.pid else 0.0
        mock_s = cpu_seconds(mock.pid) if mock.pid and target is not mock else 0.0
        return cls(time.monotonic(), busy_s, target_s, target_s + mock_s + time.process_time())


def two_cpus() -> tuple[int | None, int | None]:
    """(CPU of the targets, CPU of load and mock), or no pinning on a machine with one."""
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (None, None)


def measure(stage: Stage, mock: Target, target: Target, scenario: Scenario, plan: Plan) -> Measurement:
    """Drive one target with one scenario. CPU counts the whole run, so it is set against all its requests."""
    file = stage.folder / f"{target.name}-{scenario.name}.jsonl".replace(" ", "-")
    file.write_text(bodies(scenario, target.models, plan.seed))
    before = Clocks.read(stage, mock, target)
    result = run_load(target.endpoint, scenario.load(plan.seconds), file, cpu=stage.load_cpu)
    after = Clocks.read(stage, mock, target)
    used = after.target_s - before.target_s
    elsewhere = (after.busy_s - before.busy_s) - (after.ours_s - before.ours_s) - result.cpu_s
    return Measurement(
        case=scenario.name,
        target=target.name,
        cpu_ms_per_request=1000 * used / result.sent if target.pid and result.sent else None,
        other_cpu=max(0.0, elsewhere / (after.wall_s - before.wall_s)) if target.pid else None,
        result=result,
    )


def run(stage: Stage, peers: Sequence[str], plan: Plan) -> Rounds:
    """Start everything, measure it round by round, and end what was started. Raises ToolError."""
    report = Rounds()
    console = Console(stderr=True)
    with stage, console.status("starting the mock engine") as status:
        port = free_port()
        mock = start_mock(stage, port)
        targets = [mock]
        for start in (start_plain_proxy, start_gateway):
            status.update(f"starting {start.__name__.removeprefix('start_')}")
            targets.append(start(stage))
        for name in peers:
            status.update(f"installing and starting {name}")
            try:
                targets.append(start_peer(stage, name, port))
            except ToolError as error:
                console.print(f"{name} is left out: {error}", highlight=False)
        report.idle_bytes = {target.name: resident_bytes(target.pid) for target in targets[1:] if target.pid}
        for round_number, scenario, target in plan.steps(targets):
            status.update(f"round {round_number + 1} of {plan.rounds}: {scenario.name}, {target.name}")
            report.measurements.append(measure(stage, mock, target, scenario, plan))
    return report


def named(names: Sequence[str]) -> list[Scenario]:
    """Return scenarios by their names. Raises ToolError for a name that none has."""
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise ToolError(f"no such scenario: {', '.join(unknown)}; there are {', '.join(BY_NAME)}")
    return [BY_NAME[name] for name in names]


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often everything is measured.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="What each measurement counts for.")] = 3.0,
    seed: Annotated[int, typer.Option(help="Of the prompts and the order.")] = 1,
    peer: Annotated[list[str] | None, typer.Option(help=f"Also measure one of: {', '.join(PEERS)}.")] = None,
    scenario: Annotated[
        list[str] | None, typer.Option(help=f"One of: {', '.join(BY_NAME)}; all without it.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure the gateway against the mock alone and a proxy without tenancy."""
    with benchmark(), tempfile.TemporaryDirectory(prefix="bench-") as folder:
        check_names(peer or [])
        plan = Plan(rounds, seconds, seed, named(scenario or list(BY_NAME)))
        report = run(Stage(Path(folder), *two_cpus()), peer or [], plan)
    show(report, render(report), json_file)


if __name__ == "__main__":
    typer.run(main)

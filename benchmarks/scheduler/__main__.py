"""The command `python -m benchmarks.scheduler`: compare schedulers on real engines, run as in production.

Ours is asked through the gateway. The others are idealised: this process decides for them, knows exactly what
is in flight, and a bare proxy passes their requests on.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from benchmarks.baselines import BASELINES, HashAffinity
from benchmarks.engine import gateway_side
from benchmarks.fleet import POOL, api_key
from benchmarks.output import JsonFile, benchmark, show
from benchmarks.scheduler.connections import Connections, connect, engine_names
from benchmarks.scheduler.cores import Roles, seat
from benchmarks.scheduler.doors import DirectDoor
from benchmarks.scheduler.fitting import Step, measure_steps
from benchmarks.scheduler.fleet import Shape, tenant_name, write_fleet
from benchmarks.scheduler.phases import OURS, Plan, Stage, baseline_doors
from benchmarks.scheduler.report import Report, Setting
from benchmarks.scheduler.routers import Router, start_routers
from benchmarks.scheduler.table import conditions, render
from benchmarks.service import Service, start_service
from benchmarks.tools import ToolError
from demo import bulk

SETTLE_S = 5.0  # engines meet batches of all sizes for the first time
CALIBRATION_S = 10.0
CALIBRATED_WITH = "LoRA affinity"
# Engines share this machine's cores. With more threads than cores, each waits at every barrier of the others.
THREADS = {"OMP_NUM_THREADS": "1"}

# In the order in which they run: ours between the last two baselines, which it is closest to, since machines
# change their pace.
*_BEFORE, _AFTER = BASELINES
SCHEDULERS = (*_BEFORE, OURS, _AFTER)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is measured of it all."""

    schedulers: list[str]
    steps_file: Path | None  # where the cost of steps goes; None: it is not measured


async def compare(
    service: Service,
    routers: list[Router],
    setting: Setting,
    wanted: Wanted,
    say: Say,
) -> Report:
    """Find the capacity, then measure every step of the plan. Raises ToolError."""
    shape, plan = setting.shape, setting.plan
    async with AsyncExitStack() as stack:
        say("waiting for all adapters")
        connections = await connect(stack, service, routers, shape)
        names = await engine_names(connections, shape)
        doors = [*baseline_doors(connections.routes, names, shape.slots), connections.door]
        roles = Roles.find(service.child.pid, shape.replica_names(), [router.pid for router in routers])
        stage = Stage(doors, setting.demand, plan, connections.eyes, roles)
        seats = seat(roles)
        await stage.capacity_per_s(CALIBRATED_WITH, SETTLE_S)
        report = Report(setting, seats)
        for number, phase, name in plan.steps(wanted.schedulers):
            if number == len(report.capacities_per_s):
                say(f"round {number + 1} of {plan.rounds}: calibrating")
                report.capacities_per_s.append(await stage.capacity_per_s(CALIBRATED_WITH, CALIBRATION_S))
            capacity_per_s = report.capacities_per_s[number]
            say(f"round {number + 1} of {plan.rounds}: {phase}, {name}; {capacity_per_s:.1f} requests/s")
            report.measured.append(await stage.measure(number, phase, name, capacity_per_s))
        if wanted.steps_file is not None:
            say("measuring steps of one engine")
            write_steps(wanted.steps_file, await fit_steps(connections, names, shape))
        return report


async def fit_steps(connections: Connections, names: list[str], shape: Shape) -> list[Step]:
    """Measure one engine's steps, with the others idle. Raises ToolError."""
    first = dict([next(iter(connections.engines.items()))])
    door = DirectDoor("one engine", HashAffinity(), first, names, shape.slots)
    return await measure_steps(door, shape, connections.eyes)


def write_steps(file: Path, steps: list[Step]) -> None:
    """Write what was measured as JSON. Raises OSError."""
    file.write_text(json.dumps([asdict(step) for step in steps], indent=1) + "\n")


def run(setting: Setting, wanted: Wanted) -> Report:
    """Start the service, compare, and end it. Raises ToolError."""
    console = Console(stderr=True)
    os.environ.update(THREADS)
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary, console.status("starting") as status:
        folder = Path(temporary)

        def say(what: str) -> None:
            status.update(what)
            if not console.is_terminal:
                console.print(f"{time.strftime('%H:%M:%S')} {what}", highlight=False)

        fleet = write_fleet(folder, setting.shape, setting.objectives)
        say("starting the service and its engines")
        with start_service(folder, fleet, POOL) as service:
            service.wait_until_ready(gateway_side(service.url, api_key(tenant_name(0)), bulk.name(0)))
            with (
                start_routers(folder, service, setting.shape.replica_names()) as routers,
                asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
            ):
                return runner.run(compare(service, routers, setting, wanted, say))


def main(
    adapters: Annotated[int, typer.Option(min=1)] = 24,
    rounds: Annotated[int, typer.Option(min=1)] = 2,
    seconds: Annotated[float, typer.Option(min=10.0, help="Of each phase.")] = 30.0,
    only: Annotated[list[str] | None, typer.Option(help=f"Of: {', '.join(SCHEDULERS)}.")] = None,
    seed: Annotated[int, typer.Option(help="Of arrivals and prompts.")] = 1,
    fit: Annotated[
        Path | None, typer.Option(help="Where the cost of an engine's steps goes, as JSON.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Compare the gateway's scheduler with four others on two real engines."""
    setting = Setting(Shape(adapters), Plan(rounds, seconds, seed))
    wanted = Wanted([name for name in SCHEDULERS if not only or name in only], fit)
    with benchmark():
        unknown = set(only or ()) - set(SCHEDULERS)
        if unknown:
            raise ToolError(f"no scheduler {', '.join(sorted(unknown))}; there are: {', '.join(SCHEDULERS)}")
        report = run(setting, wanted)
    console = Console(stderr=str(json_file) == "-", width=140)
    for line in [*conditions(report), *report.targets()]:
        console.print(line, highlight=False, soft_wrap=True)
    show(report, render(report), json_file)


if __name__ == "__main__":
    typer.run(main)

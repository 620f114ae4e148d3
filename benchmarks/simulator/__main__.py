"""Does the policy hold at sixteen replicas and a thousand adapters? `python -m benchmarks.simulator compare`.

Nothing here runs a model: engines are simulated, the gateway's scheduler is its own code. `validate` says how
far the simulated engine is from measured ones, `fit` finds its costs anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.machine import origin
from benchmarks.output import JsonFile, show
from benchmarks.portions import FOR_EVER, ForSeconds, ResultsFile, go_on
from benchmarks.simulator.fit import errors, fit, read_measurements
from benchmarks.simulator.measured import measured_runs
from benchmarks.simulator.models import sweep
from benchmarks.simulator.models.comparison import ModelComparison
from benchmarks.simulator.models.comparison import compare as compare_models
from benchmarks.simulator.report import Comparison
from benchmarks.simulator.runs import PROCESSES, Task, run_all
from benchmarks.simulator.scaling.comparison import Plan, ScalingComparison, policies
from benchmarks.simulator.scaling.comparison import compare as compare_scaling
from benchmarks.simulator.scaling.day import HOUR_S
from benchmarks.simulator.scenarios import ALL, Scenario, scenarios
from benchmarks.simulator.validate import validate as validate_model
from simulation.costs import StepCosts

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)

CostsOption = Annotated[
    Path | None, typer.Option("--costs", help="Step costs that `fit` wrote, instead of the built-in ones.")
]


@contextmanager
def plain_errors() -> Iterator[None]:
    """Print what is wrong with a file, a name or a setting. Raises typer.Exit."""
    try:
        yield
    except (OSError, TypeError, ValueError) as error:
        Console(stderr=True).print(f"[red]{error}")
        raise typer.Exit(1) from error


def costs_of(file: Path | None) -> StepCosts:
    """The costs to simulate with. Raises OSError and ValueError where the file is none."""
    return StepCosts() if file is None else StepCosts.read(file)


def changes_of(settings: Sequence[str]) -> dict[str, float]:
    """Read `name=value`. Raises ValueError on anything else."""
    try:
        return {name: float(value) for name, value in (setting.split("=") for setting in settings)}
    except ValueError as error:
        raise ValueError(f"--set takes NAME=NUMBER: {error}") from error


def chosen(names: Sequence[str], routers: Sequence[str]) -> list[tuple[Scenario, str]]:
    """Every scenario with every router asked for. Raises ValueError on a name nobody knows."""
    known = scenarios()
    for given, there in ((names, tuple(known)), (routers, ALL)):
        unknown = [name for name in given if name not in there]
        if unknown:
            raise ValueError(f"unknown: {', '.join(unknown)}; there are {', '.join(there)}")
    return [
        (scenario, router)
        for name in names or known
        for scenario in known[name]
        for router in scenario.routers
        if not routers or router in routers
    ]


@app.command()
def compare(
    names: Annotated[
        list[str] | None, typer.Option("--scenario", help="One of them; all without it.")
    ] = None,
    routers: Annotated[
        list[str] | None, typer.Option("--router", help="One of them; all without it.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1)] = 5,
    costs_file: CostsOption = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of our scheduler, e.g. slot_wait_s=5.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1)] = PROCESSES,
    json_file: JsonFile = None,
) -> None:
    """Compare routers on the same calls."""
    with plain_errors(), Console(stderr=True).status("simulating") as status:
        comparison = Comparison(costs_of(costs_file))
        changes = changes_of(settings or [])
        tasks = [
            Task(scenario, router, seed + 1, comparison.costs, changes)
            for scenario, router in chosen(names or [], routers or [])
            for seed in range(seeds)
        ]
        for result in run_all(tasks, processes):
            comparison.results.append(result)
            done = f"{len(comparison.results)} of {len(tasks)}"
            status.update(f"{done}: {result.scenario}, {result.router}")
    tables = Table.grid()
    for scenario in comparison.scenarios():
        tables.add_row(comparison.table(scenario))
    show(comparison, tables, json_file)


@app.command()
def validate(
    folder: Annotated[Path, typer.Option("--traces", help="Folder of the measured runs; see measured.py.")],
    costs_file: CostsOption = None,
    json_file: JsonFile = None,
) -> None:
    """Simulate runs that were measured, and say how far off the model is."""
    with plain_errors(), Console(stderr=True).status("simulating the measured runs"):
        found = validate_model(measured_runs(folder), costs_of(costs_file))
    whole = Table.grid()
    whole.add_row(found.table())
    for line in found.summary():
        whole.add_row(line)
    show(found, whole, json_file)


@app.command()
def models(
    fleets: Annotated[
        list[str] | None, typer.Option("--fleet", help="Those whose names contain this; all without it.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1)] = 5,
    processes: Annotated[int, typer.Option(min=1)] = PROCESSES,
    traces: Annotated[
        Path | None, typer.Option(help="Folder of Azure's traces of 2023; fleets by these too.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Compare who gets a device next, where whole models take turns."""
    with plain_errors(), Console(stderr=True).status("simulating") as status:
        comparison = ModelComparison()
        for result in compare_models(fleets or [], seeds, processes, traces):
            comparison.results.append(result)
            status.update(f"{len(comparison.results)}: {result.fleet}, {result.policy}")
    tables = Table.grid()
    for table in comparison.tables():
        tables.add_row(table)
    show(comparison, tables, json_file)


@app.command("sweep-models")
def sweep_models(
    results: ResultsFile,
    seeds: Annotated[int, typer.Option(min=1)] = 5,
    devices: Annotated[list[int] | None, typer.Option(min=1, help="So many; all without it.")] = None,
    for_s: ForSeconds = FOR_EVER,
    processes: Annotated[int, typer.Option(min=1)] = PROCESSES,
    traces: Annotated[
        Path | None, typer.Option(help="Folder of Azure's traces of 2023; fleets by these too.")
    ] = None,
) -> None:
    """Compare them on one to sixteen devices, under each load, at each cost of a switch, in portions."""
    with plain_errors():
        known = sweep.fleets(devices or sweep.DEVICES, traces)
        todo = partial(sweep.to_do, known=known, seeds=seeds)
        done = go_on(results, for_s, processes, todo, partial(sweep.make, known))
    for line in origin().lines():
        typer.echo(line)
    typer.echo(f"seeds      1..{seeds}, {len(list(todo(done)))} runs are left\n")
    typer.echo("\n".join(sweep.tables(done, known)))


@app.command()
def scaling(  # noqa: PLR0913 - an option each
    trace: Annotated[Path, typer.Option(help="CSV of requests, as Azure's or BurstGPT's public traces.")],
    names: Annotated[list[str] | None, typer.Option("--policy", help="One of them; all without it.")] = None,
    fixed: Annotated[list[int] | None, typer.Option(help="Replicas of a fixed fleet; else most.")] = None,
    least: Annotated[int, typer.Option(min=0, help="Fewest replicas of those that scale.")] = 1,
    most: Annotated[int, typer.Option(min=1, help="Most replicas.")] = 8,
    start_s: Annotated[float, typer.Option(min=0, help="A replica's order to its first request.")] = 60.0,
    waiting: Annotated[float, typer.Option(help="Waiting requests for each replica, of the HPA.")] = 2.0,
    hours: Annotated[float, typer.Option(min=0.1, max=24)] = 24.0,
    objective: Annotated[
        bool, typer.Option(help="Give the pool its objective: late requests are refused.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=1)] = 1,
    processes: Annotated[int, typer.Option(min=1)] = PROCESSES,
    json_file: JsonFile = None,
) -> None:
    """Compare who says how many replicas there should be, through a day."""
    comparison, known = ScalingComparison(), policies(fixed or [most], waiting)
    with plain_errors(), Console(stderr=True).status("simulating") as status:
        unknown = [name for name in names or () if name not in known]
        if unknown:
            raise ValueError(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
        plans = [
            Plan(trace, name, seed + 1, least, most, start_s, hours * HOUR_S, objective)
            for name in names or known
            for seed in range(seeds)
        ]
        for day in compare_scaling(plans, known, processes):
            comparison.days.append(day)
            status.update(f"{len(comparison.days)} of {len(plans)}: {day.policy}")
    show(comparison, comparison.table(), json_file)


@app.command("fit")
def fit_command(
    measurements: Annotated[Path, typer.Option(help="JSON list of measurements; fit.py says what is in it.")],
    out: Annotated[Path | None, typer.Option(help="Where the costs go, for --costs.")] = None,
) -> None:
    """Fit the step costs to measurements of one's own."""
    with plain_errors():
        points = read_measurements(measurements)
        found = fit(points, StepCosts())
        if out is not None:
            out.write_text(found.as_json())
    off = errors(points, found)
    typer.echo(f"largest error {100 * max(map(abs, off)):.1f} % of {len(points)} measurements")
    typer.echo(found.as_json(), nl=False)


if __name__ == "__main__":
    app()

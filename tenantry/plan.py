"""The command `plan` and the commands `plan ...`: which models should share what. They change nothing."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from fleet import read_fleet
from fleet.types import Fleet
from planning.sharing import Rules
from tenantry import plan_adapters, plan_inputs, plan_measuring
from tenantry.client import Answer
from tenantry.fleets import fail
from tenantry.plan_inputs import From, Over, declared_fleet, fleet_file
from tenantry.plan_tables import show_plan
from tenantry.running import URL, AsJson, Connection, Url, conclude, duration_s

RULES = Rules()

app = typer.Typer(invoke_without_command=True)


@app.callback()
def plan(  # noqa: PLR0913  # an argument for each option, as typer wants it
    ctx: typer.Context,
    fleet: Annotated[
        Path | None,
        typer.Option(
            "--fleet", help="Fleet file of today.", show_default="fleet.yaml, where nothing else is named"
        ),
    ] = None,
    source: From = None,
    over: Over = None,
    machines: Annotated[
        str | None,
        typer.Option(
            "--machines",
            metavar="FILE|KIND",
            help="YAML of machines, or a kind of device, such as h100-80gb, as many as are needed.",
            show_default="this machine",
        ),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(
            "--models", help="YAML of models that are not in the fleet file, or not on this machine."
        ),
    ] = None,
    costs: Annotated[
        Path | None,
        typer.Option("--costs", help="Costs that `plan calibrate` measured.", show_default="computed"),
    ] = None,
    busy: Annotated[
        float, typer.Option(min=1, max=100, help="Percent of a device that full batches may take.")
    ] = 100 * RULES.busy,
    switching: Annotated[
        float, typer.Option(min=0, max=100, help="Percent of a device that switches may take.")
    ] = 100 * RULES.switching,
    active: Annotated[
        float,
        typer.Option(min=0.1, max=100, help="Models a device that are asked for at once and take turns."),
    ] = RULES.active,
    without: Annotated[
        list[str] | None,
        typer.Option(help="Not to be used: mig, model-mesh or swap; can be given again."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Runs of each simulation.")] = 3,
    write: Annotated[
        Path | None, typer.Option("--write", help="Write the plan as a fleet file.", dir_okay=False)
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Write a report with drawings, one HTML page.", dir_okay=False),
    ] = None,
    publish: Annotated[
        bool,
        typer.Option("--publish", help="Hand the plan to the gateway: for the console, and for --watch."),
    ] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Go on: compare the published plan with the ledger, and tell the gateway."
        ),
    ] = False,
    every: Annotated[
        str, typer.Option(metavar="TIME", help="Time between two looks of --watch, such as 1d.")
    ] = "7d",
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Plan which models share what, on how many devices, and what tenants then see; changes nothing.

    The plan is simulated over the demand before it is shown. Exit code 1: no plan meets all objectives.
    --publish and --watch need TENANTRY_ADMIN_KEY.
    """
    if ctx.invoked_subcommand is not None:
        return
    making, watching = _making()
    rules = making.rules_of(busy, switching, active, without or [])
    over_s = None if over is None else duration_s(over)

    def wish_of(now: Fleet | None) -> Any:
        return making.Wish(now, source, over_s, machines, models, costs, rules, seeds, write, html, as_json)

    wish = wish_of(declared_fleet(fleet, source))
    link = watching.Link(url, (ctx.find_object(Connection) or Connection()).transport)
    if watch:
        file = fleet_file(fleet, source)

        def wish_now() -> Any:
            return wish_of(None if file is None else read_fleet(file, keys_needed=False).fleet)

        conclude(watching.Watch(wish_now, duration_s(every), link, as_json=as_json).run, as_json, show_plan)
    answers: list[Answer] = []

    def work() -> Answer:
        if publish:
            watching.require_gateway(link)
        answers.append(making.make(wish))
        if publish:
            watching.publish(answers[0], link)
        return answers[0]

    conclude(work, as_json, show_plan)
    if not answers[0]["meets_objectives"]:
        raise typer.Exit(1)


def _making() -> tuple[ModuleType, ModuleType]:
    """Return what makes and watches plans. It simulates the gateway, which a light installation lacks."""
    try:
        from tenantry import plan_making, plan_watching
    except ImportError as error:
        fail(
            f"A plan is simulated with the gateway's own code: {error.name} is missing here. "
            "Plan in a checkout."
        )
    return plan_making, plan_watching


app.command("demand")(plan_inputs.demand)
app.command("adapters")(plan_adapters.adapters)
app.command("calibrate")(plan_measuring.calibrate_engine)

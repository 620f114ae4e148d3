"""The commands `plan ...`: which models should share what. They change nothing."""

from __future__ import annotations

import typer

from tenantry import plan_adapters, plan_inputs, plan_measuring

app = typer.Typer(
    no_args_is_help=True, help="Plan which models share what, and on how much; changes nothing."
)


@app.callback()
def plan() -> None:
    """Plan which models share what, and on how much; changes nothing."""


app.command("demand")(plan_inputs.demand)
app.command("adapters")(plan_adapters.adapters)
app.command("calibrate")(plan_measuring.calibrate_engine)

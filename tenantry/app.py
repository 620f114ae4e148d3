"""The command `tenantry`: its commands, their groups, and the options before them.

Exit codes: 0 all is well, 1 problems were found or the gateway refused, 2 the command was used wrongly,
3 no gateway answers. Only `new-key`, `init`, `keys create` and `tenants add --key`
show a key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from tenantry import (
    __version__,
    adapters,
    aliases,
    batches,
    beginning,
    building,
    changing,
    devices,
    events,
    explaining,
    exporting,
    fleets,
    keys,
    mig,
    models,
    plan,
    reference,
    replicas,
    restarting,
    scheduler,
    serving,
    tenants,
    top,
    usage,
)
from tenantry.manifests.command import manifests
from tenantry.running import run

FLEET = "A fleet file"
GATEWAY = "A running gateway"
REFERENCE = "Reference"

app = typer.Typer(
    name="tenantry",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Serve many tenants' LoRA adapters from one fleet. --url or TENANTRY_URL names a gateway, "
    "TENANTRY_ADMIN_KEY holds its admin key. Exit codes: 0 all is well, 1 problems were found or the gateway "
    "refused, 2 the command was used wrongly, 3 no gateway answers.",
)

PANELS: dict[str, dict[str, Callable[..., None]]] = {
    FLEET: {
        "init": beginning.init,
        "serve": serving.serve,
        "check": fleets.check,
        "who-shares": fleets.sharing,
        "devices": devices.devices,
        "build": building.build,
        "manifests": manifests,
        "new-key": fleets.make_key,
    },
    GATEWAY: {
        "diff": changing.diff,
        "apply": changing.apply,
        "scheduler": scheduler.scheduler,
        "explain": explaining.explain,
        "replicas": replicas.replicas,
        "drain": replicas.drain,
        "resume": replicas.resume,
        "restart": restarting.restart,
        "top": top.top,
        "usage": usage.usage,
        "batches": batches.batches,
        "events": events.events,
        "export": exporting.export,
    },
    REFERENCE: {"schema": reference.schema, "metrics": reference.metrics},
}
for panel, commands in PANELS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel)(command)
app.add_typer(mig.app, name="mig", rich_help_panel=FLEET)
app.add_typer(plan.app, name="plan", rich_help_panel=FLEET)
app.add_typer(tenants.app, name="tenants", rich_help_panel=GATEWAY)
app.add_typer(aliases.app, name="aliases", rich_help_panel=GATEWAY)
app.add_typer(adapters.app, name="adapters", rich_help_panel=GATEWAY)
app.add_typer(models.app, name="models", rich_help_panel=GATEWAY)
app.add_typer(keys.app, name="keys", rich_help_panel=GATEWAY)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tenantry {__version__}")
        raise typer.Exit


@app.callback()
def tenantry(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end."),
    ] = False,
) -> None:
    """Take the options before the command."""


def main() -> None:
    """Run the command."""
    run(app, "tenantry")

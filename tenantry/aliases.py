"""The commands of `tenantry aliases`: a tenant's own names for models, while the gateway runs."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from tenantry.client import Answer, Gateway, alias_in_path
from tenantry.columns import Columns
from tenantry.running import URL, AsJson, Url, ask, print_whole, printable

app = typer.Typer(
    no_args_is_help=True,
    help="Set, list and remove a tenant's own aliases. Those of its entry in the fleet are set with "
    "`tenantry tenants set`.",
)
Name = Annotated[str, typer.Argument(metavar="ALIAS", help="The alias.", show_default=False)]
Whose = Annotated[
    str | None,
    typer.Option("--tenant", help="Whose alias; an operator names it.", show_default="the key's"),
]


@app.command("set")
def set_(
    ctx: typer.Context,
    alias: Name,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Adapter of the tenant's own, or a model that it may call.",
            show_default=False,
        ),
    ],
    tenant: Whose = None,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Have an alias stand for a model; it counts from the next request on."""

    async def work(gateway: Gateway) -> Answer:
        path = f"/aliases/{alias_in_path(alias)}"
        return await gateway.call("PUT", path, params={"tenant": tenant}, body={"model": model})

    ask(ctx, url, as_json, work, _show_set)


@app.command()
def remove(
    ctx: typer.Context, alias: Name, tenant: Whose = None, url: Url = URL, as_json: AsJson = False
) -> None:
    """Remove an alias at once."""

    async def work(gateway: Gateway) -> Answer:
        return await gateway.call("DELETE", f"/aliases/{alias_in_path(alias)}", params={"tenant": tenant})

    ask(ctx, url, as_json, work, _show_removed)


@app.command("list")
def list_(ctx: typer.Context, tenant: Whose = None, url: Url = URL, as_json: AsJson = False) -> None:
    """List a tenant's own aliases."""

    async def work(gateway: Gateway) -> list[Answer]:
        return list((await gateway.call("GET", "/aliases", params={"tenant": tenant}))["data"])

    ask(ctx, url, as_json, work, _show_list)


def _show_set(console: Console, alias: Answer) -> None:
    console.print(printable(f"{alias['alias']} of {alias['tenant']} stands for {alias['model']}."))


def _show_removed(console: Console, alias: Answer) -> None:
    console.print(
        printable(f"{alias['alias']} of {alias['tenant']} is removed; it stood for {alias['model']}.")
    )


def _show_list(console: Console, aliases: list[Answer]) -> None:
    table = Columns("alias", "model", "by", spare=("by",))
    for alias in aliases:
        table.add(alias["alias"], alias["model"], alias["changed_by"])
    print_whole(console, table)

"""The commands of `tenantry tenants`: admit, show, change, suspend, resume and remove tenants at run time."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console

from tenantry import tenant_options as options
from tenantry.client import Answer, Gateway, in_path
from tenantry.columns import Columns, print_prose
from tenantry.display import IN_JSON
from tenantry.running import URL, AsJson, Url, ask, print_whole, printable

app = typer.Typer(
    no_args_is_help=True,
    help="Admit, change, suspend and remove tenants at run time. What is set here wins over fleet.yaml.",
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the tenant.", show_default=False)]
_DONE = {"suspend": "suspended", "resume": "resumed", "remove": "removed"}


@app.command()
@options.takes_values
def add(
    ctx: typer.Context,
    name: Name,
    like: Annotated[
        str | None,
        typer.Option(help="Another tenant whose settings it gets, without keys, adapters and usage."),
    ] = None,
    key: Annotated[bool, typer.Option("--key", help="Make its first API key, shown this once.")] = False,
    dry_run: options.DryRun = False,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Admit a tenant. It counts at once, and after a restart."""
    body = options.body_of(ctx.params) | {"name": name, "key": key}
    if like is not None:
        body["like"] = like

    async def work(gateway: Gateway) -> Answer:
        return await gateway.call("POST", "/tenants", params=_dry(dry_run), body=body)

    ask(ctx, url, as_json, work, lambda console, told: _show_changed(console, told, "admitted"))


@app.command("set")
@options.takes_values
def set_(  # noqa: PLR0913  # an argument for each option, as typer wants it
    ctx: typer.Context,
    name: Name,
    remove_alias: options.RemoveAlias = None,
    no_cap: options.NoCap = None,
    no_budget: options.NoBudget = False,
    reset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH", help="Take back a value set at run time, as `show` names it. Can be repeated."
        ),
    ] = None,
    dry_run: options.DryRun = False,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Change a tenant. It counts from its next request on; another change meanwhile refuses this one."""
    body = options.body_of(ctx.params)
    if reset:
        body["reset"] = reset
    if not body:
        raise typer.BadParameter("name at least one value to set; --help lists them")

    async def work(gateway: Gateway) -> Answer:
        path = f"/tenants/{in_path(name)}"
        seen = await gateway.call("GET", path)
        whole = body | {"revision": seen["revision"]}
        return await gateway.call("PATCH", path, params=_dry(dry_run), body=whole)

    ask(ctx, url, as_json, work, lambda console, told: _show_changed(console, told, "changed"))


@app.command()
def suspend(
    ctx: typer.Context, name: Name, dry_run: options.DryRun = False, url: Url = URL, as_json: AsJson = False
) -> None:
    """Refuse a tenant's keys and what waits of it. What runs ends, and nothing is deleted."""
    _act(ctx, "suspend", name, dry_run, url, as_json)


@app.command()
def resume(
    ctx: typer.Context, name: Name, dry_run: options.DryRun = False, url: Url = URL, as_json: AsJson = False
) -> None:
    """Take a suspended tenant's keys again."""
    _act(ctx, "resume", name, dry_run, url, as_json)


@app.command()
def remove(
    ctx: typer.Context, name: Name, dry_run: options.DryRun = False, url: Url = URL, as_json: AsJson = False
) -> None:
    """Remove a tenant, its keys and its adapters. What runs ends, and the ledger keeps what it used."""

    async def work(gateway: Gateway) -> Answer:
        return await gateway.call("DELETE", f"/tenants/{in_path(name)}", params=_dry(dry_run))

    ask(ctx, url, as_json, work, lambda console, told: _show_changed(console, told, _DONE["remove"]))


@app.command("list")
def list_(ctx: typer.Context, url: Url = URL, as_json: AsJson = False) -> None:
    """List the tenants as they count now."""

    async def work(gateway: Gateway) -> list[Answer]:
        return list((await gateway.call("GET", "/tenants"))["data"])

    ask(ctx, url, as_json, work, _show_list)


@app.command()
def show(ctx: typer.Context, name: Name, url: Url = URL, as_json: AsJson = False) -> None:
    """Show a tenant, each value with what it comes from; also one that was removed."""

    async def work(gateway: Gateway) -> Answer:
        return await gateway.call("GET", f"/tenants/{in_path(name)}")

    ask(ctx, url, as_json, work, _show_tenant)


def _act(ctx: typer.Context, verb: str, name: str, dry_run: bool, url: str, as_json: bool) -> None:
    async def work(gateway: Gateway) -> Answer:
        return await gateway.call("POST", f"/tenants/{in_path(name)}/{verb}", params=_dry(dry_run))

    ask(ctx, url, as_json, work, lambda console, told: _show_changed(console, told, _DONE[verb]))


def _dry(dry_run: bool) -> dict[str, Any]:
    return {"dry_run": "true"} if dry_run else {}


def _show_changed(console: Console, told: Answer, done: str) -> None:
    name = told["tenant"]["name"]
    would = "would be " if told["dry_run"] else "is "
    print_prose(console, f"Tenant {name} {would}{done}.")
    for words in told["words"]:
        print_prose(console, f"  {words}")
    if told["key"] is not None:
        console.print(f"key (shown once):  {printable(told['key']['key'])}")


def _show_list(console: Console, tenants: list[Answer]) -> None:
    table = Columns(
        *("tenant", "state", "priority", "weight", "isolation", "models"),
        spare=("isolation", "weight", "priority"),
        prose=("models",),
        note=IN_JSON,
    )
    for tenant in tenants:
        models = ", ".join(f"{alias}={model}" for alias, model in tenant["models"].items())
        state = "suspended" if tenant["suspended"] else "active"
        cells = (tenant["name"], state, tenant["band"], f"{tenant['weight']:g}", tenant["isolation"], models)
        table.add(*cells, style="yellow" if tenant["suspended"] else "")
    print_whole(console, table)


def _show_tenant(console: Console, tenant: Answer) -> None:
    account = "" if tenant["account"] == tenant["name"] else f", counted as {tenant['account']}"
    declared = "declared" if tenant["declared"] else "not declared"
    print_prose(console, f"{tenant['name']}: {tenant['state']}, {declared}{account}", "bold")
    if tenant["revision"]:
        when = _moment(tenant["changed_at"])
        print_prose(console, f"revision {tenant['revision']}, {when} UTC by {tenant['changed_by']}")
    for problem in tenant["problems"]:
        print_prose(console, f"not applied: {problem}", "red")
    table = Columns("value", "is", "from", "set", "by", "declared", spare=("declared", "by", "set"))
    for value in tenant["values"]:
        when = "" if value["at"] is None else _moment(value["at"])
        below = "" if value["declared"] is None else _text(value["declared"])
        table.add(value["path"], _text(value["value"]), value["source"], when, value["by"], below)
    for alias in tenant["aliases"]:
        when = _moment(alias["changed_at"])
        table.add(f"alias {alias['alias']}", alias["model"], "its own", when, alias["changed_by"], "")
    print_whole(console, table)


def _moment(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M")


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else json.dumps(value).strip('"')

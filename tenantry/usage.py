"""The command `usage`: tokens, waits and shares by tenant and model, from a gateway's ledger."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from tenantry.client import Answer, Gateway
from tenantry.columns import Columns
from tenantry.display import IN_JSON, percent
from tenantry.running import URL, AsJson, Url, ask, print_whole, printable
from tenantry.scheduler_tables import seconds


def usage(  # noqa: PLR0913  # an argument for each option, as typer wants it
    ctx: typer.Context,
    first: Annotated[
        str | None,
        typer.Option("--from", metavar="DAY", help="First day, UTC.", show_default="29 days before --to"),
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", metavar="DAY", help="Last day, included.", show_default="today")
    ] = None,
    group_by: Annotated[
        str,
        typer.Option(
            "--group-by",
            "--by",
            metavar="LIST",
            help="Any of day, tenant, key, model, adapter, version, pool, outcome, by commas.",
        ),
    ] = "tenant,model",
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.", show_default="all")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, for spreadsheets.")] = False,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Show tokens, waits and shares of the fleet's time by tenant and model, or by the given columns."""
    params = {"from": first, "to": last, "group_by": group_by, "tenant": tenant}

    async def look(gateway: Gateway) -> Answer:
        return await gateway.call("GET", "/usage", params=params)

    async def fetch(gateway: Gateway) -> str:
        return await gateway.text("/usage", {**params, "format": "csv"})

    if as_csv and as_json:
        raise typer.BadParameter("--csv and --json cannot both be printed")
    if as_csv:
        ask(ctx, url, False, fetch, lambda _, text: typer.echo(text, nl=False))
    else:
        ask(ctx, url, as_json, look, show)


def show(console: Console, answer: Answer) -> None:
    """Print the lines, their total, and the budgets of the tenants meant."""
    console.print(printable(f"{answer['from']} to {answer['to']}, UTC"), style="bold")
    dimensions = answer["group_by"]
    currency = answer.get("currency")  # a gateway of an earlier release has none
    costs = [] if currency is None else [currency]
    table = Columns(
        *(
            *dimensions,
            "requests",
            "prompt",
            "completion",
            "cached",
            "waited",
            "ran",
            "slot",
            "engine",
            "switches",
            *costs,
        ),
        spare=("switches", "ran", "waited", "slot", "cached", "engine", *costs),
        note=f"{IN_JSON}, and --csv",
    )
    for line in answer["data"]:
        table.add(
            *(line[name] for name in dimensions), *_measures(line), *[line.get("cost") or ""] * len(costs)
        )
    if len(answer["data"]) != 1:
        total = answer["total"]
        names = ["total", *[""] * len(dimensions)][: len(dimensions)]
        table.add(*names, *_measures(total), *[total.get("cost") or ""] * len(costs))
    print_whole(console, table)
    estimated = answer["total"]["estimated_requests"]
    if estimated:
        console.print(f"  tokens of {estimated} requests are partly estimated")
    for budget in answer["budgets"]:
        _show_budget(console, budget, currency)


def _measures(line: Answer) -> tuple[str, ...]:
    tokens = (line["requests"], line["prompt_tokens"], line["completion_tokens"], line["cached_tokens"])
    times = (line["queue_s"], line["run_s"], line["slot_s"], line["engine_s"], line["switch_s"])
    return (*(f"{number:,}" for number in tokens), *(seconds(time_s) for time_s in times))


def _show_budget(console: Console, budget: Answer, currency: str | None) -> None:
    if budget.get("monthly_cost") is None:
        used, limit = budget["used_tokens"], budget["monthly_tokens"]
        shown, part = f"{used:,} of {limit:,} tokens", used / limit
    else:
        shown = f"{budget['used_cost']} of {budget['monthly_cost']} {currency}"
        part = float(budget["used_cost"]) / float(budget["monthly_cost"])
    text = f"  budget of {budget['tenant']}: {shown} this month ({percent(part)})"
    colour = {"below": None, "soft": "yellow", "spent": "red"}.get(budget["level"])
    console.print(printable(text), style=colour)

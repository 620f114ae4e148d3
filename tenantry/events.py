"""The command `events`: who changed what, and when."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console

from tenantry.client import Answer, Gateway
from tenantry.columns import Columns
from tenantry.running import URL, AsJson, Url, ask, duration_s, print_whole


def events(
    ctx: typer.Context,
    tenant: Annotated[
        str | None,
        typer.Option(help="Only events of this tenant.", show_default="all; a tenant's key: its own"),
    ] = None,
    since: Annotated[
        float | None,
        typer.Option(
            parser=duration_s, metavar="2h", help="Only events of this last time.", show_default="all"
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this number of events.")] = 50,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Show who changed what of tenants, aliases, adapters, keys and replicas, the newest first."""
    since_s = None if since is None else time.time() - since
    params = {"limit": str(limit), "tenant": tenant, "since": since_s}

    async def work(gateway: Gateway) -> list[Answer]:
        answer = await gateway.call("GET", "/events", params=params)
        return list(answer["data"])

    ask(ctx, url, as_json, work, show)


def show(console: Console, events: list[Answer]) -> None:
    """Show events, the newest first."""
    table = Columns("when", "what", "happened", "by", spare=("by",), prose=("happened",))
    for event in events:
        when = datetime.fromtimestamp(event["at"], UTC).strftime("%Y-%m-%d %H:%M:%S")
        table.add(when, event["subject"], event["text"], event["actor"])
    print_whole(console, table)

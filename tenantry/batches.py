"""The command `batches`: how far tenants' batches are."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console

from tenantry.client import Answer, Gateway
from tenantry.columns import Columns
from tenantry.running import URL, AsJson, Url, ask, print_whole


def batches(
    ctx: typer.Context,
    tenant: Annotated[
        str | None,
        typer.Option(help="Only batches of this tenant.", show_default="all; a tenant's key: its own"),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this number of batches.")] = 50,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """List batches, with how many of their lines have an answer, the newest first."""
    params = {"limit": str(limit), "tenant": tenant}

    async def work(gateway: Gateway) -> list[Answer]:
        answer = await gateway.call("GET", "/batches", params=params)
        return list(answer["data"])

    ask(ctx, url, as_json, work, show)


def show(console: Console, found: list[Answer]) -> None:
    """Show batches, the newest first."""
    table = Columns("batch", "tenant", "made", "status", "lines", "answered", "failed", spare=("made",))
    for batch in found:
        made = datetime.fromtimestamp(batch["created_at"], UTC).strftime("%Y-%m-%d %H:%M")
        counts = batch["request_counts"]
        numbers = (str(counts[name]) for name in ("total", "completed", "failed"))
        table.add(batch["id"], batch["tenant"], made, batch["status"], *numbers)
    print_whole(console, table)

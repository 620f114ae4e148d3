"""The command `scheduler`: waiting requests with their reasons, and the last decisions."""

from __future__ import annotations

import contextlib
import time
from typing import Annotated

import typer
from rich.console import Console

from tenantry import scheduler_tables
from tenantry.client import Answer, Gateway, GatewayUnreachable
from tenantry.running import URL, AsJson, Url, ask

MAX_DECISIONS = 512  # the gateway keeps this number
LEAST_WATCH_S, MOST_WATCH_S = 0.5, 3600.0  # each query costs the gateway work


def interval_s(text: str) -> float:
    """Read a number of seconds. Raises `typer.BadParameter`."""
    try:
        interval = float(text)
    except ValueError:
        interval = float("nan")
    if not LEAST_WATCH_S <= interval <= MOST_WATCH_S:
        raise typer.BadParameter(f"{text!r} is not from {LEAST_WATCH_S:g} to {MOST_WATCH_S:g} seconds")
    return interval


def scheduler(
    ctx: typer.Context,
    decisions: Annotated[
        int, typer.Option(min=0, max=MAX_DECISIONS, help="At most this number of the last decisions.")
    ] = 20,
    tenant: Annotated[
        str | None, typer.Option(help="Only decisions about this tenant.", show_default="all")
    ] = None,
    request: Annotated[
        str | None, typer.Option(help="Only decisions about this request (x-request-id).", show_default="all")
    ] = None,
    watch: Annotated[
        float | None,
        typer.Option(
            parser=interval_s,
            metavar="SECONDS",
            help="Refresh at this interval, until Ctrl-C.",
            show_default="once",
        ),
    ] = None,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Show waiting requests and reasons, slots and their adapters, replicas' health, and recent decisions."""
    params = {"decisions": decisions, "tenant": tenant, "request": request}

    async def look(gateway: Gateway) -> Answer:
        return await gateway.call("GET", "/scheduler", params=params)

    if watch is None:
        ask(ctx, url, as_json, look, scheduler_tables.scheduler)
        return
    seen = False
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            try:
                ask(ctx, url, as_json, look, _on_a_clear_screen)
                seen = True
            except typer.Exit as ended:
                if not seen or ended.exit_code != GatewayUnreachable.exit_code:
                    raise
            time.sleep(watch)


def _on_a_clear_screen(console: Console, answer: Answer) -> None:
    console.clear()
    scheduler_tables.scheduler(console, answer)

"""The command `top`: which model is slow now, and why; the console's view in a terminal.

The command `scheduler` shows the decisions about a request, and the reasons of waiting ones.
"""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from tenantry import top_view
from tenantry.client import Answer, Gateway, GatewayUnreachable, key_from_environment, understood
from tenantry.running import URL, AsJson, Connection, Url, ask, conclude, console
from tenantry.scheduler import interval_s


def top(
    ctx: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Print it once and end, for scripts.")] = False,
    every: Annotated[
        float, typer.Option(parser=interval_s, metavar="SECONDS", help="Refresh interval.")
    ] = 1.0,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Show models (the slowest first, and why), replicas with their slots, and waiting tenants."""
    if once or as_json:
        ask(ctx, url, as_json, look, top_view.whole)
        return
    connection = ctx.find_object(Connection) or Connection()

    def watch() -> None:
        with understood(url):
            asyncio.run(_watch(connection, url, every, console()))

    conclude(watch, False, _nothing)


async def look(gateway: Gateway) -> Answer:
    """Fetch the live snapshot."""
    return await gateway.call("GET", "/live")


async def _watch(connection: Connection, url: str, every_s: float, terminal: Console) -> None:
    """Show it again and again until Ctrl-C.

    Raises `GatewayError` if the first query fails, or any is refused.
    """
    async with Gateway(url, key_from_environment(), transport=connection.transport) as gateway:
        answer, seen_s = await look(gateway), time.monotonic()
        with Live(console=terminal, screen=terminal.is_terminal, auto_refresh=False) as live:
            try:
                while True:
                    height = terminal.height if terminal.is_terminal else None
                    note = _age(time.monotonic() - seen_s, every_s)
                    live.update(top_view.screen(answer, note, height=height), refresh=True)
                    await asyncio.sleep(every_s)
                    try:
                        answer, seen_s = await look(gateway), time.monotonic()
                    except GatewayUnreachable:
                        continue  # the last snapshot stays, with its age
            except asyncio.CancelledError:  # Ctrl-C
                return


def _age(age_s: float, every_s: float) -> Text | None:
    """Return the snapshot's age if the gateway has not answered since."""
    if age_s < every_s + 1:
        return None
    return Text(f"The gateway does not answer; this is {age_s:.0f} s old.", style="bold red")


def _nothing(_: Console, __: None) -> None:
    """Print nothing after the screen is closed."""

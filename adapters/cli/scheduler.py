"""What does a gateway's scheduler do, and how is a replica emptied? Commands of `python -m routing`."""

from __future__ import annotations

import contextlib
import time
from typing import Annotated

import typer
from rich.console import Console

from adapters.cli import display, scheduler_tables
from adapters.cli.client import Answer, Gateway, GatewayUnreachable, in_path
from adapters.cli.running import URL, AsJson, Url, ask, printable

app = typer.Typer()

MAX_DECISIONS = 512  # the gateway remembers no more
LEAST_WATCH_S, MOST_WATCH_S = 0.5, 3600.0  # each look is work for the gateway

ReplicaName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the replica.", show_default=False)]


def interval_s(text: str) -> float:
    """Read a number of seconds. Raises `typer.BadParameter`."""
    try:
        interval = float(text)
    except ValueError:
        interval = float("nan")
    if not LEAST_WATCH_S <= interval <= MOST_WATCH_S:
        raise typer.BadParameter(f"{text!r} is not from {LEAST_WATCH_S:g} to {MOST_WATCH_S:g} seconds")
    return interval


@app.command()
def scheduler(
    ctx: typer.Context,
    decisions: Annotated[
        int, typer.Option(min=0, max=MAX_DECISIONS, help="At most so many of the last decisions.")
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
            help="Look again so often, until Ctrl-C.",
            show_default="once",
        ),
    ] = None,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Show what waits and why, who holds which slot, how replicas stand, and what was decided lately."""
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


@app.command()
def drain(ctx: typer.Context, name: ReplicaName, url: Url = URL, as_json: AsJson = False) -> None:
    """Give a replica no new work; what it runs goes on to its end."""
    _set_draining(ctx, name, "drain", url, as_json)


@app.command()
def resume(ctx: typer.Context, name: ReplicaName, url: Url = URL, as_json: AsJson = False) -> None:
    """Give a drained replica work again."""
    _set_draining(ctx, name, "resume", url, as_json)


def _set_draining(ctx: typer.Context, name: str, action: str, url: str, as_json: bool) -> None:
    async def work(gateway: Gateway) -> Answer:
        answer = await gateway.call("POST", f"/replicas/{in_path(name)}/{action}")
        replicas = (await gateway.call("GET", "/replicas"))["data"]
        others = [r for r in replicas if r["name"] != name and _is_alike(r, answer) and r["state"] == "ready"]
        return {**answer, "others_ready": len(others)}

    ask(ctx, url, as_json, work, _show_standing)


def _is_alike(one: Answer, other: Answer) -> bool:
    return bool(one["pool"] == other["pool"] and one["base_model"] == other["base_model"])


def _on_a_clear_screen(console: Console, answer: Answer) -> None:
    console.clear()
    scheduler_tables.scheduler(console, answer)


def _show_standing(console: Console, replica: Answer) -> None:
    display.replica_list(console, [replica])
    if replica["state"] != "draining":
        return
    left = replica["in_flight"]
    text = f"Sequences that still run there: {left}." if left else "It is empty."
    console.print(printable(f"{replica['name']} gets no new work. {text}"))
    if not replica["others_ready"]:
        text = (
            f"No other replica like it is ready in pool {replica['pool']}: requests get 503 no_replica_ready."
        )
        console.print(printable(text), style="yellow")

"""The commands `replicas`, `drain` and `resume`: list replicas, empty one, give it work again."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from tenantry import display
from tenantry.client import Answer, Gateway, in_path
from tenantry.running import URL, AsJson, Url, ask, printable

ReplicaName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the replica.", show_default=False)]


def replicas(ctx: typer.Context, url: Url = URL, as_json: AsJson = False) -> None:
    """List replicas, with the adapters in their slots. Operators only."""

    async def work(gateway: Gateway) -> list[Answer]:
        answer = await gateway.call("GET", "/replicas")
        return list(answer["data"])

    ask(ctx, url, as_json, work, display.replica_list)


def drain(ctx: typer.Context, name: ReplicaName, url: Url = URL, as_json: AsJson = False) -> None:
    """Give a replica no new work; running requests continue to their end."""
    _set_draining(ctx, name, "drain", url, as_json)


def resume(ctx: typer.Context, name: ReplicaName, url: Url = URL, as_json: AsJson = False) -> None:
    """Give a drained replica work again."""
    _set_draining(ctx, name, "resume", url, as_json)


def _set_draining(ctx: typer.Context, name: str, action: str, url: str, as_json: bool) -> None:
    async def work(gateway: Gateway) -> Answer:
        answer = await gateway.call("POST", f"/replicas/{in_path(name)}/{action}")
        replicas = (await gateway.call("GET", "/replicas"))["data"]
        others = [r["state"] for r in replicas if r["name"] != name and _is_alike(r, answer)]
        left = len(others) - others.count("draining")
        return {**answer, "others_ready": others.count("ready"), "others_left": left}

    ask(ctx, url, as_json, work, _show_drained)


def _is_alike(one: Answer, other: Answer) -> bool:
    return bool(one["pool"] == other["pool"] and one["base_model"] == other["base_model"])


def _show_drained(console: Console, replica: Answer) -> None:
    display.replica_list(console, [replica])
    if replica["state"] != "draining":
        return
    left = replica["in_flight"]
    text = f"Sequences that still run there: {left}." if left else "It is empty."
    console.print(printable(f"{replica['name']} gets no new work. {text}"))
    if not replica["others_ready"]:
        fate = "wait until one is" if replica["others_left"] else "get 503 no_replica_ready"
        text = f"No other replica like it is ready in pool {replica['pool']}: requests {fate}."
        console.print(printable(text), style="yellow")

"""The command `restart`: restart the engines of a pool, one replica after the other, and follow that."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Console

from tenantry.client import Answer, Gateway, in_path
from tenantry.running import URL, AsJson, Refused, Url, ask, console, printable

POLL_S = 0.5
PoolName = Annotated[str, typer.Argument(metavar="POOL", help="Name of the pool.", show_default=False)]
Only = Annotated[
    str | None, typer.Option("--replica", help="Restart this one alone.", show_default="all of the pool")
]
Drain = Annotated[
    float | None,
    typer.Option(
        "--drain",
        min=0,
        help="Seconds for what a replica runs; what takes longer is cut off.",
        show_default="the longest that a request may run",
    ),
]
AtOnce = Annotated[bool, typer.Option("--no-wait", help="Return once it has begun.")]


def restart(
    ctx: typer.Context,
    pool: PoolName,
    replica: Only = None,
    drain_s: Drain = None,
    no_wait: AtOnce = False,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Restart a pool's engines, one replica after the other; no request fails. Operators only.

    Each replica finishes what it runs, restarts its engine, and gets work again once that is ready. Requests
    go to the others meanwhile, and wait where there is none. It goes on if this command is ended.
    """
    lines = Lines(None if as_json else console())

    async def work(gateway: Gateway) -> Answer:
        path = f"/pools/{in_path(pool)}/restart"
        known = await gateway.call("POST", path, params={"replica": replica, "drain_s": drain_s})
        while not no_wait and known["state"] == "running":
            lines.show(known)
            await asyncio.sleep(POLL_S)
            known = await gateway.call("GET", path)
        lines.show(known)
        if known["state"] in ("failed", "cancelled"):
            raise Refused(_why(known), known)
        return known

    ask(ctx, url, as_json, work, _show_end)


class Lines:
    """A line for each step of each replica."""

    def __init__(self, shown: Console | None) -> None:
        self._shown = shown
        self._seen: set[tuple[str, str]] = set()

    def show(self, restart: Answer) -> None:
        """Print what has not been printed yet."""
        for step in restart["replicas"]:
            name, state = str(step["replica"]), str(step["state"])
            if state == "waiting" or (name, state) in self._seen:
                continue
            self._seen.add((name, state))
            if self._shown is not None:
                self._shown.print(printable(f"{name}: {_words(state, step)}"))


def _words(state: str, step: Answer) -> str:
    if state == "draining":
        return f"draining, sequences that still run there: {step['in_flight']}"
    return {"done": "ready again", "left": "takes part no more"}.get(state, state)


def _why(restart: Answer) -> str:
    if restart["state"] == "cancelled":
        return "The gateway shut down before all replicas were restarted."
    failed = "; ".join(f"{s['replica']}: {s['reason']}" for s in restart["replicas"] if s["reason"])
    left = [s["replica"] for s in restart["replicas"] if s["state"] == "waiting"]
    rest = f" Not restarted: {', '.join(left)}." if left else ""
    return f"The restart of pool {restart['pool']} has stopped. {failed}.{rest}"


def _show_end(shown: Console, restart: Answer) -> None:
    if restart["state"] == "done":
        shown.print(printable(f"Pool {restart['pool']} is restarted."))
    else:
        shown.print(printable(f"Pool {restart['pool']} is being restarted; `tenantry events` shows its end."))

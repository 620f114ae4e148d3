"""Follows the restart of a pool to its end, for commands that begin one."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Console

from tenantry.client import Answer, Gateway, in_path
from tenantry.running import Refused, printable

POLL_S = 0.5
_STEPS = {
    "done": "ready again",
    "kept": "has these settings already",
    "left": "takes part no more",
}
AtOnce = Annotated[bool, typer.Option("--no-wait", help="Return once the restart has begun.")]


async def follow(gateway: Gateway, pool: str, shown: Console | None) -> Answer:
    """Print a line for each step until a pool's restart has ended. Raises `Refused` where it failed."""
    lines, path = Lines(shown), f"/pools/{in_path(pool)}/restart"
    while (known := await gateway.call("GET", path))["state"] == "running":
        lines.show(known)
        await asyncio.sleep(POLL_S)
    lines.show(known)
    if known["state"] in ("failed", "cancelled"):
        raise Refused(_why(known), known)
    if shown is not None:
        shown.print(printable(f"Pool {pool} is restarted."))
    return known


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
                self._shown.print(printable(line(step)))


def line(step: Answer) -> str:
    """Say how far the restart of a replica is."""
    state = str(step["state"])
    words = _STEPS.get(state, state)
    if state == "draining":
        words = f"draining, sequences that still run there: {step['in_flight']}"
    if step["reason"]:
        words = f"{words}: {step['reason']}"
    return f"{step['replica']}: {words}"


def _why(restart: Answer) -> str:
    if restart["state"] == "cancelled":
        return "The gateway shut down before all replicas were restarted."
    failed = "; ".join(f"{s['replica']}: {s['reason']}" for s in restart["replicas"] if s["reason"])
    left = [s["replica"] for s in restart["replicas"] if s["state"] == "waiting"]
    rest = f" Not restarted: {', '.join(left)}." if left else ""
    return f"The restart of pool {restart['pool']} has stopped. {failed}.{rest}"

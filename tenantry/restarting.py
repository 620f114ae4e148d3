"""The command `restart`: restart the engines of a pool, one replica after the other, and follow that."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from tenantry.client import Answer, Gateway, GatewayRefused, in_path
from tenantry.following import AtOnce, follow, line
from tenantry.running import URL, AsJson, Refused, Url, ask, console, printable

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
Show = Annotated[
    bool, typer.Option("--show", help="Only show the last restart, and engines with other settings.")
]


def restart(  # noqa: PLR0913  # an argument for each option, as typer wants it
    ctx: typer.Context,
    pool: PoolName,
    replica: Only = None,
    drain_s: Drain = None,
    show: Show = False,
    no_wait: AtOnce = False,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Restart a pool's engines, one replica after the other; no request fails. Operators only.

    Each replica finishes what it runs, restarts its engine, and gets work again once that is ready. Requests
    go to the others meanwhile, and wait where there is none. It goes on if this command is ended. An engine
    starts with the settings that its base model has in the fleet now.
    """
    shown = None if as_json else console()

    async def begin(gateway: Gateway) -> Answer:
        path = f"/pools/{in_path(pool)}/restart"
        known = await gateway.call("POST", path, params={"replica": replica, "drain_s": drain_s})
        return known if no_wait else await follow(gateway, pool, shown)

    if show:
        ask(ctx, url, as_json, lambda gateway: _look(gateway, pool), _show)
    else:
        ask(ctx, url, as_json, begin, _show_begun)


async def _look(gateway: Gateway, pool: str) -> Answer:
    """Return a pool's last restart, or none, and its replicas. Raises `Refused` without a replica."""
    path = f"/pools/{in_path(pool)}/restart"
    found = [each for each in (await gateway.call("GET", "/replicas"))["data"] if each["pool"] == pool]
    if not found:
        raise Refused(f"There is no pool {pool}, or it has no replica.", {"pool": pool, "replicas": []})
    try:
        last = await gateway.call("GET", path)
    except GatewayRefused as error:
        if error.code != "no_restart":
            raise
        last = None
    return {"pool": pool, "restart": last, "replicas": found}


def _show(shown: Console, known: Answer) -> None:
    last = known["restart"]
    if last is None:
        shown.print(printable(f"Pool {known['pool']} was not restarted since the gateway started."))
    else:
        shown.print(printable(f"The restart of pool {known['pool']} by {last['actor']}: {last['state']}"))
        for step in last["replicas"]:
            shown.print(printable(line(step)))
    outdated = [each["name"] for each in known["replicas"] if each["outdated"]]
    for name in outdated:
        shown.print(printable(f"{name} runs with other settings than the fleet has."), style="yellow")
    if outdated:
        shown.print(printable(f"`tenantry restart {known['pool']}` gives them the fleet's settings."))


def _show_begun(shown: Console, restart: Answer) -> None:
    if restart["state"] == "running":
        shown.print(printable(f"Pool {restart['pool']} is being restarted; `tenantry events` shows its end."))

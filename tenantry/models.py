"""The commands `models`, `models wake`, `sleep`, `pin` and `unpin`, beside those of `whole`."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from rich.console import Console

from tenantry import whole
from tenantry.client import Answer, Gateway, in_path
from tenantry.columns import Columns, print_prose
from tenantry.display import IN_JSON
from tenantry.running import URL, AsJson, Url, ask, print_whole
from tenantry.scheduler_tables import seconds

SHOWN_TURNS = 10
app = typer.Typer(
    invoke_without_command=True,
    help="List whole models that take turns; wake them, have them sleep, pin them; add and retire them.",
)
app.add_typer(whole.app)
ModelName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the base model.", show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")]


@app.callback()
def models(ctx: typer.Context, url: Url = URL, as_json: AsJson = False) -> None:
    """List the models that take turns: where each is awake, what waits, what it costs. Operators only."""
    if ctx.invoked_subcommand is None:
        ask(ctx, url, as_json, _listed, _show)


async def _listed(gateway: Gateway) -> Answer:
    return await gateway.call("GET", "/models")


@app.command()
def wake(
    ctx: typer.Context, name: ModelName, dry_run: DryRun = False, url: Url = URL, as_json: AsJson = False
) -> None:
    """Have a model come awake before all that only wait; a quarantined one is tried again."""

    async def work(gateway: Gateway) -> Answer:
        path = f"/models/{in_path(name)}/wake"
        return await gateway.call("POST", path, params={"dry_run": "true"} if dry_run else None)

    ask(ctx, url, as_json, work, _show_wake)


@app.command()
def sleep(ctx: typer.Context, name: ModelName, url: Url = URL, as_json: AsJson = False) -> None:
    """Have a model go to disk once what it runs has ended; it comes again when requests for it do."""
    _order(ctx, "POST", f"/models/{in_path(name)}/sleep", url, as_json)


@app.command()
def pin(ctx: typer.Context, name: ModelName, url: Url = URL, as_json: AsJson = False) -> None:
    """Keep a model awake until `unpin`, through restarts of the gateway too, whatever the fleet says."""
    _order(ctx, "POST", f"/models/{in_path(name)}/pin", url, as_json)


@app.command()
def unpin(ctx: typer.Context, name: ModelName, url: Url = URL, as_json: AsJson = False) -> None:
    """Let a model take turns again, one that the fleet pins too."""
    _order(ctx, "DELETE", f"/models/{in_path(name)}/pin", url, as_json)


def _order(ctx: typer.Context, method: str, path: str, url: str, as_json: bool) -> None:
    async def work(gateway: Gateway) -> Answer:
        return await gateway.call(method, path)

    ask(ctx, url, as_json, work, _show)


# -- what is shown -----------------------------------------------------------------------------------------


def _show(console: Console, answer: Answer) -> None:
    if not answer["data"]:
        console.print("No pool of this gateway has models that take turns.")
        return
    table = Columns(
        *("pool", "host", "model", "state", "since", "running", "waiting", "oldest", "cost", "why"),
        spare=("pool", "since", "oldest", "running"),
        prose=("why",),
        right=("running", "waiting"),
        note=IN_JSON,
    )
    for model in answer["data"]:
        table.add(*_row(model))
    print_whole(console, table)
    if answer.get("turns"):
        _show_turns(console, answer["turns"])


def _row(model: Answer) -> tuple[str, ...]:
    state = model["state"].replace("_", " ")
    return (
        model["pool"],
        model["host"],
        model["model"],
        f"{state}, pinned" if model["pinned"] else state,
        seconds(model["since_s"]),
        str(model["running"] or ""),
        str(model["waiting"] or ""),
        seconds(model["oldest_s"]) if model["waiting"] else "",
        f"{seconds(model['cost_s'])} {model['way']}".strip(),
        model["reason"] or model["held"] or _resting(model),
    )


def _resting(model: Answer) -> str:
    return "; ".join(f"{way} rests: {why}" for way, why in model.get("resting", {}).items())


def _show_turns(console: Console, turns: list[Any]) -> None:
    now_s = time.time()
    table = Columns(
        *("ago", "host", "model", "", "instead of", "why", "took"),
        spare=("took", "host"),
        prose=("why",),
        note=IN_JSON,
    )
    for turn in turns[:SHOWN_TURNS]:
        took = f"{seconds(turn['took_s'])} {turn['way']}".strip() if turn["took_s"] else ""
        ago = seconds(max(0.0, now_s - turn["at"]))
        instead = turn["instead_of"] or ""
        table.add(ago, turn["host"], turn["model"], turn["what"], instead, turn["why"], took)
    print_whole(console, table)


def _show_wake(console: Console, answer: Answer) -> None:
    for each in answer["data"]:
        print_prose(console, _wake_words(each))


def _wake_words(told: Answer) -> str:
    where = f" at {told['host']}" if told["host"] else ""
    goes = f", instead of {told['instead_of']}" if told["instead_of"] else ""
    wait = "" if told["wait_s"] is None else f"; about {seconds(told['wait_s'])} from now"
    affected = ", ".join(f"{number} {what}" for what, number in told["affected"].items() if number)
    theirs = f" ({affected})" if affected else ""
    return f"pool {told['pool']}: {told['model']}{where}{goes}{theirs}: {told['why']}{wait}"

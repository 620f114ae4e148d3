"""The command `explain`: what became of one request, and which turn it waited for."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from tenantry.client import Answer, Gateway
from tenantry.columns import Columns, print_prose
from tenantry.display import IN_JSON
from tenantry.running import URL, AsJson, Url, ask, print_whole
from tenantry.scheduler import MAX_DECISIONS
from tenantry.scheduler_tables import seconds

HELD = {
    "switching": "every host that could take it is in mid-switch",
    "young": "what is awake has only just come",
    "behind": "what is awake, or another model that waits, is worth more",
    "draining": "a turn has ended for it, and what runs there ends first",
    "nowhere": "only pinned models are awake, or it has failed at every host",
}


def explain(
    ctx: typer.Context,
    request: Annotated[str, typer.Argument(metavar="REQUEST", help="Its x-request-id.", show_default=False)],
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Tell what was decided about one request, and where its model took turns, which turn it waited for."""
    params = {"decisions": MAX_DECISIONS, "request": request}

    async def look(gateway: Gateway) -> Answer:
        told = await gateway.call("GET", "/scheduler", params=params)
        return {"decisions": told["decisions"], "turns": told["turns"]}

    ask(ctx, url, as_json, look, _show)


def _show(console: Console, answer: Answer) -> None:
    decisions = answer["decisions"]
    if not decisions:
        print_prose(console, f"No decision about it is remembered; the last {MAX_DECISIONS} are.")
        return
    first = decisions[-1]
    print_prose(console, f"{first['tenant']}, model {first['model']}, pool {first['pool']}", "bold")
    lines = [(d["ago_s"], d["action"], d["reason"], d["replica"] or "") for d in decisions]
    lines += [(t["ago_s"], _happened(t), _why(t), t["host"]) for t in answer["turns"]]
    began_s = max(ago_s for ago_s, *_ in lines)
    table = Columns("after", "what", "why", "where", prose=("what", "why"), note=IN_JSON)
    for ago_s, *cells in sorted(lines, key=lambda line: -line[0]):
        table.add(seconds(began_s - ago_s), *cells)
    print_whole(console, table)


def _happened(turn: Answer) -> str:
    model, goes = turn["model"], turn["instead_of"]
    instead = f" instead of {goes}" if goes else ""
    took = f", {seconds(turn['took_s'])} {turn['way']}".rstrip() if turn["took_s"] else ""
    phrases = {
        "held": f"{model} has to wait",
        "drains": f"the turn of {goes or model} ends",
        "goes_on": f"the turn of {model} goes on",
        "begins": f"{model} begins to come{instead}",
        "awake": f"{model} is awake{instead}{took}",
        "failed": f"{model} does not come awake{took}",
        "sleeps": f"{model} goes to disk",
    }
    return phrases.get(turn["what"], str(turn["what"]))


def _why(turn: Answer) -> str:
    why = str(turn["why"])
    return f"{why}: {HELD[why]}" if turn["what"] == "held" and why in HELD else why

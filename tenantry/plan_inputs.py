"""The commands `plan demand` and others that show what a plan is made from. They need no gateway."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from adapters.errors import AdapterError
from fleet.types import Fleet
from planning.peaks import Rhythm, Sharing, rhythms, sharing
from planning.reading.sources import Found, read_demand
from planning.requests import DemandError
from planning.values import Demand, ModelDemand
from planning.words import counted, lasting
from tenantry.client import Answer
from tenantry.columns import Columns, print_prose
from tenantry.display import percent
from tenantry.fleets import load
from tenantry.running import AsJson, conclude, duration_s, print_whole

DEFAULT_FLEET = Path("fleet.yaml")
SHOWN = 40  # models in a table; --json has all

FleetFile = Annotated[
    Path | None,
    typer.Argument(
        help="Fleet file.", show_default="fleet.yaml, where there is one and nothing else is named"
    ),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FILE|URL",
        help="A trace, a table by hand, a request log, a page of metrics, or a Prometheus server.",
        show_default="the fleet's ledger",
    ),
]
Over = Annotated[
    str | None,
    typer.Option(
        "--over",
        metavar="TIME",
        help="How far back, such as 7d: of a ledger or Prometheus; or for how long a page has counted.",
        show_default="all there is; of Prometheus 14d",
    ),
]


def demand(
    fleet: FleetFile = None,
    source: From = None,
    over: Over = None,
    as_json: AsJson = False,
) -> None:
    """Show what is asked of the fleet: who is busy when, how sparse each model is, who peaks together."""
    over_s = None if over is None else duration_s(over)
    declared = declared_fleet(fleet, source)
    conclude(lambda: _answer(found_demand(source, declared, over_s)), as_json, _show)


def fleet_file(path: Path | None, source: str | None) -> Path | None:
    """Return the fleet file that is meant; the one beside the command only where nothing else is named."""
    return DEFAULT_FLEET if path is None and source is None and DEFAULT_FLEET.is_file() else path


def declared_fleet(path: Path | None, source: str | None) -> Fleet | None:
    """Return the fleet that is meant, if one is; prints its problems and exits with 1."""
    file = fleet_file(path, source)
    return None if file is None else load(file).fleet


def found_demand(source: str | None, fleet: Fleet | None, over_s: float | None) -> Found:
    """Read a demand. Raises `AdapterError`, which commands print as one sentence."""
    try:
        return read_demand(source, fleet, now_s=time.time(), over_s=over_s)
    except DemandError as error:
        raise AdapterError(str(error)) from None


def _answer(found: Found) -> Answer:
    demand = found.demand
    by_name = {one.model: one for one in demand.models}
    shared = sharing(demand)
    return {
        "source": demand.source,
        "begins_s": demand.begins_s,
        "duration_s": demand.duration_s,
        "models": [_model(each, by_name[each.model]) for each in rhythms(demand)],
        "together": [asdict(pair) for pair in shared.together],
        "apart": [asdict(pair) for pair in shared.apart],
        "compared": shared.compared,
        "sharing": _sharing(demand, shared),
        "notes": list(demand.notes),
    }


def _model(rhythm: Rhythm, one: ModelDemand) -> Answer:
    told = asdict(one) | {"isolation": one.isolation.value}
    return told | {name: value for name, value in asdict(rhythm).items() if name != "model"}


def _sharing(demand: Demand, shared: Sharing) -> str:
    """Say in a sentence what hours say about sharing."""
    if len(demand.models) < 2:
        return ""
    if not shared.compared:
        return "Too little is known of the hours to say who peaks together."
    gain = shared.headroom
    if gain < 1.1:
        return "All peak in the same hours: sharing devices saves no room for peaks."
    return (
        f"Models peak in different hours: apart they need {gain:.1f} times the room for their peaks that "
        "they need together."
    )


def _show(console: Console, answer: Answer) -> None:
    models = counted(len(answer["models"]), "model")
    print_prose(console, f"{answer['source']}: {lasting(answer['duration_s'])}, {models}")
    table = Columns(
        *(
            "model",
            "requests/day",
            "busiest",
            "at",
            "idle",
            "prompt",
            "out",
            "cached",
            "bursts",
            "most at once",
        ),
        *("objective", "apart"),
        spare=("cached", "objective", "apart", "at", "most at once", "bursts", "busiest", "idle"),
        right=("requests/day", "busiest", "prompt", "out"),
        note="--json has all",
    )
    for one in answer["models"][:SHOWN]:
        table.add(*_row(one))
    print_whole(console, table)
    if len(answer["models"]) > SHOWN:
        print_prose(console, f"and {len(answer['models']) - SHOWN} smaller ones (--json has all)", "dim")
    if answer["sharing"]:
        print_prose(console, answer["sharing"])
    for what in ("together", "apart"):
        pairs = ", ".join(f"{p['one']} and {p['other']} ({p['correlation']:+.2f})" for p in answer[what])
        if pairs:
            words = "peak together" if what == "together" else "take turns by themselves"
            print_prose(console, f"  {words}: {pairs}")
    for note in answer["notes"]:
        print_prose(console, note, "yellow")


def _row(one: Answer) -> tuple[str, ...]:
    hour, most, objective = one["busiest_hour"], one["concurrency"], one["ttft_s"]
    return (
        one["model"],
        f"{one['rate'] * 86_400:,.0f}",
        f"{one['busiest_rate'] * 3600:,.0f}/h",
        "" if hour is None else f"{hour:02}:00",
        percent(one["idle"]),
        _tokens(one["prompt"]),
        _tokens(one["completion"]),
        percent(one["cached"]),
        f"{one['burstiness']:.1f}",
        "" if most is None else f"{most:.0f}",
        "" if objective is None else f"{objective:g} s",
        "yes" if one["isolation"] == "dedicated" else one["group"],
    )


def _tokens(spread: Answer) -> str:
    return f"{spread['p50']:,.0f} / {spread['p99']:,.0f}" if spread["most"] else ""

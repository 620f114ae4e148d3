"""The answer of `plan` as tables: what there is, each model with the reason, and what is not known."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from planning.words import counted, lasting
from tenantry.client import Answer
from tenantry.columns import Columns, print_prose
from tenantry.running import print_whole

SHOWN = 60  # models in the table; --json has all
_ALL = "--json has all"


def show_plan(console: Console, answer: Answer) -> None:
    """Show the answer of a plan."""
    print_prose(console, f"{answer['source']}, {lasting(answer['duration_s'])}")
    _models(console, answer)
    _pools(console, answer)
    _ways(console, answer)
    _verdict(console, answer)
    for room in answer["headroom"]:
        print_prose(console, f"  {_headroom(room)}")
    _list(console, "what would change the answer:", answer["would_change"])
    _list(console, "what is not known:", answer["not_known"])
    for text in (*_files(answer), *answer.get("todo", ())):
        print_prose(console, text)


def _models(console: Console, answer: Answer) -> None:
    table = Columns(
        *("model", "pool", "served", "why", "req/day", "p50 s", "p99 s", "objective", "in time"),
        spare=("req/day", "pool", "in time", "objective"),
        prose=("why", "served"),
        right=("req/day", "p50 s", "p99 s", "objective", "in time"),
        note=_ALL,
    )
    order = sorted(answer["models"], key=lambda one: (not one["missed"], -one["requests_per_day"]))
    for one in order[:SHOWN]:
        objective = "" if one["objective_s"] is None else f"{one['objective_s']:g} s"
        table.add(
            *(one["model"], one["pool"], one["served"], one["why"], f"{one['requests_per_day']:,.0f}"),
            *(_spread(one["first_token_p50_s"]), _spread(one["first_token_p99_s"]), objective),
            "" if one["in_time"] is None else f"{100 * one['in_time']:.1f} %",
            style="red" if one["missed"] else None,
        )
    print_whole(console, table)
    if len(order) > SHOWN:
        print_prose(console, f"and {len(order) - SHOWN} that are asked for less ({_ALL})", "dim")


def _pools(console: Console, answer: Answer) -> None:
    table = Columns(
        *("pool", "strategy", "hosts", "device", "models", "awake", "busy", "switching", "turns/h"),
        spare=("turns/h", "switching", "awake"),
        right=("hosts", "models", "awake", "busy", "switching", "turns/h"),
        note=_ALL,
    )
    for one in answer["pools"]:
        device = f"{one['device']}/{one['profile']}" if one["profile"] else one["device"]
        shares = one["strategy"] in ("model-mesh", "swap")
        table.add(
            *(one["pool"], one["strategy"], one["hosts"], device, len(one["models"])),
            *(
                one["awake"] if shares else "",
                _percent(one["busy"]),
                _percent(one["switching"]) if shares else "",
            ),
            _spread(one["switches_per_h"]) if shares else "",
        )
    print_whole(console, table)


def _ways(console: Console, answer: Answer) -> None:
    table = Columns("way", "devices", "an hour", prose=("devices",), right=("an hour",))
    if answer["devices"]["now"] is not None:
        table.add("now", answer["devices"]["now"], "")
    for way in answer["ways"]:
        devices = way["why_not"] if way["devices"] is None else way["devices"]
        table.add(way["way"], devices, _money(way["money_per_hour"]))
    table.add(
        "planned, simulated", answer["devices"]["planned"], _money(answer["money_per_hour"]), style="bold"
    )
    print_whole(console, table)


def _verdict(console: Console, answer: Answer) -> None:
    planned = answer["devices"]["planned"]
    best = "no division of these models needs fewer" if answer["is_best"] else _gap(answer)
    print_prose(console, f"{counted(planned, 'device')}: {best}")
    if answer["meets_objectives"]:
        print_prose(console, "simulated, it meets all objectives", "green")
    else:
        print_prose(
            console, "simulated, it does not meet all objectives (red), and no plan tried does", "red"
        )
    for attempt in answer["attempts"]:
        devices = attempt["devices"]
        what = "" if devices is None else f"{counted(devices, 'device')}, "
        print_prose(console, f"  not taken: {what}{attempt['why']}")
    second = answer["second"]
    if second is not None:
        missed = f"; {counted(len(second['missed']), 'objective')} missed" if second["missed"] else ""
        strategies = ", ".join(second["strategies"])
        p99_s = second["first_token_p99_s"]
        said = f"second: {counted(second['devices'], 'device')} ({strategies}), p99 {p99_s:.2g} s"
        print_prose(console, f"  {said}{missed}")


def _gap(answer: Answer) -> str:
    if not answer["gap"]:
        return "its load needs as many"
    return f"at least {answer['at_least']} for its load; no better division was found"


def _headroom(room: Answer) -> str:
    names = ", ".join(room["models"][:2]) + (" ..." if len(room["models"]) > 2 else "")
    if room["by_load"]:
        return f"{names}: full at {room['holds']:.2g} times the demand" + (
            "" if room["breaks"] else " or more"
        )
    if room["breaks"] is None:
        return f"{names}: objectives hold at {room['holds']:g} times the demand"
    holds, breaks = room["holds"], room["breaks"]
    if breaks == holds:
        return f"{names}: an objective is missed with the demand as it is: {room['first']}"
    return f"{names}: objectives hold at {holds:g} times the demand, at {breaks:g} {room['first']}"


def _list(console: Console, title: str, texts: Sequence[str]) -> None:
    if texts:
        print_prose(console, title)
    for text in texts:
        print_prose(console, f"  {text}")


def _files(answer: Answer) -> list[str]:
    written = (
        [f"{answer['written']} is written; `tenantry diff` shows what changes"] if "written" in answer else []
    )
    return [*written, *([f"{answer['report']} is the report"] if "report" in answer else [])]


def _spread(values: Sequence[float] | None) -> str:
    """Say the mean, and how far the runs lie apart where that is much."""
    if values is None:
        return ""
    mean, least, most = values
    apart = most - least > 0.1 * mean and f"{least:.2g}" != f"{most:.2g}"
    return f"{mean:.2g} ({least:.2g}..{most:.2g})" if apart else f"{mean:.2g}"


def _percent(values: Sequence[float] | None) -> str:
    return "" if values is None else f"{100 * values[0]:.0f} %"


def _money(amount: float | None) -> str:
    return "" if amount is None else f"{amount:,.2f}"

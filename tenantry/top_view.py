"""The live snapshot as tables and small graphs on a terminal. Pure presentation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from tenantry.client import Answer
from tenantry.columns import Columns
from tenantry.display import COLOURS, IN_JSON, percent
from tenantry.running import print_whole, printable
from tenantry.scheduler_tables import seconds

STEPS = "▁▂▃▄▅▆▇█"
STYLES = {"failing": "bold red", "slow": "bold yellow", "green": "green"}
SPARK = 24  # characters: the last two minutes
LEAST_MODELS = 5
SHOWN_REASONS = 3  # of the worst models
FRAME = 12  # lines that are neither a model nor a replica


def whole(console: Console, answer: Answer) -> None:
    """Print all of it."""
    print_whole(console, screen(answer, None, height=None))


def screen(answer: Answer, note: Text | None, *, height: int | None) -> RenderableType:
    """Return the snapshot, cut to `height` lines: models first, since operators look for them."""
    replicas = [replica for pool in answer["pools"] for replica in pool["replicas"]]
    models = answer["models"]
    shown = len(models)
    if height is not None:
        shown = max(LEAST_MODELS, height - FRAME - len(replicas))
    parts: list[RenderableType] = [_head(answer)]
    if note is not None:
        parts.append(note)
    if models:
        parts += [*_reasons(models[:SHOWN_REASONS]), _models(models[:shown], histories(answer))]
    else:
        parts.append(Text("Nothing ended in the last five minutes, and nothing waits.", style="dim"))
    left_out = len(models) - len(models[:shown]) + answer["models_left_out"]
    if left_out:
        parts.append(Text(f"  and {left_out} more models, none of them worse", style="dim"))
    parts += [_replicas(answer["pools"]), *_troubles(answer["pools"]), *_queues(answer["pools"])]
    return Group(*parts)


def histories(answer: Answer) -> dict[tuple[str, str], list[float | None]]:
    """Return the p99 first tokens of each model, or its waits if it streams nothing."""
    found = {}
    for one in answer["history"]["models"]:
        first = one["first_token_p99_s"]
        values = first if any(value is not None for value in first) else one["queue_p99_s"]
        found[one["tenant"], one["model"]] = values
    return found


def spark(values: Sequence[float | None], width: int = SPARK) -> str:
    """Draw the last values from 0 to the highest; a blank where there is none."""
    last = values[-width:]
    most = max((value for value in last if value is not None), default=0.0)
    return "".join(
        " " if value is None else STEPS[round((len(STEPS) - 1) * value / most)] if most else STEPS[0]
        for value in last
    )


def _head(answer: Answer) -> Text:
    total = answer["total"]
    counts = [sum(m["verdict"] == verdict for m in answer["models"]) for verdict in STYLES]
    text = Text()
    for verdict, count in zip(STYLES, counts, strict=True):
        if count or verdict == "green":
            text.append(f"{count} {verdict}  ", style=STYLES[verdict])
    text.append(
        f"{total['requests_per_s']:.1f} requests/s  {total['tokens_per_s']:.0f} tokens/s  "
        f"{percent(total['error_rate'])} errors  {answer['queued']} waiting"
    )
    return text


def _models(models: Iterable[Answer], history: dict[tuple[str, str], list[float | None]]) -> Columns:
    table = Columns(
        *("model", "state", "p99", "last 2 min", "p50", "wait", "waiting", "req/s", "errors"),
        spare=("last 2 min", "wait", "p50", "req/s"),
        right=("p99", "p50", "wait", "req/s", "errors"),
        note=IN_JSON,
        framed=False,
    )
    for m in models:
        style = STYLES[m["verdict"]] if m["verdict"] != "green" else ""
        table.add(
            Text(f"{m['tenant']}/{m['model']}", style=style),
            Text(m["verdict"], style=STYLES[m["verdict"]]),
            Text(seconds(m["first_token_p99_s"]) or "-", style=style),
            spark(history.get((m["tenant"], m["model"]), [])),
            seconds(m["first_token_p50_s"]) or "-",
            seconds(m["queue_p99_s"]) or "-",
            f"{m['queued']} for {seconds(m['oldest_s'])}" if m["queued"] else "0",
            f"{m['requests_per_s']:.1f}",
            percent(m["error_rate"]),
        )
    return table


def _reasons(models: Iterable[Answer]) -> list[Text]:
    """Reasons of the models that are not green, a line each."""
    return [
        Text(printable(f"{m['tenant']}/{m['model']}: {m['reason']}"), style=STYLES[m["verdict"]])
        for m in models
        if m["reason"]
    ]


def _replicas(pools: Iterable[Answer]) -> Columns:
    table = Columns(*_REPLICA_COLUMNS, spare=("slots",), prose=("slots",), note=IN_JSON, framed=False)
    for pool in pools:
        for r in pool["replicas"]:
            table.add(*(cell(r) for cell in _REPLICA_COLUMNS.values()))
    return table


def _slots(replica: Answer) -> str:
    slots = " ".join(map(_slot, replica["in_slots"]))
    free = replica["slots"] - len(replica["in_slots"])
    return f"{slots} {f'({free} free)' if free > 0 else ''}".strip()


_REPLICA_COLUMNS: dict[str, Callable[[Answer], Any]] = {
    "replica": lambda r: r["name"],
    "state": lambda r: Text(r["state"], style=COLOURS[r["state"]]),
    "in flight": lambda r: f"{r['sequences']} of {r['capacity']}",
    "slots": _slots,
}


def _troubles(pools: Iterable[Answer]) -> list[Text]:
    """Replicas' faults, a line each."""
    found = [r for pool in pools for r in pool["replicas"] if r["trouble"]]
    return [Text(printable(f"{r['name']}: {r['trouble']}"), style="red") for r in found]


def _slot(slot: Answer) -> str:
    name = slot["adapter"].partition("@")[0]
    marks = f"{slot['sequences']}" if slot["use"] == "running" else slot["use"]
    return f"{name}:{marks}{'+pin' if slot['pinned'] and slot['use'] != 'pinned' else ''}"


def _queues(pools: Iterable[Answer]) -> list[Text]:
    """One line for each pool with waiting requests."""
    lines = []
    for pool in pools:
        waiting = [f"{t['name']} {t['queued']}" for t in pool["tenants"] if t["queued"]]
        if waiting:
            lines.append(Text(printable(f"waiting in {pool['name']}: {', '.join(waiting[:12])}")))
    return lines

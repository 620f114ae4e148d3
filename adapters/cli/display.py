"""How are adapters, versions, replicas and keys shown to people? Tables; nothing is decided here."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from adapters.cli.client import Answer
from adapters.cli.running import printable

_COLOURS = {
    "ready": "green",
    "quarantined": "red",
    "retired": "dim",
    "draining": "yellow",
    "failed": "red",
    "not_ready": "red",
    "not_trusted": "red",
}
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def adapter_list(console: Console, adapters: list[Answer]) -> None:
    """Show adapters, a line each."""
    table = table_of("tenant", "name", "base model", "state", "live", "newest", "rollout", "pinned")
    for a in adapters:
        rollout = a["rollout"]
        split = f"{percent(rollout['weight'])} to {rollout['candidate']}" if rollout else ""
        add_row(
            table,
            (
                a["tenant"],
                a["name"],
                a["base_model"],
                a["state"],
                a["live"],
                a["newest"],
                split,
                _yes(a["pinned"]),
            ),
            state=a["state"],
        )
    print_table(console, table)
    console.print(f"{len(adapters)} adapter{'' if len(adapters) == 1 else 's'}")


def adapter(console: Console, answer: Answer) -> None:
    """Show an adapter with its versions, how its traffic is split, and where it is resident."""
    console.print(f"{printable(full_name(answer))}, adapter of {printable(answer['base_model'])}")
    notes = [
        "declared in fleet.yaml" if answer["declared"] else "",
        "pinned" if answer["pinned"] else "",
        f"version {answer['previous']} is where a rollback goes" if answer["previous"] else "",
    ]
    for note in filter(None, notes):
        console.print(f"  {note}")
    if answer["rollout"]:
        console.print(f"  {_rollout(answer['rollout'])}")
    table = table_of("version", "state", "traffic", "rank", "size", "registered", "source", "resident")
    for v in answer["versions"]:
        cells = (
            v["number"],
            v["state"],
            percent(v["traffic"]) if v["traffic"] else "",
            v["rank"],
            size(v["size_bytes"]) if v["size_bytes"] else "",
            moment(v["created_at"]),
            v["source"],
            ", ".join(map(_place, v["resident"])),
        )
        add_row(table, cells, state=v["state"])
    print_table(console, table)
    for v in answer["versions"]:
        if v["reason"]:
            console.print(f"version {v['number']}: {printable(v['reason'])}")


def version(console: Console, answer: Answer) -> None:
    """Show in a line how a version stands."""
    share = answer["traffic"]
    traffic = f" and answers {percent(share)} of the requests" if share else ""
    text = f"{full_name(answer)} version {answer['number']} is {answer['state']}{traffic}"
    reason = f": {answer['reason']}" if answer["reason"] else ""
    console.print(printable(text + reason), style=_COLOURS.get(answer["state"]))


def replica_list(console: Console, replicas: list[Answer]) -> None:
    """Show replicas, what their slots hold, and which adapters failed there."""
    table = table_of("replica", "pool", "state", "slots", "in flight", "in slots", "in host memory", "pinned")
    for r in replicas:
        slots = f"{len(r['in_slots'])} of {r['slots']}" if r["answered"] else f"? of {r['slots']}"
        held, pinned = " ".join(r["in_slots"]), " ".join(r["pinned"])
        cells = (
            r["name"],
            r["pool"],
            r["state"],
            slots,
            r["in_flight"],
            held,
            len(r["in_host"]),
            pinned,
        )
        add_row(table, cells, state=r["state"])
    print_table(console, table)
    for r in replicas:
        if r["reason"]:
            console.print(printable(f"{r['name']}: {r['reason']}"), style="red")
        for fault in r["faults"]:
            text = f"{r['name']}: {fault['adapter']} failed ({fault['kind']}, {fault['count']} times): "
            console.print(printable(text + fault["reason"]), style="red")


def event_list(console: Console, events: list[Answer]) -> None:
    """Show what happened, the newest first."""
    table = table_of("when", "what", "happened")
    for event in events:
        when = datetime.fromtimestamp(event["at"], UTC).strftime("%Y-%m-%d %H:%M:%S")
        add_row(table, (when, event["subject"], event["text"]))
    print_table(console, table)


def key_list(console: Console, keys: list[Answer]) -> None:
    """Show keys by how they begin."""
    table = table_of("id", "begins with", "role", "tenant", "note", "made", "expires", "revoked")
    for k in keys:
        times = (moment(k["created_at"]), moment(k["expires_at"]), moment(k["revoked_at"]))
        add_row(
            table,
            (k["id"], k["prefix"], k["role"], k["tenant"], k["note"], *times),
            state="retired" if k["revoked_at"] else "",
        )
    print_table(console, table)


def full_name(answer: Answer) -> str:
    """Return an adapter's name behind its tenant's."""
    name = answer.get("adapter") or answer.get("name")
    return f"{answer['tenant']}/{name}" if answer["tenant"] else str(name)


def percent(share: float) -> str:
    """Return a part of the whole as people read it."""
    return f"{100 * share:.3g} %"


def size(count: float) -> str:
    """Return a number of bytes in the unit that suits it."""
    for unit in _UNITS[:-1]:
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} {_UNITS[-1]}"


def moment(time_s: int | None) -> str:
    """Return a Unix time in UTC; nothing for none."""
    return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%d %H:%M}" if time_s else ""


def _rollout(rollout: Answer) -> str:
    after = rollout["promote_after"]
    until = f"promoted after {after} requests" if after else "until somebody promotes it"
    return (
        f"version {rollout['candidate']} is rolled out: {percent(rollout['weight'])} of the requests, {until}"
    )


def _place(resident: Answer) -> str:
    extras = [word for word in ("pinned", "draining") if resident[word]]
    return " ".join([f"{resident['replica']}:{resident['place']}", *extras])


def _yes(value: bool) -> str:
    return "yes" if value else ""


def table_of(*columns: str) -> Table:
    """Begin a table."""
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")  # a narrow terminal loses nothing
    return table


def print_table(console: Console, table: Table) -> None:
    """Print a table, folded to the terminal's width."""
    console.print(table, soft_wrap=False)


def add_row(table: Table, cells: Iterable[Any], *, state: str | None = None) -> None:
    """Add a line, in the colour of a state. No cell can steer the terminal, whoever wrote what is in it."""
    shown = ("" if cell is None else printable(cell) for cell in cells)
    table.add_row(*shown, style=_COLOURS.get(state or ""))

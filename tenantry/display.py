"""Adapters, versions, replicas and keys as tables on a terminal. Pure presentation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from tenantry.client import Answer
from tenantry.columns import Columns, print_prose
from tenantry.running import print_whole

COLOURS = {
    "ready": "green",
    "quarantined": "red",
    "retired": "dim",
    "draining": "yellow",
    "failed": "red",
    "not_ready": "red",
    "not_trusted": "red",
    "away": "dim",
}
IN_JSON = "--json has all"
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def adapter_list(console: Console, adapters: list[Answer]) -> None:
    """Show adapters, a line each."""
    table = Columns(
        *("tenant", "name", "base model", "state", "live", "newest", "rollout", "pinned"),
        spare=("pinned", "newest", "base model", "rollout", "live"),
        note=IN_JSON,
    )
    for a in adapters:
        rollout = a["rollout"]
        split = f"{percent(rollout['weight'])} to {rollout['candidate']}" if rollout else ""
        state, pinned = a["state"], "yes" if a["pinned"] else ""
        cells = (a["tenant"], a["name"], a["base_model"], state, a["live"], a["newest"], split, pinned)
        table.add(*cells, style=COLOURS.get(state))
    print_whole(console, table)
    console.print(f"{len(adapters)} adapter{'' if len(adapters) == 1 else 's'}")


def adapter(console: Console, answer: Answer) -> None:
    """Show an adapter with its versions, its traffic split and its residency."""
    print_prose(console, f"{full_name(answer)}, adapter of {answer['base_model']}")
    notes = [
        "declared in fleet.yaml" if answer["declared"] else "",
        "pinned" if answer["pinned"] else "",
        f"version {answer['previous']} is where a rollback goes" if answer["previous"] else "",
    ]
    for note in filter(None, notes):
        console.print(f"  {note}")
    if answer["rollout"]:
        console.print(f"  {_rollout(answer['rollout'])}")
    table = Columns(
        *("version", "state", "traffic", "rank", "size", "registered", "source", "resident"),
        spare=("registered", "size", "rank", "source", "resident"),
        prose=("source", "resident"),
        note=IN_JSON,
    )
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
        table.add(*cells, style=COLOURS.get(v["state"]))
    print_whole(console, table)
    for v in answer["versions"]:
        if v["reason"]:
            print_prose(console, f"version {v['number']}: {v['reason']}")


def version(console: Console, answer: Answer) -> None:
    """Show a version's state in a line."""
    share = answer["traffic"]
    traffic = f" and answers {percent(share)} of the requests" if share else ""
    text = f"{full_name(answer)} version {answer['number']} is {answer['state']}{traffic}"
    reason = f": {answer['reason']}" if answer["reason"] else ""
    print_prose(console, text + reason, COLOURS.get(answer["state"]))


_REPLICA_COLUMNS: dict[str, Callable[[Answer], Any]] = {
    "replica": lambda r: r["name"],
    "pool": lambda r: r["pool"],
    "state": lambda r: r["state"],
    "slots": lambda r: f"{len(r['in_slots']) if r['answered'] else '?'} of {r['slots']}",
    "in flight": lambda r: r["in_flight"],
    "in slots": lambda r: " ".join(r["in_slots"]),
    "in host memory": lambda r: len(r["in_host"]),
    "pinned": lambda r: " ".join(r["pinned"]),
}


def replica_list(console: Console, replicas: list[Answer]) -> None:
    """Show replicas, their slots, and the adapters that failed there."""
    table = Columns(
        *_REPLICA_COLUMNS,
        spare=("in host memory", "pool", "pinned", "in slots"),
        prose=("in slots", "pinned"),
        note=IN_JSON,
    )
    for r in replicas:
        table.add(*(cell(r) for cell in _REPLICA_COLUMNS.values()), style=COLOURS.get(r["state"]))
    print_whole(console, table)
    for r in replicas:
        if r["reason"]:
            print_prose(console, f"{r['name']}: {r['reason']}", style="red")
        if r["outdated"]:
            text = f"runs with other settings than the fleet has; `tenantry restart {r['pool']}` renews it"
            print_prose(console, f"{r['name']}: {text}", style="yellow")
        for fault in r["faults"]:
            text = f"{r['name']}: {fault['adapter']} failed ({fault['kind']}, {fault['count']} times): "
            print_prose(console, text + fault["reason"], "red")


def key_list(console: Console, keys: list[Answer]) -> None:
    """Show keys by their first characters."""
    table = Columns(
        *("id", "begins with", "role", "tenant", "note", "limits", "made", "expires", "revoked"),
        spare=("made", "note", "expires", "begins with", "limits", "revoked"),
        prose=("note", "limits"),
        note=IN_JSON,
    )
    declared = [key for key in keys if key.get("declared")]
    for k in keys:
        if k in declared:
            begins, note = f"sha256 {k['fingerprint']}", "declared in fleet.yaml"
            note = f"{k['name']}, {note}" if k["name"] else note
            table.add("", begins, k["role"], k["tenant"], note, limits(k), "", "", "")
            continue
        times = (moment(k["created_at"]), moment(k["expires_at"]), moment(k["revoked_at"]))
        cells = (k["id"], k["prefix"], k["role"], k["tenant"], k["note"], limits(k), *times)
        table.add(*cells, style="dim" if k["revoked_at"] else "")
    print_whole(console, table)
    if declared:
        count = Counter("operators" if k["tenant"] is None else k["tenant"] for k in declared)
        owners = ", ".join(f"{number} of {owner}" for owner, number in count.items())
        text = f"declared in fleet.yaml: {owners}; these are changed there and cannot be revoked here"
        print_prose(console, text)


def limits(key: Answer) -> str:
    """Describe a key's own limits, and what of its month is used."""
    told = [f"{name} {value:,}" for name, value in key["limits"].items() if value is not None]
    if key["used_tokens"] is not None:
        told.append(f"{key['used_tokens']:,} used this month")
    return ", ".join(told)


def full_name(answer: Answer) -> str:
    """Return an adapter's name behind its tenant's."""
    name = answer.get("adapter") or answer.get("name")
    return f"{answer['tenant']}/{name}" if answer["tenant"] else str(name)


def percent(share: float) -> str:
    """Return a fraction as a percentage."""
    return f"{100 * share:.3g} %"


def size(count: float) -> str:
    """Return a number of bytes in a suitable unit."""
    for unit in _UNITS[:-1]:
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} {_UNITS[-1]}"


def moment(time_s: int | None) -> str:
    """Return a Unix time in UTC; "" for none."""
    return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%d %H:%M}" if time_s else ""


def _rollout(rollout: Answer) -> str:
    after = rollout["promote_after"]
    until = f"promoted after {after} requests" if after else "until it is promoted"
    return (
        f"version {rollout['candidate']} is rolled out: {percent(rollout['weight'])} of the requests, {until}"
    )


def _place(resident: Answer) -> str:
    extras = [word for word in ("pinned", "draining") if resident[word]]
    return " ".join([f"{resident['replica']}:{resident['place']}", *extras])

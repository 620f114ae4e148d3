"""The scheduler's state as tables on a terminal. Pure presentation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from rich.console import Console

from tenantry.client import Answer
from tenantry.columns import Columns, print_prose
from tenantry.display import COLOURS, IN_JSON, percent
from tenantry.running import print_whole

SHOWN = 20  # tenants and waiting models of each pool; those that matter come first
LEAST_WAIT_S = 0.001  # grants without a wait took microseconds


def scheduler(console: Console, answer: Answer) -> None:
    """Show every pool, then the last decisions."""
    models = Counter(pool["name"] for pool in answer["pools"])
    for pool in answer["pools"]:
        name = f"{pool['name']}, {pool['base_model']}" if models[pool["name"]] > 1 else pool["name"]
        print_prose(console, f"pool {name}: {_queue(pool)}", "bold")
        for line in (_objectives(pool), _rates(pool)):
            if line:
                console.print(f"  {line}")
        if wanted := _wanted(pool):
            print_prose(console, f"  {wanted}")
        _replicas(console, pool["replicas"])
        if pool["tenants"]:
            _tenants(console, pool["tenants"])
        if pool["waiting"]:
            _waiting(console, pool["waiting"])
    if answer["decisions"]:
        _decisions(console, answer["decisions"])


def seconds(time_s: float | None) -> str:
    """Return a time in a suitable unit; "" for none."""
    if time_s is None:
        return ""
    if time_s < 1:
        return f"{1000 * time_s:.3g} ms"
    if time_s < 120:
        return f"{time_s:.3g} s"
    minutes = round(time_s / 60)
    return f"{minutes} min" if minutes < 120 else f"{round(minutes / 60)} h"


def _queue(pool: Answer) -> str:
    bands = pool["queued_by_band"]
    waiting = sum(bands.values())
    if not waiting:
        return "nothing waits"
    return f"{waiting} wait ({', '.join(f'{band} {count}' for band, count in bands.items())})"


def _objectives(pool: Answer) -> str:
    named = (("first token", pool["ttft_slo_s"]), ("between tokens", pool["itl_slo_s"]))
    parts = [f"{name} {seconds(time_s)}" for name, time_s in named if time_s is not None]
    return f"objectives: {', '.join(parts)}" if parts else ""


def _wanted(pool: Answer) -> str:
    """Say how many replicas its work needs, and why; nothing of a fixed number."""
    if pool["replicas_desired"] is None:
        return ""
    least, most = pool["replicas_least"], pool["replicas_most"]
    return f"replicas wanted: {pool['replicas_desired']} of {least} to {most}: {pool['desired_reason']}"


def _rates(pool: Answer) -> str:
    named = (("prompt tokens' worth", pool["work_per_s"]), ("slots passed on", pool["slots_per_s"]))
    parts = [f"{rate:.3g} {name}" for name, rate in named if rate is not None]
    return f"measured under load, per second: {', '.join(parts)}" if parts else ""


def _replicas(console: Console, replicas: list[Answer]) -> None:
    table = Columns(
        *_REPLICA_COLUMNS,
        spare=("tokens", "pace", "breaker", "leases"),
        prose=("leases",),
        note=IN_JSON,
    )
    for r in replicas:
        table.add(*(cell(r) for cell in _REPLICA_COLUMNS.values()), style=COLOURS.get(r["state"]))
    print_whole(console, table)
    for r in replicas:
        if r["reason"]:
            print_prose(console, f"  {r['name']}: {r['reason']}", style="red")
        _trouble(console, r["name"], r["health"])
        if r["slot_drains_for"]:
            print_prose(console, f"  {r['name']}: {_promise(r)}", "yellow")


def _tenants(console: Console, tenants: list[Answer]) -> None:
    table = Columns(
        *("tenant", "band", "weight", "service", "waiting", "users", "in all", "slots", "completion"),
        spare=("completion", "weight", "service", "users", "band"),
        note=IN_JSON,
    )
    for t in sorted(tenants, key=lambda tenant: (-tenant["queued"], tenant["name"]))[:SHOWN]:
        cells = (
            t["name"],
            t["band"],
            f"{t['weight']:g}",
            f"{t['service_tokens']:.0f}",
            t["queued"],
            t["users"] or "",
            t["tickets"],
            t["slots"],
            f"{t['mean_completion_tokens']:.0f}",
        )
        table.add(*cells)
    print_whole(console, table)
    _rest(console, len(tenants), "tenants")


def _waiting(console: Console, waiting: list[Answer]) -> None:
    table = Columns("waiting for", "requests", "longest", "why")
    for each in waiting[:SHOWN]:
        cells = each["engine_model"], each["queued"], seconds(each["oldest_s"]), each["waits_for"]
        table.add(*cells)
    print_whole(console, table)
    _rest(console, len(waiting), "that wait")


def _rest(console: Console, count: int, what: str) -> None:
    if count > SHOWN:
        console.print(f"  and {count - SHOWN} more {what}; --json shows all")


def _decisions(console: Console, decisions: list[Answer]) -> None:
    table = Columns(
        *("ago", "request", "tenant", "model", "decision", "why", "replica", "waited"),
        spare=("waited", "replica", "model", "tenant"),
        note=IN_JSON,
    )
    for d in decisions:
        cells = (
            seconds(d["ago_s"]),
            d["request_id"],
            d["tenant"],
            d["model"],
            d["action"],
            d["reason"],
            d["replica"],
            seconds(d["waited_s"]) if d["waited_s"] >= LEAST_WAIT_S else "",
        )
        table.add(*cells)
    print_whole(console, table)


def _limit(replica: Answer) -> str:
    """Sequences in flight and the capacity, with the health that lowers it."""
    health, of_limit = replica["health"], f"{replica['sequences']} of {replica['capacity']}"
    return of_limit if health["share"] >= 1 else f"{of_limit}, at {percent(health['share'])}"


def _leases(replica: Answer) -> str:
    running = [f"{x['adapter']} ({x['sequences']}, {seconds(x['leased_s'])})" for x in replica["leases"]]
    leased = {lease["adapter"] for lease in replica["leases"]}
    return " ".join([*running, *(f"{name} (pinned)" for name in replica["pinned"] if name not in leased)])


_REPLICA_COLUMNS: dict[str, Callable[[Answer], Any]] = {
    "replica": lambda r: r["name"],
    "state": lambda r: r["state"],
    "in flight": _limit,
    "tokens": lambda r: f"{r['tokens']} of {r['kv_tokens']}" if r["kv_tokens"] else r["tokens"],
    "pace": lambda r: seconds(r["itl_s"]),
    "slots": lambda r: f"{r['slots'] - r['free_slots']} of {r['slots']}",
    "leases": _leases,
    "breaker": lambda r: r["health"]["breaker"],
}


def _promise(replica: Answer) -> str:
    waiting, evicted = replica["slot_drains_for"], replica["slot_evicted"]
    if evicted is None:
        return f"a free slot is kept for {waiting}"
    return f"a slot is drained for {waiting}, {evicted} gets nothing new"


def _trouble(console: Console, name: str, health: Answer) -> None:
    """Print a replica's fault in one line, if it has one."""
    parts = []
    if health["breaker"] != "closed":
        due = "" if health["probe_in_s"] is None else f", tried again in {seconds(health['probe_in_s'])}"
        parts.append(f"circuit breaker {health['breaker']}{due}")
    if health["recent_failures"]:
        parts.append(f"{health['recent_failures']} of {health['recent_requests']} requests failed lately")
    if health["outlying"]:
        parts.append(f"first tokens after {seconds(health['first_token_s'])}, much later than its peers'")
    if parts:
        reason = f" ({health['last_failure']})" if health["last_failure"] else ""
        print_prose(console, f"  {name}: {'; '.join(parts)}{reason}", "red")
